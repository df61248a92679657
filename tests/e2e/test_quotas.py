"""A tenant's quota of sandboxes as its runs see it."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from dialtone import Accepted, Waiting
from dialtone.client import AsyncClient
from tests.line import Line, bash, script
from tests.until import until
from workflow.core.events import Delta, RunFailed, RunStarted


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Line(settings={"DIALTONE_SANDBOX__MAX_LIVE_PER_TENANT": "1", "DIALTONE_SANDBOX__TENANT_WAIT_S": "0"}) as line:
        yield line.start(workers=2)


async def hold_a_place(client: AsyncClient, thread_id: str) -> Accepted:
    """A run whose command is at work until the file `go` is there."""
    run = await client.execute(thread_id, script(bash("echo up; until [ -e go ]; do sleep 0.05; done"), {"text": "a"}))
    async for item in client.stream(thread_id, run_id=run.run_id):
        if isinstance(item, Delta) and item.kind == "stdout":
            return run
    raise AssertionError("the command never spoke")


async def test_a_run_beyond_the_quota_says_so_and_works_once_there_is_a_place(line: Line) -> None:
    async with AsyncClient(line.url) as client, asyncio.timeout(60):
        holding, refused = await client.initiate(), await client.initiate()
        first = await hold_a_place(client, holding)
        second = await client.execute(refused, script(bash("echo hi"), {"text": "b"}))
        *_, end = [item async for item in client.stream(refused, run_id=second.run_id)]
        assert isinstance(end, RunFailed) and end.reason == "limit_exceeded", end
        assert "sandboxes of this tenant are live" in end.detail
        await client.put_file(holding, "go", content=b"")
        *_, end = [item async for item in client.stream(holding, run_id=first.run_id)]
        assert end.type == "run.finished"
        await client.delete_thread(holding)
        status = ""
        while status != "finished":  # as soon as a worker has put the deleted thread's sandbox away
            run = await client.execute(refused, script(bash("echo hi"), {"text": "b"}))
            async for _ in client.stream(refused, run_id=run.run_id):
                pass
            status = (await client.run(run.run_id)).status


@pytest.fixture(scope="module")
def patient() -> Iterator[Line]:
    settings = {"DIALTONE_SANDBOX__MAX_LIVE_PER_TENANT": "1", "DIALTONE_SANDBOX__TENANT_WAIT_S": "20"}
    with Line(settings=settings) as line:
        yield line.start(workers=2)


async def drain(line: Line, worker: str) -> None:
    """Lets the other worker take all further runs; this one keeps its sandboxes."""
    async with httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
        (await http.post(f"/api/operator/workers/{worker}/drain")).raise_for_status()

        async def is_drained() -> bool:
            found = (await http.get("/api/operator/overview")).json()["workers"]
            return any(one["worker"] == worker and one["draining"] for one in found)

        await until(is_drained, what="the drain")


async def test_a_run_gets_the_place_of_a_sandbox_that_idles_in_another_worker(patient: Line) -> None:
    """Sweeps come every 30 s and `idle_s` is 300 s: within 20 s only the worker that was asked can have made room."""
    async with AsyncClient(patient.url) as client, asyncio.timeout(60):
        first, second = await client.initiate(), await client.initiate()
        run = await client.execute(first, script(bash("echo hi"), {"text": "a"}))
        items = [item async for item in client.stream(first, run_id=run.run_id)]
        (holder,) = [item.worker for item in items if isinstance(item, RunStarted)]
        await drain(patient, holder)

        run = await client.execute(second, script(bash("echo at last"), {"text": "b"}))
        items = [item async for item in client.stream(second, run_id=run.run_id)]
        assert [item.worker for item in items if isinstance(item, RunStarted)] != [holder]
        assert items[-1].type == "run.finished", items[-1]


async def test_a_run_whose_tenants_sandboxes_are_all_at_work_says_what_it_waits_for(patient: Line) -> None:
    async with AsyncClient(patient.url) as client, asyncio.timeout(60):
        holding, waiting = await client.initiate(), await client.initiate()
        await hold_a_place(client, holding)
        run = await client.execute(waiting, script(bash("echo after it"), {"text": "b"}))
        told: list[Waiting] = []
        async for item in client.stream(waiting, run_id=run.run_id):
            if isinstance(item, Waiting):
                told.append(item)
                if item.waiting_for == "quota":
                    assert (await client.run(run.run_id)).waiting_for == "quota"
                    await client.put_file(holding, "go", content=b"")
        assert item.type == "run.finished" and [one.waiting_for for one in told][-2:] == ["quota", ""], told
        assert (await client.run(run.run_id)).waiting_for == ""
