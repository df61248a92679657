"""Thousands of stream readers in one process, as cheap as they can be: they only look for time stamps.

Runs as a program of its own for `stream.py`. On standard input: one JSON object {port, paths, settle_s, has_event};
prints `ready` when all are connected and, with `has_event`, were sent the event that their thread has already. Then
takes the line `stop` and prints {received, p50_ms, p99_ms, max_ms}.
"""

import asyncio
import json
import re
import resource
import sys
import time
from typing import Any

STAMP = re.compile(rb"t=(\d+);")
_AT_ONCE = 50


class Subscriber(asyncio.Protocol):
    """One connection; counts events and how long they took."""

    def __init__(
        self, port: int, path: str, delays_ns: list[int], answered: asyncio.Event, *, needs_event: bool
    ) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
        self._delays_ns = delays_ns
        self._answered = answered
        self._needs_event = needs_event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        stamps = STAMP.findall(data)
        for stamp in stamps:
            self._delays_ns.append(now - int(stamp))
        if stamps or not self._needs_event:
            self._answered.set()


async def run(order: dict[str, Any]) -> None:
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)
    delays_ns: list[int] = []

    async def connect(path: str) -> None:
        answered = asyncio.Event()
        async with slots:
            await loop.create_connection(
                lambda: Subscriber(order["port"], path, delays_ns, answered, needs_event=order["has_event"]),
                "127.0.0.1",
                order["port"],
            )
            async with asyncio.timeout(30):
                await answered.wait()

    await asyncio.gather(*(connect(path) for path in order["paths"]))
    await asyncio.sleep(order["settle_s"])
    delays_ns.clear()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    delays_ns.sort()
    count = len(delays_ns)
    at = {"p50_ms": count // 2, "p99_ms": count * 99 // 100, "max_ms": count - 1}
    print(json.dumps({"received": count} | {name: delays_ns[place] / 1e6 for name, place in at.items() if count}))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(run(json.loads(sys.stdin.readline())))
