"""One thread in this process: what its log holds, who follows it, and handing each event to all of them.

The courier (pub/sub) is fast and may lose; the log has everything. A feed is settled while the courier holds its
subscription: then every event passes by in order and `position` is the newest. Whenever that breaks, or an event
does not follow the one before, the followers are sent back to read the log themselves.
"""

import asyncio
import logging

from gateway import frames
from gateway.frames import Frame
from gateway.snapshot import fold_log, state_json
from gateway.subscription import Subscription
from modem.pool import Connections
from modem.retention import base
from modem.stream import START, Log, StreamId, parse_cursor
from modem.threads import Threads
from workflow.core.ids import RunId, ThreadId
from workflow.core.records import Caller

_log = logging.getLogger(__name__)

PAGE = 256
"""Events read from the log at once."""
_MAX_WAITING = 20
"""Runs of which it is told that they wait."""


class Feed:
    """A thread that somebody in this process follows."""

    def __init__(self, thread_id: ThreadId, connections: Connections, threads: Threads, caller: Caller) -> None:
        self.thread_id = thread_id
        self.position = START
        """The newest event known to be in the log; live followers have been handed everything up to here."""
        self.is_settled = False
        self.subscriptions: set[Subscription] = set()
        self.waiting: dict[RunId, Frame] = {}
        """Per run that waits the latest `waiting` frame."""
        self._connections = connections
        self._log = Log(connections)
        self._threads = threads
        self._caller = caller
        self._live: dict[Subscription, None] = {}
        self._pages: dict[tuple[StreamId, StreamId], asyncio.Task[tuple[list[Frame], bool]]] = {}

    def heard(self, payload: bytes) -> int:
        """Hands a message of the courier on; gives back to how many."""
        head, _, body = payload.partition(b"|")
        if not head:
            return self._send(frames.preview(body)) if self._live else 0
        if head == b"waiting":
            run_id, _, waiting_for = body.decode().partition(" ")
            return self._send(self.note_waiting(RunId(run_id), None, waiting_for, is_over=not waiting_for))
        at = parse_cursor(head.decode())
        if at.seq <= self.position.seq and at.epoch == self.position.epoch:
            return 0
        follows = self.is_settled and at.seq == self.position.seq + 1
        self.position = at
        frame = frames.fact(at, body)
        self._note(frame)
        if follows:
            return self._send(frame)
        self.demote_all()
        return 0

    def _send(self, frame: Frame) -> int:
        reached = len(self._live)
        for subscription in list(self._live):
            subscription.offer(frame)
        return reached

    def _note(self, frame: Frame) -> None:
        """Keeps track of which runs wait."""
        if frame.run_id is None:
            return
        if frame.type == "run.queued":
            self.note_waiting(frame.run_id, None, "")
        elif frame.type == "run.started" or frame.is_terminal:
            self.waiting.pop(frame.run_id, None)

    def note_waiting(self, run_id: RunId, position: int | None, waiting_for: str, *, is_over: bool = False) -> Frame:
        """What to tell of a run that waits; remembered, until that is over, for who comes later and for heartbeats."""
        frame = frames.waiting(run_id, position, waiting_for)
        if is_over:
            self.waiting.pop(run_id, None)
        elif run_id in self.waiting or len(self.waiting) < _MAX_WAITING:
            self.waiting[run_id] = frame
        return frame

    async def refresh_waiting(self) -> None:
        """Looks the runs that wait up again and tells everybody where they stand."""
        for run_id in list(self.waiting):
            run = await self._threads.run(self._caller, run_id)
            frame = self.note_waiting(run_id, run.position, run.waiting_for, is_over=not run.waits)
            for subscription in list(self.subscriptions) if run.waits or run.status == "running" else ():
                subscription.offer(frame)

    def unsettle(self) -> None:
        """The courier is lost."""
        self.is_settled = False
        self.demote_all()

    async def settle(self) -> None:
        """The courier holds the subscription: finds out where the log stands. Raises: Unavailable."""
        self.position = START
        bounds = await self._log.bounds(self.thread_id)
        # What the courier brought meanwhile was in the log before it was published.
        self.position = max(self.position, bounds.last_id)
        self.is_settled = True
        self.demote_all()
        for subscription in self.subscriptions:
            subscription.wake()

    def join(self, subscription: Subscription) -> StreamId:
        """From now on the subscription is handed every event after the one returned."""
        if self.is_settled and not subscription.closed:
            self._live[subscription] = None
        return self.position

    def is_live(self, subscription: Subscription) -> bool:
        return subscription in self._live

    def demote(self, subscription: Subscription) -> None:
        """Sends a follower back to the log."""
        self._live.pop(subscription, None)

    def demote_all(self) -> None:
        """Sends all followers back to the log; what they were handed so far stays theirs."""
        live, self._live = self._live, {}
        for subscription in live:
            subscription.wake()

    async def page(self, after: StreamId) -> tuple[list[Frame], bool]:
        """The next events after `after`, and whether they reach the end of the log as it was then.

        Where events are gone, a `gap` frame comes first. Followers at the same place share one reading, unless an
        event has passed by since it began. Raises: Unavailable.
        """
        key = (after, self.position)
        task = self._pages.get(key)
        if task is None:
            task = self._pages[key] = asyncio.create_task(self._read(after))
            task.add_done_callback(lambda done: self._read_done(key, done))
        return await asyncio.shield(task)

    def _read_done(self, key: tuple[StreamId, StreamId], task: asyncio.Task[tuple[list[Frame], bool]]) -> None:
        self._pages.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen here too: everybody who waited for it may have left

    async def _read(self, after: StreamId) -> tuple[list[Frame], bool]:
        entries = await self._log.read(self.thread_id, after=after, count=PAGE)
        page = [frames.fact(parse_cursor(entry_id), envelope) for entry_id, envelope in entries]
        is_last = len(page) < PAGE
        first = page[0].at if page else None
        if first is None:
            bounds = await self._log.bounds(self.thread_id)
            if bounds.last_seq > after.seq:
                is_empty = bounds.first_seq > bounds.last_seq
                return ([(await self._gap(after, bounds.last_id))[0]], True) if is_empty else ([], False)
        elif first.seq > after.seq + 1:
            gap, last = await self._gap(after, StreamId(first.epoch, first.seq - 1))
            return [gap, *page[last.seq - first.seq + 1 :]], is_last
        return page, is_last

    async def _gap(self, after: StreamId, last: StreamId) -> tuple[Frame, StreamId]:
        """Says that everything after `after` up to `last` is gone, or up to the later event that is given back."""
        state = await base(self._connections, self.thread_id)
        if state.last_id:  # the log may have been trimmed further since its page was read
            last = max(last, parse_cursor(state.last_id))
        state.last_id = str(last)
        return frames.gap(StreamId(after.epoch or last.epoch, after.seq + 1), last, state_json(state)), last

    async def foreign(self, cursor: StreamId) -> Frame | None:
        """A `reset` frame if `cursor` is the id of no event that this log holds or held. Raises: Unavailable."""
        if cursor == START:
            return None
        bounds = await self._log.bounds(self.thread_id)
        if cursor.epoch <= bounds.epoch and cursor.seq <= bounds.last_seq:
            is_trimmed = cursor.seq < bounds.first_seq
            if is_trimmed or cursor.seq == 0 or await self._log.exists(self.thread_id, cursor):
                return None
        state = await fold_log(self._connections, self.thread_id)
        return frames.reset(parse_cursor(state.last_id) if state.last_id else bounds.last_id, state_json(state))

    async def previews(self) -> list[Frame]:
        """The text so far of what grows now. Raises: Unavailable."""
        return [frames.preview(delta) for delta in await self._log.previews(self.thread_id)]
