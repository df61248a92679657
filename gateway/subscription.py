"""One client's place in a thread's log: replays what it missed at its own pace, then rides along live.

A subscription is either behind (it reads the log itself, page by page, as fast as its client takes them) or live
(the feed puts frames into its bounded queue). It goes from one to the other without gap or repeat, because `seq`
has no holes: what the queue holds twice is dropped, what it lacks is read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.frames import Frame
from gateway.previews import without_known
from modem.stream import START, StreamId
from workflow.core.errors import Unavailable
from workflow.core.ids import RunId, ThreadId
from workflow.core.records import Caller

_RETRY_S = 0.5
"""Pause before the log is asked again after Redis did not answer."""
_AT_ONCE = frozenset({"slow", "refused", "left"})
"""Ends after which nothing that is still queued is sent."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked for.

    cursor: the last event it has seen; START for everything.
    run_id: only this run's events; the stream ends with the run.  run_over: the run has ended already.
    """

    cursor: StreamId = START
    run_id: RunId | None = None
    run_over: bool = False
    deltas: bool = True


class Wire(Protocol):
    """A client's connection, below the response that is being sent on it."""

    def is_ready(self) -> bool:
        """True if a write would not have to wait for the client."""

    def write(self, chunk: bytes) -> None:
        """Sends one chunk of a body at once."""

    def abort(self) -> None:
        """Cuts the connection without waiting for its buffers."""


class Source(Protocol):
    """What a subscription needs of its thread's feed."""

    thread_id: ThreadId
    position: StreamId
    """The newest event that live followers have been handed."""
    is_settled: bool
    """False while events may pass by unseen."""
    waiting: dict[RunId, Frame]

    def join(self, subscription: "Subscription") -> StreamId:
        """From now on every event after the one returned is offered."""

    def demote(self, subscription: "Subscription") -> None:
        """No longer live: it reads the log again."""

    def is_live(self, subscription: "Subscription") -> bool: ...

    async def page(self, after: StreamId) -> tuple[list[Frame], bool]:
        """The next events, and whether they reach the end of the log as it was then. Raises: Unavailable."""

    async def foreign(self, cursor: StreamId) -> Frame | None:
        """A `reset` if `cursor` belongs to no event of this log. Raises: Unavailable."""

    async def previews(self) -> list[Frame]:
        """The text so far of what grows now. Raises: Unavailable."""


class Subscription:
    """One client of a feed. Its owner iterates `batches()`; the feed calls `offer`, the hub `close`."""

    __slots__ = (
        "_arrived", "_max_bytes", "_queue", "_queued_bytes", "_wish", "abort", "caller", "check_at", "closed",
        "cursor", "expires_at", "feed", "slot", "wire", "writing_since",
    )  # fmt: skip

    def __init__(self, feed: Source, caller: Caller, wish: Wish, *, max_bytes: int) -> None:
        self.feed = feed
        self.caller = caller
        self.cursor = wish.cursor
        self.closed = ""
        """Why it ended: `left`, `slow`, `draining`, `too_old`, `refused`, `ended`; "" while open."""
        self.abort: Callable[[], object] | None = None
        """Cuts the connection at once, for a client that no longer reads."""
        self.wire: Wire | None = None
        """Where frames go at once while `batches()` waits and the client keeps up: no task has to wake for them,
        which is most of what a delivery costs (40 us against 15, measured)."""
        self.expires_at = 0.0
        self.check_at = 0.0
        self.writing_since: float | None = None
        """When (loop time) the write under way began; None between writes."""
        self.slot = 0
        self._wish = wish
        self._max_bytes = max_bytes
        self._queue: list[Frame] = []
        self._queued_bytes = 0
        self._arrived: asyncio.Future[None] | None = None

    def is_open(self) -> bool:
        """True until `close`."""
        return not self.closed

    @property
    def thread_id(self) -> ThreadId:
        return self.feed.thread_id

    def offer(self, frame: Frame) -> None:
        """Sends or queues a frame; a client whose queue is full is closed, for it can resume."""
        if self.closed or (frame.at is None and not self._wants(frame)):
            return
        if self.wire is not None and self._arrived is not None and not self._queue and self.wire.is_ready():
            for shown in self._show([frame]):
                self.wire.write(shown.chunk)
            return
        self._queue.append(frame)
        self._queued_bytes += frame.size
        if self._queued_bytes > self._max_bytes:
            self.close("slow")
        else:
            self.wake()

    def is_idle(self) -> bool:
        """True if nothing is on its way to the client, so that a heartbeat has a point."""
        return not self._queue and self.writing_since is None

    def wake(self) -> None:
        """Makes a waiting `batches()` look again."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def close(self, reason: str, last: Frame | None = None) -> None:
        """Ends the stream after `last`, or at once when the client takes nothing."""
        if self.closed:
            return
        self.closed = reason
        self.feed.demote(self)
        if reason in _AT_ONCE:
            self._queue = []
        if last is not None:
            self._queue.append(last)
        if self.abort is not None and (reason == "slow" or self.writing_since is not None):
            self.abort()
        self.wake()

    async def batches(self) -> AsyncIterator[list[Frame]]:
        """What the client is to be sent, in order, in pieces that go out in one write. Ends when closed."""
        while self.is_open():
            try:
                if self.feed.is_settled:
                    async for batch in self._replay():
                        yield batch
                else:
                    await self._wait()
            except Unavailable:
                self.feed.demote(self)
                await self._wait(_RETRY_S)
            while self.is_open() and (self._queue or self.feed.is_live(self)):
                if not self._queue:
                    await self._wait()
                elif batch := self._take():
                    yield batch
        if batch := self._take():
            yield batch

    async def _replay(self) -> AsyncIterator[list[Frame]]:
        """Catches up with the log, joins the live feed on the way, and fills in what is half said."""
        feed = self.feed
        if lost := await feed.foreign(self.cursor):
            yield self._show([lost])
        target: StreamId | None = None
        while self.is_open():
            page, is_last = await feed.page(self.cursor)
            if batch := self._show(page):
                yield batch
            # A page read before joining tells nothing of what came in meanwhile; one read after it is empty only
            # where the log has lost its end.
            if target is not None and is_last and not page:
                break
            if target is None and is_last:
                target = feed.join(self)
            if target is not None and self.cursor.seq >= target.seq:
                break
        if self._wish.run_over:
            self.close("ended")
        elif self.is_open() and (batch := await self._fill_in()):
            yield batch

    async def _fill_in(self) -> list[Frame]:
        """The text so far of what grows now, followed by what came in meanwhile; and which runs still wait."""
        texts = await self.feed.previews() if self._wish.deltas else []
        texts = [text for text in texts if self._wants(text)]
        if texts:
            self._queue = without_known(self._queue, texts)
        waiting = [frame for frame in self.feed.waiting.values() if self._wants(frame)]
        return [*texts, *waiting, *self._take()]

    def _take(self) -> list[Frame]:
        """Empties the queue: what continues this client's place in the log, and what is no fact."""
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        return self._show(queue)

    def _show(self, frames: list[Frame]) -> list[Frame]:
        """Of `frames` those the client is to see; moves the cursor, and never over a hole."""
        shown = []
        for frame in frames:
            if frame.at is not None:
                if frame.is_fact and frame.at.seq <= self.cursor.seq:
                    continue
                if frame.is_fact and frame.at.seq > self.cursor.seq + 1:
                    self.feed.demote(self)
                    self.wake()
                    continue
                self.cursor = frame.at
            if self._wants(frame):
                shown.append(frame)
                if frame.is_terminal and self._wish.run_id is not None:
                    self.close("ended")
                    break
        return shown

    def _wants(self, frame: Frame) -> bool:
        wish = self._wish
        if frame.is_preview and not wish.deltas:
            return False
        return wish.run_id is None or frame.run_id is None or frame.run_id == wish.run_id

    async def _wait(self, timeout_s: float | None = None) -> None:
        """Returns when something came, the feed changed, or time is up."""
        loop = asyncio.get_running_loop()
        self._arrived = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, self.wake)
        try:
            await self._arrived
        finally:
            self._arrived = None
            if timer is not None:
                timer.cancel()
