"""What an operator does takes effect in real workers: drain, hand over, requeue, cancel many, reload."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.line import Line, bash, script
from tests.until import until

LONG = script(bash("sleep 600"), {"text": "Done."})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text("")
    return path


@pytest.fixture(scope="module")
def staffed(config: Path) -> Iterator[Line]:
    """A line with two workers."""
    with Line(settings={"DIALTONE_RUNS__LEASE_S": "3", "DIALTONE_CONFIG": str(config)}) as line:
        yield line.start(workers=2)


@pytest.fixture
async def http(staffed: Line) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=staffed.url, trust_env=False, timeout=15) as client:
        yield client
        await client.post("/api/operator/runs/cancel", json={"tenant": "local"})
        for worker in await workers(client):
            await client.post(f"/api/operator/workers/{worker['worker']}/undrain")
        await until(lambda: drained(client, set()), what="all workers to take runs")


async def start(http: httpx.AsyncClient, task: str) -> str:
    """The path of a run in a new thread."""
    path = f"/api/agent/{(await http.post('/api/agent/initiate')).json()['thread_id']}"
    run_id = (await http.post(f"{path}/execute", json={"task": task})).json()["run_id"]
    return f"{path}/runs/{run_id}"


async def workers(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await http.get("/api/operator/overview")).json()["workers"]
    return found


async def drained(http: httpx.AsyncClient, names: set[str]) -> bool:
    return {one["worker"] for one in await workers(http) if one["draining"]} == names


async def record(http: httpx.AsyncClient, run: str) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(run)).json()
    return found


async def at_work(http: httpx.AsyncClient, run: str, *, not_at: str = "") -> str:
    """The worker that has begun the run's command."""

    async def look() -> str:
        found = await record(http, run)
        types = [event["type"] for event in (await http.get(f"{run}/events")).json()["items"]]
        is_begun = "tool.call" in types and found["status"] == "running" and found["owner"] != not_at
        return str(found["owner"]) if is_begun else ""

    return await until(look, timeout_s=20, what="a worker to run the command")


async def ended(http: httpx.AsyncClient, run: str, status: str) -> None:
    async def look() -> bool:
        return bool((await record(http, run))["status"] == status)

    await until(look, timeout_s=20, what=f"the run to be {status}")


async def test_a_drained_worker_finishes_its_runs_and_takes_no_more_until_undrained(http: httpx.AsyncClient) -> None:
    mine = await start(http, script(bash("sleep 3"), {"text": "Done."}))
    name = await at_work(http, mine)
    assert (await http.post(f"/api/operator/workers/{name}/drain")).status_code == 202
    await until(lambda: drained(http, {name}), what="the drain")
    others = [await start(http, script({"text": "Hi."})) for _ in range(8)]
    for run in others:
        await ended(http, run, "finished")
        started = next(e for e in (await http.get(f"{run}/events")).json()["items"] if e["type"] == "run.started")
        assert started["worker"] != name
    await ended(http, mine, "finished")
    types = [event["type"] for event in (await http.get(f"{mine}/events")).json()["items"]]
    assert "run.resumed" not in types
    (shown,) = [one for one in await workers(http) if one["worker"] == name]
    assert shown["drained_by"] == "local@local"


async def test_a_worker_that_hands_over_is_empty_at_once_and_its_run_goes_on_elsewhere(http: httpx.AsyncClient) -> None:
    run = await start(http, LONG)
    name = await at_work(http, run)
    await http.post(f"/api/operator/workers/{name}/drain", json={"hand_over": True})
    other = await resumed(http, run, not_at=name)
    assert other != name

    async def empty() -> bool:
        return all(one["running"] == 0 for one in await workers(http) if one["worker"] == name)

    await until(empty, what="the worker to be empty")


async def resumed(http: httpx.AsyncClient, run: str, *, not_at: str) -> str:
    """The worker on which the run was taken up again."""

    async def look() -> str:
        events = (await http.get(f"{run}/events")).json()["items"]
        found = [event["worker"] for event in events if event["type"] == "run.resumed" and event["worker"] != not_at]
        return found[0] if found else ""

    return await until(look, timeout_s=20, what="the run to go on elsewhere")


async def test_with_every_worker_drained_a_run_waits_and_says_why_and_then_goes_on(http: httpx.AsyncClient) -> None:
    names = {one["worker"] for one in await workers(http)}
    for name in names:
        await http.post(f"/api/operator/workers/{name}/drain")
    await until(lambda: drained(http, names), what="the drain")
    run = await start(http, script({"text": "At last."}))
    (item,) = (await http.get("/api/operator/runs")).json()["items"]
    assert item["why"] == "every worker is being drained or stops"
    for name in names:
        await http.post(f"/api/operator/workers/{name}/undrain")
    await ended(http, run, "finished")


async def test_a_requeued_run_is_given_up_by_its_worker_and_goes_on(http: httpx.AsyncClient) -> None:
    run = await start(http, LONG)
    await at_work(http, run)
    answer = await http.post(f"/api/operator/runs/{run.rpartition('/')[2]}/requeue")
    assert answer.status_code == 200, answer.text
    await resumed(http, run, not_at="")
    events = (await http.get(f"{run}/events")).json()["items"]
    (again,) = [event for event in events if event["type"] == "run.resumed"]
    assert again["reason"] == "released"
    assert len(again["config_hash"]) == 12


async def test_many_runs_are_cancelled_wherever_they_are(http: httpx.AsyncClient) -> None:
    runs = [await start(http, LONG) for _ in range(4)]
    for run in runs:
        await at_work(http, run)
    answer = await http.post("/api/operator/runs/cancel", json={"status": "running", "reason": "enough"})
    assert len(answer.json()["run_ids"]) == 4
    for run in runs:
        await ended(http, run, "cancelled")
        assert (await record(http, run))["reason"] == "enough"


async def test_a_reload_takes_what_it_can_names_the_rest_and_new_runs_show_the_new_hash(
    http: httpx.AsyncClient, config: Path
) -> None:
    before = await start(http, script(bash("sleep 4"), {"text": "Done."}))
    await at_work(http, before)
    old = (await record(http, before))["config_hash"]
    config.write_text("[agent]\nmax_turns = 77\n[limits]\nrequests_per_minute = 599\n[gateway]\nretry_ms = 999\n")
    items = (await http.post("/api/operator/config/reload")).json()["items"]
    assert sorted(item["kind"] for item in items) == ["gateway", "worker", "worker"]
    assert all(item["answered"] for item in items)
    assert {tuple(item["config"]["need_restart"]) for item in items} == {("gateway.retry_ms",)}
    (new,) = {item["config"]["hash"] for item in items}
    assert new != old
    limited = await http.get("/api/operator/overview")
    assert limited.headers["ratelimit-policy"] == '"requests";q=599;w=60'
    after = await start(http, script({"text": "Hi."}))
    await ended(http, after, "finished")
    assert (await record(http, after))["config_hash"] == new
    await ended(http, before, "finished")
    assert (await record(http, before))["config_hash"] == old
    config.write_text("[agent]\nmax_turns = 'many'\n")
    broken = (await http.post("/api/operator/config/reload")).json()["items"]
    assert all("agent.max_turns" in item["config"]["problem"] for item in broken)
    assert {item["config"]["hash"] for item in broken} == {new}
    config.write_text("")
    mended = (await http.post("/api/operator/config/reload")).json()["items"]
    assert {item["config"]["problem"] for item in mended} == {""}
