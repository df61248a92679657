"""What a turn costs in run records and log: its claim and its two commits, in CPU of the worker and of Redis."""

import asyncio
import time

import psutil

from modem.journal import Previewer, RunJournal
from modem.pool import Connections
from modem.runs import Runs
from modem.sched import Scheduler
from modem.stream import START
from modem.threads import Threads
from tests.redis_server import RedisServer
from workflow.core.config import LimitSettings, RedisSettings, RunSettings, Settings
from workflow.core.events import (
    Effect,
    EventBase,
    Message,
    RunFinished,
    ToolCall,
    ToolCalled,
    ToolResulted,
    Usage,
    UsageUpdated,
)
from workflow.core.ids import CallId, ItemId, RunId, TenantId, UserId, thread_of
from workflow.core.records import Caller, RunOptions

TURNS = 10
AT_ONCE = 50


async def commits(count: int) -> None:
    """Prints the cost per turn of `count` runs, `AT_ONCE` at a time."""
    redis = RedisServer()
    await asyncio.to_thread(redis.start)
    try:
        limits = LimitSettings(max_running_per_tenant=0, max_queued_per_tenant=0)
        settings = Settings(redis=RedisSettings(url=redis.url), limits=limits)
        connections = Connections.open(settings.redis)
        bench = _Bench(connections, settings)
        await bench.prepare(count)
        assert redis.process is not None
        server = psutil.Process(redis.process.pid)
        before_s, cpu_s = sum(server.cpu_times()[:2]), time.process_time()
        await asyncio.gather(*(bench.work() for _ in range(AT_ONCE)))
        own_s, server_s = time.process_time() - cpu_s, sum(server.cpu_times()[:2]) - before_s
        await connections.close()
    finally:
        await asyncio.to_thread(redis.stop)
    turns = count * TURNS
    print(
        f"claim and commits: {own_s / turns * 1000:.2f} ms of the worker's CPU and {server_s / turns * 1000:.2f} ms of "
        f"Redis's per turn ({count} runs of {TURNS} turns, 2 commits each, {AT_ONCE} at once)"
    )


class _Bench:
    """A worker without models, tools and sandboxes."""

    def __init__(self, connections: Connections, settings: Settings) -> None:
        self._connections = connections
        self._sched = Scheduler(connections, limits=settings.limits, runs=RunSettings())
        self._runs = Runs(connections, self._sched, self._no_hint)
        self._threads = Threads(connections, settings, self._runs, self._sched)
        self._previews = Previewer(connections, every_s=1.0)

    async def _no_hint(self, run_id: RunId) -> None:
        """Workers here take what is ready without being told."""

    async def prepare(self, count: int) -> None:
        caller = Caller(tenant=TenantId("local"), user=UserId("local"))
        for _ in range(count):
            thread = await self._threads.create(caller)
            await self._threads.open_run(caller, thread.thread_id, task="Do it.", options=RunOptions())

    async def work(self) -> None:
        """Carries runs until none is ready."""
        while (run_id := await self._sched.next()) is not None:
            claim = await self._runs.claim(run_id, worker="bench", lease_s=6)
            assert claim is not None
            journal = RunJournal(
                self._connections,
                self._previews,
                run_id=run_id,
                fence=claim.fence,
                run_seq=claim.run_seq,
                last=START,
                keep_events=1000,
                still_ours=lambda: True,
            )
            for turn in range(1, TURNS + 1):
                await journal.commit(*_spoken(run_id, turn))
                await journal.commit(_done(run_id, turn))
            await journal.commit(RunFinished(thread_id=thread_of(run_id), run_id=run_id, turn=TURNS, summary="Done."))
            await self._runs.ended(run_id, claim.record.tenant, journal.promoted)


def _spoken(run_id: RunId, turn: int) -> list[EventBase]:
    head = {"thread_id": thread_of(run_id), "run_id": run_id, "turn": turn}
    call = ToolCall(id=CallId(f"call_{turn}"), name="bash", arguments='{"command":"true"}')
    usage = Usage(input_tokens=100, output_tokens=50)
    return [
        Message(**head, item=ItemId(f"i{turn}"), text="word " * 50, tool_calls=(call,), finish_reason="tool_calls"),
        UsageUpdated(**head, call=usage, run=usage, model="bench", left={}),
        ToolCalled(**head, call_id=call.id, tool="bash", arguments={"command": "true"}, effect=Effect.IDEMPOTENT),
    ]


def _done(run_id: RunId, turn: int) -> EventBase:
    head = {"thread_id": thread_of(run_id), "run_id": run_id, "turn": turn}
    return ToolResulted(**head, call_id=CallId(f"call_{turn}"), tool="bash", ok=True, output="")
