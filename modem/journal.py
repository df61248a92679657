"""One run's pen in its thread's log, and the process's courier of previews.

A commit that got no answer is repeated with the same `run_seq`: the script then gives the first answer again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from modem import keys
from modem.meter import Meter
from modem.pool import Connections, translated
from modem.stream import Log, StreamId
from workflow.core.errors import LeaseLost, RunCancelled, Unavailable
from workflow.core.events import (
    ApprovalRequested,
    Delta,
    DeltaKind,
    Event,
    EventBase,
    Message,
    Notice,
    ToolResulted,
    Usage,
    encode,
)
from workflow.core.ids import RunId, ThreadId, thread_of

log = logging.getLogger(__name__)

T = TypeVar("T")

PREVIEW_TTL_MS = 600_000
PREVIEW_BYTES = 262_144
"""Longer unfinished text is no longer kept for late joiners; the finished event brings it whole."""
AT_ONCE = 50
"""Previews in one pipeline; between two the loop does other things (500 at once held it for 180 ms, measured)."""
FRESH_S = 0.1
"""A commit tells what others appended before it; for so long after it nobody asks again."""


@dataclass(slots=True)
class _Growing:
    """What came for one preview field since the last flush. Made for many pieces, none of which is an event yet."""

    journal: "RunJournal"
    turn: int
    item: str
    kind: DeltaKind
    offset: int
    pieces: list[str] = field(default_factory=list)

    @property
    def field(self) -> str:
        return f"{self.turn}|{self.kind.value}|{self.item}"

    def delta(self) -> Delta:
        return Delta(
            run_id=self.journal.run_id,
            turn=self.turn,
            item=self.item,
            kind=self.kind,
            offset=self.offset,
            text="".join(self.pieces),
        )


class Previewer:
    """Gathers the deltas of all runs of a process and sends them in one pipeline every `every_s`."""

    def __init__(self, connections: Connections, *, every_s: float) -> None:
        self._connections = connections
        self._every_s = every_s
        self._growing: dict[tuple[RunId, str, DeltaKind], _Growing] = {}
        self._flush: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None

    def growing(self, run_id: RunId, item: str, kind: DeltaKind) -> _Growing | None:
        """What waits for the next flush; None when nothing of this field does."""
        return self._growing.get((run_id, item, kind))

    def begin(self, growing: _Growing) -> None:
        """Takes what began to grow; what is added to it until the next flush goes with it."""
        self._growing[growing.journal.run_id, growing.item, growing.kind] = growing
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._flush_soon())

    def drop(self, run_id: RunId, item: str) -> None:
        """Forgets what a finished event supersedes."""
        for kind in DeltaKind:
            self._growing.pop((run_id, item, kind), None)

    async def _flush_soon(self) -> None:
        while self._growing:  # again for what comes while this is on its way: nothing else may come for long
            await asyncio.sleep(self._every_s)
            growing, self._growing = self._growing, {}
            self._sending = asyncio.create_task(self._send(growing.values()))
            await self._sending

    async def settled(self) -> None:
        """Returns when no preview is on its way, so that a fact sent now arrives behind what it supersedes."""
        if self._sending is not None and not self._sending.done():
            await asyncio.wait([self._sending])

    async def _send(self, growing: Iterable[_Growing]) -> None:
        items = iter(growing)
        while batch := list(islice(items, AT_ONCE)):
            await self._send_batch(batch)

    async def _send_batch(self, batch: list[_Growing]) -> None:
        pipe = self._connections.commands.pipeline(transaction=False)
        for item in batch:
            delta, field = item.delta(), item.field
            await self._connections.scripts.preview(
                keys=[keys.metadata(item.journal.thread_id)],
                args=[
                    keys.thread(item.journal.thread_id),
                    delta.run_id,
                    item.journal.fence,
                    delta.model_dump_json(),
                    field,
                    delta.text,
                    PREVIEW_TTL_MS,
                    0 if field in item.journal.cut else PREVIEW_BYTES,
                    delta.offset,
                ],
                client=pipe,
            )
        try:
            async with translated():
                kept = await pipe.execute()
        except Unavailable:
            log.debug("previews dropped: Redis is away")
            kept = [0] * len(batch)
        for item, is_kept in zip(batch, kept, strict=True):
            if not is_kept:
                item.journal.cut.add(item.field)


def _finishes_a_step(events: tuple[EventBase, ...]) -> bool:
    """Progress that a run which kills its worker never makes."""
    return any(isinstance(event, Message | ToolResulted) for event in events)


def _status(terminal: EventBase) -> str:
    """The status that a terminal event gives its run."""
    kind: str = terminal.type  # type: ignore[attr-defined]  # each event declares its literal
    return kind.removeprefix("run.")


class RunJournal:
    """Implements `workflow.core.ports.Journal` for one claimed run."""

    def __init__(
        self,
        connections: Connections,
        previewer: Previewer,
        *,
        run_id: RunId,
        fence: int,
        run_seq: int,
        last: StreamId,
        keep_events: int,
        still_ours: Callable[[], bool],
        on_step: Callable[[], Awaitable[None]] | None = None,
        on_end: Callable[[], None] | None = None,
        meter: Meter | None = None,
        tenant: str = "",
    ) -> None:
        """last: the newest event this run knows of. on_step: called once, after the first finished step.
        on_end: called before the terminal event is sent: from then on the run is no longer held by its lease.
        tenant: who pays for its model calls."""
        self.run_id = run_id
        self.thread_id: ThreadId = thread_of(run_id)
        self.fence = fence
        self.promoted: RunId | None = None
        """The thread's next run, set by the commit that ended this one."""
        self._connections = connections
        self._previewer = previewer
        self._run_seq = run_seq
        self._last = last
        self._keep_events = keep_events
        self._still_ours = still_ours
        self._on_step, self._on_end = on_step, on_end
        self._meter = meter or Meter()
        self._tenant = tenant
        self._stepped = time.monotonic()
        """When the run did its last step, or began."""
        self._usage = Usage()
        self._fields: dict[str, set[str]] = {}
        """Item → the preview fields it has used."""
        self.cut: set[str] = set()
        """Preview fields whose kept text ends early: a piece was lost or too long, or it expired."""
        self._news: list[Event] = []
        self._looked = float("-inf")
        """When it was known last what others appended."""
        self._lock = asyncio.Lock()

    def preview(self, turn: int, item: str, kind: DeltaKind, *, offset: int, text: str) -> None:
        growing = self._previewer.growing(self.run_id, item, kind)
        if growing is None:
            growing = _Growing(self, turn, item, kind, offset)
            self._fields.setdefault(item, set()).add(growing.field)
            self._previewer.begin(growing)
        growing.pieces.append(text)

    async def commit(self, *events: EventBase) -> list[str]:
        async with self._lock:
            return await self._commit(events)

    async def news(self) -> list[Event]:
        """What others (a person, the policy) appended since the last call, oldest first."""
        async with self._lock:
            if time.monotonic() - self._looked > FRESH_S:
                await self._read_foreign()
            news, self._news = self._news, []
            return news

    async def _commit(self, events: tuple[EventBase, ...]) -> list[str]:
        terminal = next((event for event in events if event.terminal), None)
        arguments = self._arguments(events, terminal)
        pause_s = time.monotonic() - self._stepped
        await self._previewer.settled()
        if terminal is not None and self._on_end is not None:
            self._on_end()
        answer: list[bytes] = await self._persist(
            lambda: self._connections.scripts.commit(keys=[keys.metadata(self.thread_id)], args=arguments)
        )
        outcome = answer[0].decode()
        if outcome == "cancelled":
            raise RunCancelled("a cancel was asked for")
        if outcome == "lost":
            raise LeaseLost(f"run {self.run_id} is no longer ours (fence {self.fence})")
        if self._on_step is not None and _finishes_a_step(events):
            on_step, self._on_step = self._on_step, None
            await on_step()
        epoch, first = int(answer[1]), int(answer[2])
        self._run_seq += len(events)
        self._meter.saw(events, pause_s=pause_s, tenant=self._tenant)
        if not all(isinstance(event, Notice) for event in events):
            self._stepped = time.monotonic()
        if terminal is not None:
            self._meter.ended(_status(terminal), getattr(terminal, "reason", ""))
            self.promoted = RunId(answer[3].decode()) if answer[3] else None
        elif first > self._last.seq + 1:
            await self._read_foreign(before=first)
        self._last = StreamId(epoch, first + len(events) - 1)
        self._looked = time.monotonic()
        return [f"{epoch}-{first + offset}" for offset in range(len(events))]

    async def _read_foreign(self, *, before: int | None = None) -> None:
        high = "+" if before is None else f"({self._last.epoch}-{before}"
        low = f"({self._last}"
        entries = await self._persist(
            lambda: self._connections.commands.xrange(keys.stream(self.thread_id), min=low, max=high)
        )
        if entries:
            self._news += Log.decode(entries)
            if before is None:
                epoch, seq = entries[-1][0].decode().split("-")
                self._last = StreamId(int(epoch), int(seq))

    def _arguments(self, events: tuple[EventBase, ...], terminal: EventBase | None) -> list[str | bytes | int]:
        questions = [event.question_id for event in events if isinstance(event, ApprovalRequested)]
        fields = [field for event in events for field in self._superseded(event)]
        for usage in (getattr(event, "run", None) or getattr(event, "usage", None) for event in events):
            self._usage = usage if isinstance(usage, Usage) else self._usage
        return [
            keys.thread(self.thread_id),
            self.run_id,
            self.fence,
            self._run_seq,
            max((event.turn for event in events), default=0),
            self._usage.model_dump_json(),
            int(_finishes_a_step(events)),
            _status(terminal) if terminal is not None else "",
            getattr(terminal, "reason", ""),
            getattr(terminal, "detail", ""),
            self._keep_events,
            len(events),
            len(questions),
            len(fields),
            *(encode(event) for event in events),
            *questions,
            *fields,
            ",".join(str(n) for n, e in enumerate(events, 1) if e.terminal or isinstance(e, ApprovalRequested)),
        ]

    def _superseded(self, event: EventBase) -> set[str]:
        """The preview fields that a finished event makes worthless; what of them was not sent yet never is."""
        items: list[str] = []
        if isinstance(event, Message):
            items = [event.item, *(call.id for call in event.tool_calls)]
        elif isinstance(event, ToolResulted):
            items = [event.call_id]
        fields = {name for item in items for name in self._fields.pop(item, ())}
        for item in items:
            self._previewer.drop(self.run_id, item)
        self.cut -= fields
        return fields

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer or the lease is gone; what is asked may be repeated without harm."""
        pause_s = 0.05
        while True:
            try:
                async with translated():
                    return await ask()
            except Unavailable:
                if not self._still_ours():
                    raise LeaseLost(f"Redis was away for longer than the lease of {self.run_id}") from None
                log.warning("the log waits: Redis is away", extra={"run_id": self.run_id})
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 1.0)
