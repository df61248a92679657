"""A tenant's quota of sandboxes as its runs see it."""

import asyncio
from collections.abc import Iterator

import pytest

from dialtone.client import AsyncClient
from tests.line import Line, bash, script
from workflow.core.events import Delta, RunFailed


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Line(settings={"DIALTONE_SANDBOX__MAX_LIVE_PER_TENANT": "1", "DIALTONE_SANDBOX__TENANT_WAIT_S": "0"}) as line:
        yield line.start(workers=2)


async def test_a_run_beyond_the_quota_says_so_and_works_once_there_is_a_place(line: Line) -> None:
    async with AsyncClient(line.url) as client, asyncio.timeout(60):
        holding, refused = await client.initiate(), await client.initiate()
        first = await client.execute(
            holding, script(bash("echo up; until [ -e go ]; do sleep 0.05; done"), {"text": "a"})
        )
        async for item in client.stream(holding, run_id=first.run_id):
            if isinstance(item, Delta) and item.kind == "stdout":
                break
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
