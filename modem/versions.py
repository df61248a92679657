"""A thread's files at earlier events: read them, compare them, put them back, go on from them in another thread."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from modem import keys
from modem.files import Files
from modem.forks import Forks
from modem.moments import NOW, Moment, Moments
from modem.pool import Connections, translated
from modem.stream import parse_cursor
from modem.threads import Threads
from modem.workspaces import expect, give_up, still_expect
from workflow.core.errors import Conflict, DialtoneError, NotFound, ThreadBusy, Unavailable
from workflow.core.events import WorkspaceSaved, encode
from workflow.core.ids import ThreadId, new_thread_id
from workflow.core.records import Caller, ThreadRecord

HOLD_S = 120
"""Runs stay out for this long when the gateway that restores dies."""
RENEW_S = 30
PATIENCE_S = 600
"""For one restore or fork of a large workspace."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has put into the log."""

    before_id: str
    """Restoring to this event undoes it."""
    restored_id: str


class Versions:
    """The gateway's side. Raises everywhere: NotFound, BadCursor, Unavailable."""

    def __init__(self, connections: Connections, threads: Threads, files: Files) -> None:
        self._connections = connections
        self._threads, self._files = threads, files
        self._moments, self._forks = Moments(connections), Forks(connections)

    async def at(self, caller: Caller, thread_id: ThreadId, event_id: str) -> Moment:
        """The snapshot that holds the files of an event."""
        await self._threads.get(caller, thread_id)
        return await self._moments.find(thread_id, event_id)

    async def diff(
        self, caller: Caller, thread_id: ThreadId, *, old: str, new: str, after: str, limit: int
    ) -> dict[str, Any]:
        """What changed between two events, or an event and now (`new` empty), one page of files."""
        before = await self.at(caller, thread_id, old)
        later = await self._moments.find(thread_id, new) if new else NOW
        request = {"op": "diff", "old": before.snapshot, "new": later.snapshot, "after": after, "limit": limit}
        header, _ = await self._files.ask(caller, thread_id, request)
        return header

    async def restore(self, caller: Caller, thread_id: ThreadId, event_id: str) -> Restored:
        """Makes the files what they were at an event. Raises: ThreadBusy while a run has not ended, Conflict."""
        moment = await self.at(caller, thread_id, event_id)
        async with self._holding(caller, thread_id) as token:
            asked = {"op": "snapshot", "label": "before restoring"}
            header, _ = await self._files.ask(caller, thread_id, asked)
            before = WorkspaceSaved(thread_id=thread_id, snapshot=header["snapshot"], why="before_restore")
            before_id = await self._note(thread_id, token, before)
            wanted = moment.snapshot or header["snapshot"]
            asked = {"op": "restore", "snapshot": wanted}
            await self._files.ask(caller, thread_id, asked, wait_s=PATIENCE_S)
            after = WorkspaceSaved(thread_id=thread_id, snapshot=wanted, why="restored", of=event_id)
            return Restored(before_id, await self._note(thread_id, token, after))

    async def fork(self, caller: Caller, thread_id: ThreadId, event_id: str, *, title: str) -> ThreadRecord:
        """A new thread whose log and files are those of an event. Raises: LimitExceeded."""
        await self._files.check_disk(caller, thread_id)
        source = await self._threads.get(caller, thread_id)
        moment = await self._moments.find(thread_id, event_id)
        target, at = new_thread_id(), parse_cursor(event_id)
        request = {"op": "fork", "snapshot": moment.snapshot, "target": target}
        await expect(self._connections, target)
        try:
            async with _repeated(lambda: still_expect(self._connections, target)):
                header, _ = await self._files.ask(caller, thread_id, request, wait_s=PATIENCE_S)
                await self._forks.copy(caller, source, target, at=at, title=title, snapshot=header["snapshot"])
        except DialtoneError:
            with contextlib.suppress(Unavailable):  # Then it is given up when nobody expects it any more.
                await give_up(self._connections, target)
            raise
        return await self._threads.get(caller, target)

    @contextlib.asynccontextmanager
    async def _holding(self, caller: Caller, thread_id: ThreadId) -> AsyncIterator[str]:
        """Keeps runs out; gives the token by which the holder is known."""
        token = secrets.token_hex(8)
        await self._hold(caller, thread_id, token)
        unsure = False
        try:
            async with _repeated(lambda: self._hold(caller, thread_id, token)):
                yield token
        except Unavailable:
            unsure = True  # A worker may still be at it: the hold ends by itself.
            raise
        finally:
            if not unsure:
                with contextlib.suppress(NotFound, Unavailable):
                    await self._note(thread_id, token, free=True)

    async def _hold(self, caller: Caller, thread_id: ThreadId, token: str) -> None:
        args = [keys.thread(thread_id), caller.tenant, token, HOLD_S * 1000]
        async with translated():
            answer = await self._connections.scripts.hold(keys=[keys.metadata(thread_id)], args=args)
        match answer[0]:
            case b"missing":
                raise NotFound(f"no thread {thread_id}")
            case b"busy":
                run_id = answer[1].decode()
                raise ThreadBusy(f"run {run_id} has not ended; cancel it first", run_id=run_id)
            case b"held":
                raise Conflict("the thread's files are being restored already", retry_after_s=2)

    async def _note(
        self, thread_id: ThreadId, token: str, event: WorkspaceSaved | None = None, *, free: bool = False
    ) -> str:
        """Appends an event of no run; its id. Raises: NotFound if the thread is gone, Unavailable if the hold is."""
        payloads = [] if event is None else [encode(event)]
        args = [keys.thread(thread_id), token, "1" if free else "0", *payloads]
        async with translated():
            answer = await self._connections.scripts.note(keys=[keys.metadata(thread_id)], args=args)
        if answer[0] == b"missing":
            raise NotFound(f"no thread {thread_id}")
        if answer[0] == b"lost":
            raise Unavailable("the restore took too long; look at the files before you try again")
        return answer[1].decode() if payloads else ""


@contextlib.asynccontextmanager
async def _repeated(say: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Says something again every `RENEW_S` while inside."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(Unavailable, NotFound, Conflict):
                await say()

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.gather(repeating, return_exceptions=True)
