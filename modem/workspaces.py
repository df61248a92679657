"""Workspaces that nobody needs any more: noted in Redis until a worker has deleted them."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from modem import keys
from modem.pool import Connections, translated
from workflow.core.errors import SandboxError, Unavailable
from workflow.core.ids import ThreadId

log = logging.getLogger(__name__)

LOOK_S = 1.0
AGAIN_MS = 60_000
"""A deletion that failed is tried again after this, and one that succeeded is repeated: a file request that was under
way may have left something. No request waits this long for a worker."""
EXPECTED_MS = 120_000
"""The files of a thread that is being made stay for this long when whoever makes it dies."""
_AGAIN = " again"


async def give_up(connections: Connections, thread_id: ThreadId) -> None:
    """Has some worker delete the thread's sandbox and files, unless there is such a thread. Raises: Unavailable."""
    now = await connections.now_ms()
    async with translated():
        await connections.commands.delete(keys.expected(thread_id))
        await connections.commands.zadd(keys.GIVEN_UP, {thread_id: now, f"{thread_id}{_AGAIN}": now + AGAIN_MS})


async def expect(connections: Connections, thread_id: ThreadId) -> None:
    """Lets a thread that is about to be made have files already. Raises: Unavailable."""
    due = await connections.now_ms() + EXPECTED_MS
    async with translated():
        await connections.commands.set(keys.expected(thread_id), "1", px=EXPECTED_MS)
        await connections.commands.zadd(keys.GIVEN_UP, {thread_id: due})


async def still_expect(connections: Connections, thread_id: ThreadId) -> None:
    """To be said while the thread is being made; says nothing once its files were given up. Raises: Unavailable."""
    async with translated():
        await connections.commands.pexpire(keys.expected(thread_id), EXPECTED_MS)


async def is_wanted(connections: Connections, thread_id: ThreadId) -> bool:
    """Whether there is such a thread, or will be: all others are to have no files. Raises: Unavailable."""
    async with translated():
        return bool(await connections.commands.exists(keys.metadata(thread_id), keys.expected(thread_id)))


async def installation(connections: Connections) -> str:
    """What tells this installation, as far as its data in Redis go, from others with the same configuration.

    Raises: Unavailable.
    """
    async with translated():
        if not await connections.commands.exists(keys.INSTALLATION):  # A full Redis is still read.
            await connections.commands.set(keys.INSTALLATION, secrets.token_hex(8), nx=True)
        return (await connections.commands.get(keys.INSTALLATION) or b"").decode()


class Removals:
    """The worker's side: deletes what was given up."""

    def __init__(self, connections: Connections, remove: Callable[[ThreadId], Awaitable[None]]) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._remove = remove

    async def serve(self) -> None:
        """Goes round until cancelled."""
        while True:
            try:
                while await self.once():
                    pass
            except Unavailable:
                log.warning("removals: Redis is away")
            await asyncio.sleep(LOOK_S)

    async def once(self) -> bool:
        """Looks after one that is due; False when none is. Raises: Unavailable."""
        async with translated():
            _, *due = await self._connections.scripts.take_due(keys=[keys.GIVEN_UP], args=[1, AGAIN_MS])
        for entry in due:
            thread_id = ThreadId(entry.decode().removesuffix(_AGAIN))
            try:
                await self._settle(thread_id, entry)
            except (SandboxError, OSError) as error:
                log.warning("the files of a deleted thread stay for now: %s", error, extra={"thread_id": thread_id})
        return bool(due)

    async def _settle(self, thread_id: ThreadId, entry: bytes) -> None:
        async with translated():
            if await self._redis.exists(keys.expected(thread_id)):
                return
        if not await is_wanted(self._connections, thread_id):
            await self._remove(thread_id)
        async with translated():
            await self._redis.zrem(keys.GIVEN_UP, entry)
