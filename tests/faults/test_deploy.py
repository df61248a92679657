"""A rolling deploy under load, and cancels in the states that are hard to hit."""

import asyncio
import signal

import httpx

from dialtone.client import AsyncClient
from tests.faults.conftest import check_log, client_of, serves, watch
from tests.line import Line, bash, script
from tests.ports import free_port
from tests.until import until
from workflow.core.events import ApprovalRequested, RunCancelled


async def test_a_rolling_deploy_under_load_fails_and_loses_nothing(line: Line) -> None:
    ports = [line.port, free_port()]
    line.start(workers=2)
    gateways = [line.alive("gateway")[0], line.gateway(ports[1])]
    task = script(*(bash(f"sleep 0.5; echo {n} >> steps.txt") for n in range(6)), {"text": "Done.", "delay_ms": 30})
    async with client_of(line) as client:
        await until(lambda: _serves(ports[1]), what="the second gateway")
        runs = [(await client.execute(await client.initiate(), task)).run_id for _ in range(10)]
        watchers = [asyncio.create_task(watch(client, run_id, timeout_s=60)) for run_id in runs]
        for old in line.alive("worker"):
            line.worker()
            await asyncio.to_thread(line.wait_ready, workers=3)
            old.kill(signal.SIGTERM)
            assert await asyncio.to_thread(old.wait, 10) == 0
        for port, old in zip(ports, gateways, strict=True):
            old.kill(signal.SIGTERM)
            assert await asyncio.to_thread(old.wait, 10) in {0, -signal.SIGTERM}  # uvicorn hands the signal on
            line.gateway(port)
            await until(lambda port=port: _serves(port), what="the new gateway")  # type: ignore[misc]
        for events in await asyncio.gather(*watchers):
            check_log(events)
            assert events[-1].type == "run.finished"
            results = [e.call_id for e in events if e.type == "tool.result"]
            assert len(results) == len(set(results)) == 6


async def _serves(port: int) -> bool:
    async with AsyncClient(f"http://127.0.0.1:{port}", retries=0) as client:
        return await serves(client)


async def test_cancel_in_the_middle_of_a_models_answer(line: Line) -> None:
    line.start()
    async with client_of(line) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, script({"tokens": 1000, "delay_ms": 50}))
        await asyncio.wait_for(_first_delta(client, thread_id, run.run_id), 10)
        await client.cancel(run.run_id)
        events = await watch(client, run.run_id, timeout_s=3)
        assert isinstance(events[-1], RunCancelled)
        assert events[-1].usage.output_tokens > 0, "a cancelled call counts"


async def _first_delta(client: AsyncClient, thread_id: str, run_id: str) -> None:
    async for item in client.stream(thread_id, run_id=run_id):
        if item.type == "delta":
            return


async def test_cancel_while_a_person_is_asked(line: Line) -> None:
    line.start()
    ask = {"tool_calls": [{"name": "ask_person", "arguments": {"question": "Tea?"}}]}
    async with client_of(line) as client:
        run = await client.execute(await client.initiate(), script(ask, {"text": "no"}))

        async def waits() -> bool:
            return (await client.run(run.run_id)).status == "waiting"

        await until(waits, what="the run to wait")
        await client.cancel(run.run_id)
        events = await watch(client, run.run_id, timeout_s=3)
        assert [isinstance(e, ApprovalRequested) for e in events].count(True) == 1
        assert events[-1].type == "run.cancelled"


async def test_cancel_during_a_takeover(line: Line) -> None:
    worker = line.start().alive("worker")[0]
    async with client_of(line) as client:
        run = await client.execute(await client.initiate(), script(bash("sleep 60"), {"text": "no"}))

        async def runs() -> bool:
            return (await client.run(run.run_id)).status == "running"

        await until(runs, what="the run to start")
        worker.kill()

        async def waits_again() -> bool:
            return (await client.run(run.run_id)).status == "queued"

        await until(waits_again, what="the lease to run out")
        await client.cancel(run.run_id)
        events = await watch(client, run.run_id, timeout_s=3)
        check_log(events)
        assert events[-1].type == "run.cancelled"


async def test_a_full_queue_answers_429_with_retry_after(line: Line) -> None:
    line.settings |= {"DIALTONE_LIMITS__MAX_QUEUED_PER_TENANT": "3"}
    line.start()
    async with client_of(line) as client:
        task = script(bash("sleep 30"), {"text": "x"})
        runs = [await client.execute(await client.initiate(), task) for _ in range(3)]
        url = f"{line.url}/api/agent/{await client.initiate()}/execute"
        async with httpx.AsyncClient(trust_env=False) as http:
            refused = await http.post(url, json={"task": "one more"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        for run in runs:
            await client.cancel(run.run_id)
