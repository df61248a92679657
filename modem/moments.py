"""Which snapshot holds a thread's files as they were at an event; the thread's log alone says it.

A run saves the workspace before its first call that may change files, and after each turn with such calls. An event
between two saves belongs to the earlier one once a call has begun, and to the later one when no call ended in between.
"""

from dataclasses import dataclass

from modem.pool import Connections
from modem.retention import base
from modem.stream import Log, StreamId, parse_cursor
from workflow.core.errors import NotFound
from workflow.core.events import Effect, Event, RunStarted, ToolCalled, ToolResulted, WorkspaceSaved, decode
from workflow.core.ids import ThreadId

PAGE = 64


@dataclass(frozen=True, slots=True)
class Moment:
    """The files at an event."""

    snapshot: str
    """Empty: nothing was ever saved because no tool has changed anything; they are as they are now."""
    saved_id: str
    """The event that tells of the snapshot."""


NOW = Moment("", "")


class Moments:
    """Looks events up in the log."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._log = Log(connections)

    async def find(self, thread_id: ThreadId, event_id: str) -> Moment:
        """The files at an event. Raises: BadCursor, NotFound (unknown, trimmed, or nothing was saved), Unavailable."""
        at = parse_cursor(event_id)
        if not await self._log.exists(thread_id, at):
            bounds = await self._log.bounds(thread_id)
            trimmed = at.seq and at.seq < bounds.first_seq and at.epoch <= bounds.epoch
            why = "it is no longer kept" if trimmed else "there is none in this thread"
            raise NotFound(f"no event {at}: {why}", event=str(at))
        before, moved = await self._before(thread_id, at)
        if before is not None and not moved:
            return _moment(before)
        after, blocked = await self._after(thread_id, at)
        found = after or before
        if found is not None:
            return _moment(found)
        if blocked:
            raise NotFound(f"the files of event {at} were not saved", event=str(at))
        return NOW

    async def _before(self, thread_id: ThreadId, at: StreamId) -> tuple[WorkspaceSaved | None, bool]:
        """The newest save up to an event, and whether the files may have changed between the two."""
        moved = False
        while page := await self._log.read_back(thread_id, upto=at, count=PAGE):
            for _, envelope in page:
                event = decode(envelope)
                if isinstance(event, WorkspaceSaved):
                    return event, moved
                # Between runs people may have put files there; a call that has begun may be half done.
                moved |= isinstance(event, RunStarted) or (isinstance(event, ToolCalled) and _may_change(event))
            last = parse_cursor(page[-1][0])
            if len(page) < PAGE or last.seq == 0:
                break
            at = StreamId(last.epoch, last.seq - 1)
        return (await base(self._connections, thread_id)).saved, moved

    async def _after(self, thread_id: ThreadId, at: StreamId) -> tuple[WorkspaceSaved | None, bool]:
        """The first save after an event if the files cannot have changed in between; whether they have."""
        harmless: set[str] = set()
        changed: set[str | None] = set()
        while page := await self._log.read(thread_id, after=at, count=PAGE):
            for _, envelope in page:
                event = decode(envelope)
                if isinstance(event, WorkspaceSaved):
                    return (event if _reaches_back(event, changed) else None), True
                if isinstance(event, ToolCalled) and not _may_change(event):
                    harmless.add(event.call_id)
                elif isinstance(event, ToolResulted) and event.call_id not in harmless:
                    changed.add(event.run_id)
            at = parse_cursor(page[-1][0])
        return None, bool(changed)


def _moment(saved: WorkspaceSaved) -> Moment:
    return Moment(saved.snapshot, saved.id)


def _may_change(event: Event) -> bool:
    return isinstance(event, ToolCalled) and event.effect is not Effect.PURE


def _reaches_back(saved: WorkspaceSaved, changed: set[str | None]) -> bool:
    """Whether the files were the same before a save; `changed`: runs whose calls ended since."""
    if saved.why in {"restored", "forked"}:
        return False
    # What a run did before its first save cannot have changed a file.
    return not (changed - {saved.run_id} if saved.why == "start" else changed)
