"""Counters that survive their process and count once; gauges that go with it."""

import asyncio
import json
import signal

import pytest

from modem import keys
from modem.figures import Reporter, look
from modem.meter import FIGURES, MODEL_SECONDS, REQUESTS, RUNS_ENDED, TOKENS, TOOL_CALLS, TURNS, Meter, samples
from modem.pool import Connections
from modem.runs import Runs
from tests.modem.conftest import ALICE, Line
from tests.redis_server import RedisServer
from tests.until import until
from workflow.core.config import RedisSettings
from workflow.core.errors import Unavailable
from workflow.core.events import Message, RunFinished, ToolResulted, Usage, UsageUpdated
from workflow.core.ids import CallId, ItemId


def reporter(connections: Connections, meter: Meter, process: str = "w1", **gauges: float) -> Reporter:
    return Reporter(connections, meter, process=process, component="worker", gauges=lambda: gauges)


async def test_counts_of_all_processes_add_up_and_outlive_them(line: Line) -> None:
    first, second = Meter(), Meter()
    first.add(REQUESTS, "GET", "200", amount=3)
    second.add(REQUESTS, "GET", "200", amount=4)
    second.add(REQUESTS, "GET", "404")
    one, two = reporter(line.connections, first), reporter(line.connections, second, "w2")
    await one.report()
    await two.report()
    await one.leave()
    seen = await look(line.connections)
    assert samples(REQUESTS, seen.totals) == {("GET", "200"): {"": 7.0}, ("GET", "404"): {"": 1.0}}
    assert [process.process for process in seen.processes] == ["w2"]


async def test_gauges_are_shown_while_their_process_reports(line: Line) -> None:
    await reporter(line.connections, Meter(), dialtone_sandboxes=2).report()
    (process,) = (await look(line.connections)).processes
    assert (process.component, process.gauges) == ("worker", {"dialtone_sandboxes": 2.0})
    redis = line.connections.commands
    for silent_ms, is_kept in ((11_000, 1), (3_700_000, 0)):
        report = json.loads(await redis.hget(keys.FIGURES_PROCESSES, "w1"))
        await redis.hset(keys.FIGURES_PROCESSES, "w1", json.dumps(report | {"at": report["at"] - silent_ms}))
        assert (await look(line.connections)).processes == []
        assert await redis.hlen(keys.FIGURES_PROCESSES) == is_kept


async def test_a_report_whose_answer_was_lost_counts_once() -> None:
    server = RedisServer(appendonly=False)
    server.start()
    connections = Connections.open(RedisSettings(url=server.url, timeout_s=0.3))
    meter = Meter()
    reporting = reporter(connections, meter)
    assert server.process is not None
    try:
        await reporting.report()
        meter.add(TURNS, amount=5)
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(Unavailable):
            await reporting.report()
        server.process.send_signal(signal.SIGCONT)

        async def arrived() -> bool:
            return samples(TURNS, (await look(connections)).totals) == {(): {"": 5.0}}

        await until(arrived, what="the report that got no answer")
        meter.add(TURNS)
        await reporting.report()
        await reporting.report()
        assert samples(TURNS, (await look(connections)).totals) == {(): {"": 6.0}}
    finally:
        await connections.close()
        server.stop()


async def test_reports_go_on_by_themselves_and_the_last_one_takes_the_rest(line: Line) -> None:
    meter = Meter()
    reporting = reporter(line.connections, meter)
    task = asyncio.create_task(reporting.serve())

    async def alive() -> bool:
        return bool((await look(line.connections)).processes)

    await until(alive, what="the first report")
    assert abs(reporting.skew_ms) < 1000
    meter.add(TURNS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await reporting.leave()
    assert samples(TURNS, (await look(line.connections)).totals) == {(): {"": 1.0}}


async def test_what_a_worker_commits_is_counted_once(line: Line) -> None:
    run = await line.execute(await line.thread())
    meter = Meter()
    journal = line.journal(await line.claim(run.run_id))
    journal._meter = meter
    about = {"thread_id": run.thread_id, "run_id": run.run_id, "turn": 1}
    usage = Usage(input_tokens=10, cache_read_tokens=20, output_tokens=5, cost_usd=0.25)
    await journal.commit(
        Message.model_validate(about | {"item": ItemId("i"), "text": "hello"}),
        UsageUpdated.model_validate(about | {"call": usage, "run": usage, "model": "m"}),
    )
    result = about | {"call_id": CallId("c"), "output": "", "duration_ms": 300}
    await journal.commit(
        ToolResulted.model_validate(result | {"tool": "bash", "ok": True}),
        ToolResulted.model_validate(result | {"tool": "rm -rf /", "ok": False, "error": "unknown_tool"}),
    )
    await journal.commit(RunFinished(thread_id=run.thread_id, run_id=run.run_id))
    counts = meter.take()
    assert samples(TOKENS, counts) == {
        ("m", "input"): {"": 10.0},
        ("m", "cache_read"): {"": 20.0},
        ("m", "cache_write"): {"": 0.0},
        ("m", "output"): {"": 5.0},
    }
    assert samples(TOOL_CALLS, counts) == {("bash", "ok"): {"": 1.0}, ("(unknown)", "error"): {"": 1.0}}
    assert samples(RUNS_ENDED, counts) == {("finished", ""): {"": 1.0}}
    assert samples(TURNS, counts) == {(): {"": 1.0}}
    assert meter.take() == {}


async def test_runs_that_end_without_a_worker_are_counted_too(line: Line) -> None:
    meter = Meter()
    runs = Runs(line.connections, line.scheduler, line.runs._send, meter=meter)
    cancelled = await line.execute(await line.thread())
    await runs.cancel(cancelled.run_id, reason="never mind")
    lost = await line.execute(await line.thread())

    async def given_up() -> bool:
        outcome = await runs.reap(lost.run_id)
        if outcome != "live":
            await runs.claim(lost.run_id, worker="doomed", lease_s=0.01)
        return outcome == "ended"

    await until(given_up, what="the run to be given up")
    await runs.reap(lost.run_id)
    assert samples(RUNS_ENDED, meter.take()) == {
        ("cancelled", ""): {"": 1.0},
        ("failed", "worker_lost"): {"": 1.0},
    }
    assert (await line.threads.run(ALICE, lost.run_id)).status == "failed"


def test_durations_fall_into_the_bucket_that_holds_them() -> None:
    meter = Meter()
    for seconds in (0.05, 0.06, 7200.0, -1.0):
        meter.observe(MODEL_SECONDS, "m", seconds=seconds)
    parts = samples(MODEL_SECONDS, meter.take())[("m",)]
    assert parts == {"le=0.05": 2.0, "le=0.1": 1.0, "le=+Inf": 1.0, "sum": 0.05 + 0.06 + 7200.0}


def test_labels_cannot_break_the_name_of_a_count() -> None:
    meter = Meter()
    meter.add(TOOL_CALLS, "a|b", "ok")
    assert samples(TOOL_CALLS, meter.take()) == {("a_b", "ok"): {"": 1.0}}
    with pytest.raises(AssertionError):
        meter.add(TOOL_CALLS, "bash")
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
