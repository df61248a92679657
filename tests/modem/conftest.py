"""A fresh thread store on a real server for every test."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import pytest

from modem.journal import Previewer, RunJournal
from modem.pool import Connections
from modem.reaper import Reaper
from modem.runs import Claim, Runs
from modem.sched import Scheduler
from modem.stream import Log, StreamId, parse_cursor
from modem.threads import Threads
from tests.redis_server import RedisServer
from workflow.core.config import LimitSettings, RedisSettings, RunSettings, Settings
from workflow.core.ids import RunId, TenantId, ThreadId, UserId
from workflow.core.records import Caller, RunOptions, RunRecord

ALICE = Caller(tenant=TenantId("acme"), user=UserId("alice"))
EVE = Caller(tenant=TenantId("evil"), user=UserId("eve"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.stop()


@dataclass
class Line:
    """Everything of modem that needs no worker process."""

    settings: Settings
    connections: Connections
    scheduler: Scheduler
    runs: Runs
    threads: Threads
    reaper: Reaper
    log: Log
    hints: list[RunId] = field(default_factory=list)

    async def thread(self, caller: Caller = ALICE) -> ThreadId:
        return (await self.threads.create(caller)).thread_id

    async def execute(self, thread_id: ThreadId, task: str = "do it", caller: Caller = ALICE) -> RunRecord:
        return await self.threads.open_run(caller, thread_id, task=task, options=RunOptions())

    async def claim(self, run_id: RunId, worker: str = "w1") -> Claim:
        claim = await self.runs.claim(run_id, worker=worker, lease_s=self.settings.runs.lease_s)
        assert claim is not None
        return claim

    def journal(
        self, claim: Claim, last: StreamId | None = None, *, on_end: Callable[[], None] | None = None
    ) -> RunJournal:
        return RunJournal(
            self.connections,
            Previewer(self.connections, every_s=0.01),
            run_id=claim.record.run_id,
            fence=claim.fence,
            run_seq=claim.run_seq,
            last=last or StreamId(2**62, 2**62),
            keep_events=1000,
            still_ours=lambda: True,
            on_end=on_end,
        )

    async def types(self, thread_id: ThreadId) -> list[str]:
        return [event.type for event in await self.log.events(thread_id)]

    async def seqs(self, thread_id: ThreadId) -> list[int]:
        return [parse_cursor(event.id).seq for event in await self.log.events(thread_id)]


@pytest.fixture
async def line(redis_server: RedisServer) -> AsyncIterator[Line]:
    settings = Settings(
        redis=RedisSettings(url=redis_server.url),
        runs=RunSettings(lease_s=0.5, stale_queued_s=0.2, reap_every_s=0.1),
        limits=LimitSettings(max_queued_per_tenant=20, max_queued_per_thread=5),
    )
    connections = Connections.open(settings.redis)
    await connections.commands.flushall()
    hints: list[RunId] = []

    async def send(run_id: RunId) -> None:
        hints.append(run_id)

    scheduler = Scheduler(connections, limits=settings.limits, runs=settings.runs)
    runs = Runs(connections, scheduler, send)
    threads = Threads(connections, settings, runs, scheduler)
    reaper = Reaper(connections, scheduler, runs, threads, settings.runs)
    yield Line(settings, connections, scheduler, runs, threads, reaper, Log(connections), hints)
    await connections.close()
