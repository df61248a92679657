"""Two tenants at one installation: who has to wait, for what, and who need not."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from dialtone.client import AsyncClient
from dialtone.items import Waiting
from dialtone.results import Accepted
from gateway.keyring import KeyRing
from tests.line import Line, bash, script
from tests.until import until

AT_ONCE = 2
SETTINGS = {"DIALTONE_AUTH__MODE": "on", "DIALTONE_WORKER__CONCURRENCY": str(AT_ONCE)}
UNTIL_TOLD = script(bash("until [ -e go ]; do sleep 0.05; done"), {"text": "Done."})


@pytest.fixture
def line() -> Iterator[Line]:
    with Line(settings=dict(SETTINGS)) as line:
        yield line


def key_of(line: Line, tenant: str) -> str:
    ring = KeyRing(Path(line.folder) / "data" / "keys.json")
    return ring.new(tenant=tenant, user=f"of-{tenant}", scopes=frozenset({"read", "write"}))


@asynccontextmanager
async def clients(line: Line, *tenants: str) -> AsyncIterator[list[AsyncClient]]:
    """A client of each tenant."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(AsyncClient(line.url, key=key_of(line, name))) for name in tenants]


async def start(client: AsyncClient, task: str) -> Accepted:
    """A run in a thread of its own."""
    return await client.execute(await client.initiate(), task)


async def waiting(client: AsyncClient, run: Accepted) -> tuple[Waiting, tuple[str, int | None, str]]:
    """What the stream of a queued run says first of its waiting, and its record the same moment."""
    async for item in client.stream(run.thread_id, run_id=run.run_id):
        if isinstance(item, Waiting):
            record = await client.run(run.run_id)
            return item, (record.status, record.position, record.waiting_for)
    raise AssertionError("it never waited")


async def is_running(client: AsyncClient, run: Accepted) -> bool:
    return (await client.run(run.run_id)).status == "running"


async def test_the_first_run_of_a_tenant_starts_before_the_many_that_another_one_queued(line: Line) -> None:
    line.start()
    async with clients(line, "many", "one") as (many, one):
        runs = [await start(many, UNTIL_TOLD) for _ in range(8)]
        for run in runs[:AT_ONCE]:
            await until(lambda run=run: is_running(many, run), what="the first runs to start")  # type: ignore[misc]
        last, record = await waiting(many, runs[-1])
        assert (last.run_id, last.position, last.waiting_for) == (runs[-1].run_id, 5, "worker")
        assert record == ("queued", 5, "worker")

        mine = await start(one, script({"text": "Mine."}))
        seen, record = await waiting(one, mine)
        assert (seen.position, seen.waiting_for) == (6, "worker"), "six others came before"
        assert record == ("queued", 6, "worker")
        # Two places become free: turns give one of them to the other tenant, however many wait before it.
        for run in runs[:AT_ONCE]:
            await many.put_file(run.thread_id, "go", content=b"")
        *_, end = [item async for item in one.stream(mine.thread_id, run_id=mine.run_id)]
        assert end.type == "run.finished"
        assert [(await many.run(run.run_id)).status for run in runs[-4:]] == ["queued"] * 4

        for run in runs[AT_ONCE:]:
            await many.put_file(run.thread_id, "go", content=b"")
        for run in runs:
            *_, end = [item async for item in many.stream(run.thread_id, run_id=run.run_id)]
            assert end.type == "run.finished"


async def test_a_tenant_with_as_many_runs_as_it_may_waits_for_its_quota_and_for_nobody_else(line: Line) -> None:
    line.settings["DIALTONE_LIMITS__MAX_RUNNING_PER_TENANT"] = "1"
    line.start()
    async with clients(line, "many", "one") as (many, one):
        runs = [await start(many, UNTIL_TOLD) for _ in range(3)]
        await until(lambda: is_running(many, runs[0]), what="the first run to start")
        seen, record = await waiting(many, runs[2])
        assert (seen.position, seen.waiting_for) == (1, "quota")
        assert record == ("queued", 1, "quota")
        mine = await start(one, script({"text": "Mine."}))
        *_, end = [item async for item in one.stream(mine.thread_id, run_id=mine.run_id)]
        assert end.type == "run.finished", "it takes the place that the other tenant may not have"
        assert [(await many.run(run.run_id)).status for run in runs] == ["running", "queued", "queued"]
        for run in runs:
            await many.put_file(run.thread_id, "go", content=b"")
            *_, end = [item async for item in many.stream(run.thread_id, run_id=run.run_id)]
            assert end.type == "run.finished"


async def test_a_full_queue_is_answered_with_429_to_its_tenant_alone(line: Line) -> None:
    line.settings["DIALTONE_LIMITS__MAX_QUEUED_PER_TENANT"] = "4"
    line.start()

    async def execute(client: AsyncClient, key: str) -> httpx.Response:
        thread_id = await client.initiate()
        async with httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
            url, headers = f"/api/agent/{thread_id}/execute", {"Authorization": f"Bearer {key}"}
            return await http.post(url, json={"task": UNTIL_TOLD}, headers=headers)

    keys = [key_of(line, "many"), key_of(line, "one")]
    async with AsyncClient(line.url, key=keys[0]) as many, AsyncClient(line.url, key=keys[1]) as one:
        assert [(await execute(many, keys[0])).status_code for _ in range(4)] == [202] * 4
        refused = await execute(many, keys[0])
        assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (429, "limit_exceeded", 4)
        assert int(refused.headers["retry-after"]) >= 1
        taken = await execute(one, keys[1])
        assert taken.status_code == 202
        for run in [
            item for thread in (await many.threads()).items for item in (await many.runs(thread.thread_id)).items
        ]:
            await many.cancel(run.run_id)
        await one.cancel(taken.json()["run_id"])

        async def accepted() -> bool:
            return (await execute(many, keys[0])).status_code == 202

        await until(accepted, what="a place in the queue")
