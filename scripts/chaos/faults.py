"""What can break: each fault is made by its own function and undone by itself."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import redis

from tests.line import Line, Process


class Faults:
    """Breaks one line, one fault after the other, and remembers what it did and when."""

    def __init__(self, line: Line, ports: list[int], *, lease_s: float, seed: int) -> None:
        self._line = line
        self._ports = ports
        self._lease_s = lease_s
        self._random = random.Random(seed)
        self._gateways = dict(zip(ports, line.alive("gateway"), strict=True))
        self.done: Counter[str] = Counter()
        self.gone: dict[int, float] = {}
        """Process id of a killed or paused worker → when (seconds since 1970)."""

    async def serve(self, until_s: float, *, pause_s: float) -> None:
        """Makes faults until the monotonic time `until_s`, with about `pause_s` between them."""
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.kill_worker, 6),
            (self.pause_worker, 3),
            (self.stop_worker, 2),
            (self.kill_gateway, 3),
            (self.stall_redis, 2),
            (self.restart_redis, 2),
            (self.drop_sockets, 3),
            (self.delete_messages, 3),
        ]
        while time.monotonic() < until_s:
            fault = self._random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
            self.done[fault.__name__] += 1
            await fault()
            await self.restore()
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * pause_s)

    async def restore(self) -> None:
        """Starts again what has died."""
        for port, process in list(self._gateways.items()):
            if process.popen.poll() is not None:
                self._gateways[port] = self._line.gateway(port)
        while len(self._line.alive("worker")) < 3:
            self._line.worker()

    def _worker(self) -> Process:
        return self._random.choice(self._line.alive("worker"))

    async def kill_worker(self) -> None:
        worker = self._worker()
        self.gone[worker.popen.pid] = time.time()
        worker.kill()
        await asyncio.to_thread(worker.wait)

    async def pause_worker(self) -> None:
        worker = self._worker()
        self.gone[worker.popen.pid] = time.time()
        worker.kill(signal.SIGSTOP)
        await asyncio.sleep(self._lease_s + self._random.uniform(0.5, 2))
        worker.kill(signal.SIGCONT)

    async def stop_worker(self) -> None:
        worker = self._worker()
        worker.kill(signal.SIGTERM)
        await asyncio.to_thread(worker.wait)

    async def kill_gateway(self) -> None:
        gateway = self._gateways[self._random.choice(self._ports)]
        gateway.kill()
        await asyncio.to_thread(gateway.wait)

    async def stall_redis(self) -> None:
        server = self._line.redis.process
        if server is not None:
            server.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._random.uniform(0.5, 2.5))
            server.send_signal(signal.SIGCONT)

    async def restart_redis(self) -> None:
        await asyncio.to_thread(self._line.redis.kill)
        await asyncio.sleep(self._random.uniform(0, 1))
        await asyncio.to_thread(self._line.redis.start)

    async def drop_sockets(self) -> None:
        with self._line.redis.client() as client, suppress(redis.RedisError):
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)

    async def delete_messages(self) -> None:
        with self._line.redis.client() as client, suppress(redis.RedisError):
            client.delete("dialtone:hints")
