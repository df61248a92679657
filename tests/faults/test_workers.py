"""Workers die, freeze, leave and come back; runs go on."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from dialtone.client import AsyncClient
from modem.app import celery_settings
from modem.broker import RUN_TASK
from tests.faults.conftest import LEASE_S, check_log, client_of, serves, watch
from tests.line import Line, bash, script
from tests.ports import free_port
from tests.until import until, until_sync
from workflow.core.config import RedisSettings, Settings
from workflow.core.events import Event, ToolResulted

VISIBILITY_S = int(os.environ.get("DIALTONE_TEST_VISIBILITY_S", "1"))
"""The task that has to outlive it takes six times as long: 5 here makes it 30 s."""


def steps(count: int, *, pause_s: float = 0.0) -> str:
    """A task of `count` commands, each of which leaves one line in `steps.txt` when it is through."""
    turns = [bash(f"sleep {pause_s}; echo step-{n} >> steps.txt") for n in range(count)]
    return script(*turns, {"text": "All steps are done."})


async def step_lines(client: AsyncClient, thread_id: str) -> list[str]:
    return (await client.get_file(thread_id, "steps.txt")).decode().split()


def broker(line: Line) -> Celery:
    return Celery(changes=celery_settings(Settings(redis=RedisSettings(url=line.redis.url))))


def results(events: list[Event]) -> list[ToolResulted]:
    return [event for event in events if isinstance(event, ToolResulted)]


def _is_called(process: psutil.Process, name: str) -> bool:
    """False too for one that has ended since it was listed."""
    try:
        return process.is_running() and process.name() == name
    except psutil.NoSuchProcess:
        return False


async def test_kill_9_at_every_step_loses_no_run_and_repeats_no_finished_step(line: Line) -> None:
    """Eight runs stand at eight different steps when their worker is killed."""
    victim = line.start().alive("worker")[0]
    async with client_of(line) as client:
        threads = [await client.initiate() for _ in range(8)]
        runs = []
        for thread_id, done in zip(threads, range(8), strict=True):
            turns = [bash(f"echo step-{n} >> steps.txt") for n in range(done)]
            turns += [bash(f"sleep 60; echo step-{done} >> steps.txt")]
            turns += [bash(f"echo step-{done + 1} >> steps.txt")]
            runs.append((await client.execute(thread_id, script(*turns, {"text": "Done."}))).run_id)

        async def all_asleep() -> bool:
            asleep = [p for p in line.children() if _is_called(p, "sleep")]
            logs = [[e async for e in client.events(thread_id)] for thread_id in threads]
            return len(asleep) == 8 and [sum(isinstance(e, ToolResulted) for e in log) for log in logs] == list(
                range(8)
            )

        await until(all_asleep, timeout_s=20, what="every run to reach its step")
        line.worker()
        victim.kill()
        for done, (thread_id, run_id) in enumerate(zip(threads, runs, strict=True)):
            events = await watch(client, run_id)
            check_log(events)
            assert events[-1].type == "run.finished", events[-1]
            assert [e.reason for e in events if e.type == "run.resumed"] == ["worker_lost"]
            assert len(results(events)) == done + 2
            lines = await step_lines(client, thread_id)
            assert [lines.count(f"step-{n}") for n in (*range(done), done + 1)] == [1] * (done + 1)
            assert lines.count(f"step-{done}") == 0, "a command in flight is reported as cut short, not run again"


async def test_takeover_comes_within_the_lease_and_three_seconds(line: Line) -> None:
    victim = line.start().alive("worker")[0]
    line.worker()
    line.wait_ready(workers=2)
    async with client_of(line) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, steps(1, pause_s=60))
        owner = await until(lambda: _owner(client, run.run_id), what="an owner")
        for process in line.alive("worker"):
            if f":{process.popen.pid}:" in owner:
                victim = process
        loop = asyncio.get_running_loop()
        killed = loop.time()
        victim.kill()

        async def resumed() -> bool:
            record = await client.run(run.run_id)
            return record.attempt == 2 and record.status == "running"

        await until(resumed, timeout_s=LEASE_S + 3, what="a takeover")
        assert loop.time() - killed <= LEASE_S + 3
        await client.cancel(run.run_id)


async def _owner(client: AsyncClient, run_id: str) -> str:
    return (await client.run(run_id)).owner


async def test_a_frozen_worker_writes_nothing_when_it_thaws_and_its_sandbox_dies(line: Line) -> None:
    victim = line.start().alive("worker")[0]
    async with client_of(line) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, steps(3, pause_s=1.0))
        await until(lambda: _owner(client, run.run_id), what="an owner")
        victim.kill(signal.SIGSTOP)
        line.worker()
        events = await watch(client, run.run_id)
        check_log(events)
        assert events[-1].type == "run.finished"
        victim.kill(signal.SIGCONT)
        until_sync(lambda: "lease lost" in victim.log() or "given up" in victim.log(), what="the zombie to notice")
        assert [e.id async for e in client.events(thread_id)] == [e.id for e in events]


async def test_a_deleted_message_is_repaired(line: Line) -> None:
    line.start()
    worker = line.alive("worker")[0]
    worker.kill(signal.SIGSTOP)
    async with client_of(line) as client:
        runs = [(await client.execute(await client.initiate(), script({"text": "hi"}))).run_id for _ in range(20)]
        with broker(line).connection_for_write() as connection:
            purged = connection.default_channel.queue_purge("dialtone:hints")
        assert purged > 0
        worker.kill(signal.SIGCONT)
        for run_id in runs:
            assert (await watch(client, run_id, timeout_s=10))[-1].type == "run.finished"


async def test_a_message_delivered_twenty_times_to_four_workers_runs_once(line: Line) -> None:
    line.start(workers=4)
    async with client_of(line) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, steps(3, pause_s=0.2))
        app = broker(line)
        for _ in range(20):
            app.send_task(RUN_TASK, kwargs={"run_id": run.run_id}, ignore_result=True)
        events = await watch(client, run.run_id)
        app.close()
        check_log(events)
        assert await step_lines(client, thread_id) == ["step-0", "step-1", "step-2"]
        assert (await client.run(run.run_id)).attempt == 1


async def test_a_visibility_timeout_shorter_than_the_task_changes_nothing(line: Line) -> None:
    line.settings["DIALTONE_WORKER__VISIBILITY_TIMEOUT_S"] = str(VISIBILITY_S)
    line.start(workers=2)
    async with client_of(line) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, steps(2, pause_s=3 * VISIBILITY_S))
        events = await watch(client, run.run_id, timeout_s=40 + 6 * VISIBILITY_S)
        check_log(events)
        assert await step_lines(client, thread_id) == ["step-0", "step-1"]
        assert [e.type for e in events].count("run.started") == 1


async def test_a_tool_much_longer_than_the_lease_runs_once(line: Line) -> None:
    line.start(workers=2)
    async with client_of(line) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, steps(1, pause_s=6 * LEASE_S))
        events = await watch(client, run.run_id)
        assert await step_lines(client, thread_id) == ["step-0"]
        assert "run.resumed" not in [e.type for e in events]


async def test_a_worker_whose_clock_is_an_hour_off_keeps_its_runs(line: Line) -> None:
    line.start(workers=0)
    wrong = (
        "import time, runpy; real = time.time; time.time = lambda: real() {}; "
        "runpy.run_module('modem.worker', run_name='__main__')"
    )
    for shift in ("+ 3600", "- 3600"):
        _spawn_code(line, wrong.format(shift))
    line.wait_ready(workers=2)
    async with client_of(line) as client:
        threads = [await client.initiate() for _ in range(4)]
        runs = [(await client.execute(thread_id, steps(3, pause_s=0.5))).run_id for thread_id in threads]
        for thread_id, run_id in zip(threads, runs, strict=True):
            events = await watch(client, run_id)
            check_log(events)
            assert [e.type for e in events].count("run.resumed") == 0
            assert await step_lines(client, thread_id) == ["step-0", "step-1", "step-2"]
            times = [event.at for event in events]
            assert times == sorted(times)
            assert times[-1] - times[0] < 60_000


def _spawn_code(line: Line, code: str) -> None:
    line.spawn("worker", [sys.executable, "-c", code])


def test_a_setting_found_wrong_when_the_worker_opens_ends_it_with_2_and_a_message(line: Line) -> None:
    line.redis.start()
    line.settings |= {"DIALTONE_SANDBOX__PROVIDER": "e2b", "E2B_API_KEY": ""}
    worker = line.worker()
    assert worker.wait(60) == 2, worker.log()
    assert "needs its key in E2B_API_KEY" in worker.log()
    assert "Traceback" not in worker.log()


async def test_a_poison_run_ends_after_its_attempts_and_harms_no_other(line: Line, tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text(
        "import os, signal\n"
        "from workflow.core.events import Effect\n"
        "from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput\n\n\n"
        "class CrashArgs(ToolArgs):\n    pass\n\n\n"
        "class Crash(Tool[CrashArgs]):\n"
        "    name = 'crash'\n    description = 'Ends the worker.'\n    effect = Effect.IDEMPOTENT\n\n"
        "    async def run(self, args: CrashArgs, context: ToolContext) -> ToolOutput:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n        raise AssertionError\n"
    )
    line.settings |= {"DIALTONE_TOOLS__PLUGIN_FOLDER": str(tmp_path), "DIALTONE_RUNS__MAX_ATTEMPTS": "2"}
    line.start()
    async with client_of(line) as client:
        good_thread = await client.initiate()
        good = await client.execute(good_thread, steps(6, pause_s=0.7))
        crash: dict[str, Any] = {"text": "", "tool_calls": [{"name": "crash", "arguments": {}}]}
        poison = await client.execute(await client.initiate(), script(crash, {"text": "no"}))
        watching = asyncio.create_task(watch(client, poison.run_id))
        deaths = 0
        while not watching.done():
            if not line.alive("worker"):
                deaths += 1
                line.worker()
            await asyncio.sleep(0.05)
        events = await watching
        check_log(events)
        assert (events[-1].type, getattr(events[-1], "reason", "")) == ("run.failed", "worker_lost")
        assert deaths == 2
        ended = await watch(client, good.run_id)
        assert ended[-1].type == "run.finished", ended[-1]
        lines = await step_lines(client, good_thread)
        assert len(lines) == len(set(lines)) >= 6 - deaths, "only a command in flight may be cut short"


async def test_sigterm_with_minutes_of_work_left_hands_over_within_two_seconds(line: Line) -> None:
    old = line.start().alive("worker")[0]
    async with client_of(line) as client:
        runs = [(await client.execute(await client.initiate(), steps(2, pause_s=1))).run_id for _ in range(5)]
        long_run = await client.execute(await client.initiate(), steps(1, pause_s=300))

        async def all_running() -> bool:
            return all([(await client.run(run_id)).status == "running" for run_id in [*runs, long_run.run_id]])

        await until(all_running, what="all to run")
        line.worker()
        line.wait_ready(workers=2)
        loop = asyncio.get_running_loop()
        told = loop.time()
        old.kill(signal.SIGTERM)

        async def taken_over() -> bool:
            record = await client.run(long_run.run_id)
            return record.status == "running" and f":{old.popen.pid}:" not in record.owner

        await until(taken_over, timeout_s=4, what="the hand-over")
        assert loop.time() - told < 2.5
        assert old.wait(10) == 0
        for run_id in runs:
            events = await watch(client, run_id)
            check_log(events)
            assert events[-1].type == "run.finished"
            assert {e.reason for e in events if e.type == "run.resumed"} <= {"released"}
        assert (await client.run(long_run.run_id)).attempt == 1, "a hand-over costs no attempt"
        await client.cancel(long_run.run_id)


async def test_cancel_with_the_worker_dead_ends_within_three_seconds(line: Line) -> None:
    line.settings["DIALTONE_RUNS__LEASE_S"] = "10"
    worker = line.start().alive("worker")[0]
    async with client_of(line) as client:
        run = await client.execute(await client.initiate(), steps(1, pause_s=60))
        await until(lambda: _owner(client, run.run_id), what="an owner")
        worker.kill()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await client.cancel(run.run_id)
        events = await watch(client, run.run_id, timeout_s=5)
        assert loop.time() - asked < 3
        assert events[-1].type == "run.cancelled"
    assert line.children() == []


async def test_nothing_lives_on_when_a_worker_is_killed(line: Line) -> None:
    worker = line.start().alive("worker")[0]
    async with client_of(line) as client:
        run = await client.execute(
            await client.initiate(), script(bash("(setsid sleep 876 &) ; sleep 876"), {"text": "x"})
        )

        async def sleeping() -> list[Any]:
            return line.commands("876")

        doomed = await until(sleeping, what="the command")
        worker.kill()
        worker.wait()
        until_sync(
            lambda: not any(p.is_running() and p.status() != "zombie" for p in doomed), timeout_s=2, what="death"
        )
        await client.cancel(run.run_id)


async def test_one_key_fifty_times_over_three_gateways_is_one_run(line: Line) -> None:
    ports = [line.port, free_port(), free_port()]
    line.start()
    for port in ports[1:]:
        line.gateway(port)
    async with client_of(line) as client:
        thread_id = await client.initiate()
    clients = [AsyncClient(f"http://127.0.0.1:{port}") for port in ports]
    for client in clients:
        await until(lambda client=client: serves(client), what="a gateway")  # type: ignore[misc]
    task = script({"text": "once"})
    answers = await asyncio.gather(
        *(clients[n % 3].execute(thread_id, task, idempotency_key="same") for n in range(50))
    )
    assert len({answer.run_id for answer in answers}) == 1
    assert len((await clients[0].runs(thread_id)).items) == 1
    events = await watch(clients[0], answers[0].run_id)
    check_log(events)
    for client in clients:
        await client.close()
