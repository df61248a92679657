"""Whether Redis answers at all: a PING every moment on a connection of its own.

A server that is gone refuses connections, which every command sees at once. One that stands still (frozen, swapping,
behind a network that drops packets) says nothing, and a command would wait for its whole timeout. So while no PING is
answered, what waits for Redis is cut short and what comes is refused. See docs/decisions/0009-a-pulse-of-redis.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol
from weakref import WeakSet

import redis
import redis.asyncio as aioredis

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 0.25
_STEPS = 6


class Refused(redis.ConnectionError):
    """Nothing was sent: the server stands still."""


class Cuttable(Protocol):
    """A connection."""

    def cut(self) -> None:
        """Whoever waits on it gets a ConnectionError now."""


class Pulse:
    """Feels one server's pulse while `serve` runs, and lets nobody wait for a server that stands still."""

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self._pause_s = min(_LONGEST_PAUSE_S, stall_s / 3)
        self._guarded: set[asyncio.Timeout] = set()
        self.connections: WeakSet[Cuttable] = WeakSet()
        """These are cut when the server stalls: dearer guards around each of their commands would take a tenth more
        of the time that redis-py itself takes for one (measured)."""
        self.is_stalled = False
        """True from a PING that was not answered in time to the next one that is."""

    def check(self) -> None:
        """Raises: Refused while the server stands still."""
        if self.is_stalled:
            raise Refused("the server stands still")

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Around what waits for the server without one of `connections`.

        Raises: Refused while it stands still, TimeoutError as soon as it does.
        """
        self.check()
        async with asyncio.timeout(None) as timeout:
            self._guarded.add(timeout)
            try:
                yield
            finally:
                self._guarded.discard(timeout)

    async def serve(self, client: aioredis.Redis) -> None:
        """Goes on until cancelled. client: for this alone, and not guarded."""
        while True:
            ping = asyncio.create_task(_ping(client))
            try:
                if not await self._is_done_in_time(ping):
                    self._stall()
                outcome = await ping
            finally:
                if not ping.done():
                    ping.cancel()
                    await asyncio.wait([ping])
            if outcome == "silent":
                self._stall()
            elif outcome == "answered" and self.is_stalled:
                self.is_stalled = False
                _log.warning("Redis answers again")
            await asyncio.sleep(self._pause_s)

    async def _is_done_in_time(self, ping: asyncio.Task[str]) -> bool:
        """Waits in steps, each counted as no longer than it was meant to be: when our own loop was busy, or this
        process was stopped, the answer may lie there unread."""
        for _ in range(_STEPS):
            await asyncio.wait([ping], timeout=self._stall_s / _STEPS)
            if ping.done():
                return True
        return False

    def _stall(self) -> None:
        if self.is_stalled:
            return
        self.is_stalled = True
        _log.warning("Redis stands still: what waits for it is cut short, commands are refused until it answers")
        for connection in list(self.connections):
            connection.cut()
        guarded, self._guarded = self._guarded, set()
        now = asyncio.get_running_loop().time()
        for timeout in guarded:
            timeout.reschedule(now)


async def _ping(client: aioredis.Redis) -> str:
    """`answered` (an error is an answer too), `silent`, or `away`: commands will see that themselves."""
    try:
        await client.ping()
    except redis.ResponseError:
        return "answered"
    except (redis.TimeoutError, TimeoutError):
        return "silent"
    except (redis.RedisError, OSError):
        return "away"
    return "answered"
