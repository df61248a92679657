"""Somebody who plays the worker: takes runs and writes events through the real fenced journal."""

import asyncio
from types import TracebackType
from typing import Self

from modem.journal import Previewer, RunJournal
from modem.pool import Connections
from modem.runs import Runs
from modem.sched import Scheduler
from modem.stream import Log
from modem.threads import Threads
from workflow.core.config import Settings
from workflow.core.events import DeltaKind, Event, EventBase, Message, RunFinished, RunStarted
from workflow.core.ids import ItemId, RunId, TenantId, ThreadId, UserId, new_item_id, thread_of
from workflow.core.records import Caller, RunOptions

LOCAL = Caller(tenant=TenantId("local"), user=UserId("local"))


class Worker:
    """Works on runs at the test's word."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections = Connections.open(settings.redis)
        scheduler = Scheduler(self.connections, limits=settings.limits, runs=settings.runs)
        self.runs = Runs(self.connections, scheduler, self._no_hint)
        self.threads = Threads(self.connections, settings, self.runs, scheduler)
        self.log = Log(self.connections)
        self.previewer = Previewer(self.connections, every_s=0.005)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connections.close()

    async def thread(self, caller: Caller = LOCAL) -> ThreadId:
        """A new thread."""
        return (await self.threads.create(caller)).thread_id

    async def open(self, thread_id: ThreadId, task: str = "do it", caller: Caller = LOCAL) -> RunId:
        """A queued run."""
        return (await self.threads.open_run(caller, thread_id, task=task, options=RunOptions())).run_id

    async def take(self, run_id: RunId) -> "Turn":
        """Claims a queued run and says that it started."""
        claim = await self.runs.claim(run_id, worker="w1", lease_s=3600)  # nobody renews it
        assert claim is not None
        thread_id = thread_of(run_id)
        bounds = await self.log.bounds(thread_id)
        journal = RunJournal(
            self.connections,
            self.previewer,
            run_id=run_id,
            fence=claim.fence,
            run_seq=claim.run_seq,
            last=bounds.last_id,
            keep_events=self.settings.runs.keep_events,
            still_ours=lambda: True,
        )
        turn = Turn(self, claim.record.tenant, journal)
        await turn.write(RunStarted(thread_id=thread_id, run_id=run_id, worker="w1", model="scripted", sandbox="none"))
        return turn

    async def running(self, thread_id: ThreadId, caller: Caller = LOCAL) -> "Turn":
        """A run that has just started in `thread_id`."""
        return await self.take(await self.open(thread_id, caller=caller))

    async def ids(self, thread_id: ThreadId) -> list[str]:
        """The ids of the whole log."""
        return [event.id for event in await self.events(thread_id)]

    async def events(self, thread_id: ThreadId) -> list[Event]:
        return await self.log.events(thread_id)

    @staticmethod
    async def _no_hint(run_id: RunId) -> None:
        """The test itself takes the run."""


class Turn:
    """One claimed run."""

    def __init__(self, worker: Worker, tenant: TenantId, journal: RunJournal) -> None:
        self._worker = worker
        self._tenant = tenant
        self.journal = journal
        self.run_id = journal.run_id
        self.thread_id = journal.thread_id

    async def write(self, *events: EventBase) -> list[str]:
        return await self.journal.commit(*events)

    async def say(self, *texts: str) -> list[str]:
        """One finished message for each text."""
        return await self.write(*(self.message(text) for text in texts))

    def message(self, text: str, item: ItemId | None = None) -> Message:
        return Message(thread_id=self.thread_id, run_id=self.run_id, turn=1, item=item or new_item_id(), text=text)

    async def grow(self, item: ItemId, offset: int, text: str) -> None:
        """Shows a piece of an unfinished message; returns once it was sent."""
        self.journal.preview(1, item, DeltaKind.TEXT, offset=offset, text=text)
        await asyncio.sleep(0)
        flush = self._worker.previewer._flush  # waiting for the courier itself: the only sign that it is done
        assert flush is not None
        await flush

    async def finish(self) -> str:
        """Ends the run well."""
        ids = await self.write(RunFinished(thread_id=self.thread_id, run_id=self.run_id))
        await self._worker.runs.ended(self.run_id, self._tenant, self.journal.promoted)
        return ids[0]
