"""The operator's desk over HTTP: it shows all tenants to operators alone, and what is done there holds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from dialtone.cli import main
from gateway.keyring import KeyRing
from modem import keys, workers
from modem.figures import Reporter
from modem.meter import RUNS_ENDED, WAIT_SECONDS, Meter
from modem.quotas import TenantQuota
from tests.gateway.playing import Worker
from tests.gateway.serving import Gateway, make_settings
from tests.until import until
from workflow.core.config import SandboxSettings, Settings
from workflow.core.events import Usage, UsageUpdated
from workflow.core.ids import RunId, TenantId, ThreadId, UserId
from workflow.core.records import Caller, Scope, WorkerRecord

ACME = Caller(tenant=TenantId("acme"), user=UserId("alice"))
OTHER = Caller(tenant=TenantId("other"), user=UserId("bob"))


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return make_settings(redis_url, tmp_path, auth={"mode": "on"}, limits={"max_running_per_tenant": 1})


def client_of(gateway: Gateway, settings: Settings, *, tenant: str, user: str, scopes: set[Scope]) -> httpx.AsyncClient:
    key = KeyRing(Path(settings.data_dir) / "keys.json").new(tenant=tenant, user=user, scopes=frozenset(scopes))
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=gateway.url, trust_env=False, headers=headers, timeout=10)


@pytest.fixture
async def ops(gateway: Gateway, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(gateway, settings, tenant="ops", user="olga", scopes={"read", "operator"}) as client:
        yield client


@pytest.fixture
async def alice(gateway: Gateway, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(gateway, settings, tenant="acme", user="alice", scopes={"read", "write"}) as client:
        yield client


def a_worker(name: str = "w1", *, running: int = 0, draining: bool = False) -> WorkerRecord:
    return WorkerRecord(
        worker=name,
        host="h",
        pid=1,
        version="0",
        model="scripted",
        sandbox="local/T1",
        concurrency=2,
        running=running,
        draining=draining,
    )


async def test_no_part_of_the_desk_opens_without_the_operator_scope(gateway: Gateway, alice: httpx.AsyncClient) -> None:
    paths = gateway.app.openapi()["paths"]
    operations = [(path, method) for path in paths if path.startswith("/api/operator") for method in paths[path]]
    assert len(operations) >= 13
    for path, method in operations:
        url = path.format(worker="w", run_id="t.r", notice_id=f"msg_{'0' * 32}")
        answer = await alice.request(method, url, json={} if method == "post" else None)
        assert (answer.status_code, answer.json()["code"], answer.json()["scope"]) == (403, "forbidden", "operator")


async def test_operators_see_runs_of_all_tenants_and_why_they_wait(ops: httpx.AsyncClient, worker: Worker) -> None:
    thread = await worker.thread(ACME)
    at_work = await worker.running(thread, ACME)
    behind = await worker.open(thread, "second", ACME)
    waiting = await worker.open(await worker.thread(OTHER), "third", OTHER)
    items = {item["run"]["run_id"]: item for item in (await ops.get("/api/operator/runs")).json()["items"]}
    assert items[at_work.run_id]["why"] == ""
    await TenantQuota(worker.connections, SandboxSettings(), owner="w1").wait(thread, is_over=False)
    assert await why(ops, at_work.run_id) == "its tenant has as many live sandboxes as it may"
    assert items[behind]["why"] == f"its thread works on {at_work.run_id}"
    assert items[waiting]["why"] == "no worker is alive"
    await workers.announce(worker.connections, a_worker(draining=True))
    assert await why(ops, waiting) == "every worker is being drained or stops"
    await workers.announce(worker.connections, a_worker(running=2))
    assert await why(ops, waiting) == "every worker is full"
    await workers.announce(worker.connections, a_worker())
    assert await why(ops, waiting) == "a worker takes it in a moment"
    await worker.connections.commands.sadd(keys.SCHED_FLIGHT + "other", "x.y")
    assert "limits.max_running_per_tenant" in await why(ops, waiting)


async def why(ops: httpx.AsyncClient, run_id: str) -> str:
    items = (await ops.get("/api/operator/runs")).json()["items"]
    found: str = next(item["why"] for item in items if item["run"]["run_id"] == run_id)
    return found


async def test_runs_come_in_pages_and_by_tenant_status_and_trouble(ops: httpx.AsyncClient, worker: Worker) -> None:
    runs = [await worker.open(await worker.thread(ACME), caller=ACME) for _ in range(5)]
    other = await worker.running(await worker.thread(OTHER), OTHER)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await ops.get("/api/operator/runs", params={"limit": 2, "cursor": cursor, "tenant": "acme"})
        seen += [item["run"]["run_id"] for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]
    assert seen == sorted(runs)
    running = (await ops.get("/api/operator/runs", params={"status": "running"})).json()["items"]
    assert [item["run"]["run_id"] for item in running] == [other.run_id]
    assert (await ops.get("/api/operator/runs", params={"in_trouble": True})).json()["items"] == []
    await worker.connections.commands.hset(keys.run(other.run_id), mapping={"lease_until": 1, "attempt": 2})
    (lost,) = (await ops.get("/api/operator/runs", params={"in_trouble": True})).json()["items"]
    assert (lost["run"]["run_id"], lost["trouble"]) == (other.run_id, ["lease_lost", "retried"])


async def test_the_overview_counts_runs_processes_and_memory(
    gateway: Gateway, ops: httpx.AsyncClient, worker: Worker
) -> None:
    await worker.running(await worker.thread(ACME), ACME)
    await worker.open(await worker.thread(OTHER), caller=OTHER)
    await workers.announce(worker.connections, a_worker(running=1))

    async def shown() -> bool:
        return bool((await ops.get("/api/operator/overview")).json()["gateways"])

    await until(shown, what="the gateway to announce itself")
    seen = (await ops.get("/api/operator/overview")).json()
    assert (seen["runs"]["open"], seen["runs"]["queued"], seen["runs"]["running"]) == (2, 1, 1)
    assert {(one["tenant"], one["queued"], one["running"]) for one in seen["tenants"]} == {
        ("acme", 0, 1),
        ("other", 1, 0),
    }
    assert [one["worker"] for one in seen["workers"]] == ["w1"]
    assert seen["gateways"][0]["gateway"] == gateway.services.figures.process
    assert len(seen["gateways"][0]["config"]["hash"]) == 12
    assert seen["redis"]["memory_bytes"] > 100_000


async def test_a_blocked_tenant_starts_no_runs_until_it_is_unblocked(
    ops: httpx.AsyncClient, alice: httpx.AsyncClient, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    thread = (await alice.post("/api/agent/initiate")).json()["thread_id"]
    run = (await alice.post(f"/api/agent/{thread}/execute", json={"task": "go"})).json()["run_id"]
    spared = await worker.open(await worker.thread(OTHER), caller=OTHER)
    body = {"tenant": "acme", "reason": "it mines coins", "cancel_runs": True}
    blocked = (await ops.post("/api/operator/tenants/block", json=body)).json()
    assert (blocked["block"]["by"], blocked["cancelled"]["run_ids"]) == ("olga@ops", [run])
    refused = await alice.post(f"/api/agent/{thread}/execute", json={"task": "again"})
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_blocked")
    assert "it mines coins" in refused.json()["detail"]
    assert [item["tenant"] for item in (await ops.get("/api/operator/tenants/blocked")).json()["items"]] == ["acme"]
    assert (await alice.get(f"/api/agent/{thread}/runs/{run}")).json()["status"] == "cancelled"
    assert (await worker.runs.load(spared)).status == "queued"
    record = next(record for record in caplog.records if record.name == "gateway.audit")
    assert (record.getMessage(), record.__dict__["of_tenant"]) == ("olga@ops: block a tenant", "acme")
    assert (await ops.post("/api/operator/tenants/unblock", json={"tenant": "acme"})).status_code == 204
    assert (await ops.post("/api/operator/tenants/unblock", json={"tenant": "acme"})).status_code == 404
    accepted = await alice.post(f"/api/agent/{thread}/execute", json={"task": "again"})
    assert accepted.status_code == 202


async def test_many_runs_are_cancelled_by_name_or_by_what_they_have_in_common(
    ops: httpx.AsyncClient, worker: Worker
) -> None:
    acme = [await worker.open(await worker.thread(ACME), caller=ACME) for _ in range(4)]
    other = await worker.open(await worker.thread(OTHER), caller=OTHER)
    url = "/api/operator/runs/cancel"
    for body in ({}, {"run_ids": acme[:1], "tenant": "acme"}, {"run_ids": acme[:1], "cursor": "x"}, {"cursor": "x"}):
        refused = await ops.post(url, json=body)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_input")
    unknown = f"{'0' * 20}.00000000"
    for cancelled, ended in (([acme[0]], []), ([], [acme[0]])):
        named = await ops.post(url, json={"run_ids": [acme[0], unknown], "reason": "one"})
        answer = {"run_ids": cancelled, "ended": ended, "unknown": [unknown], "reason": "one", "next_cursor": None}
        assert named.json() == answer
    assert (await worker.runs.load(acme[0])).reason == "one"
    young = await ops.post(url, json={"tenant": "acme", "older_than_s": 3600})
    assert young.json()["run_ids"] == []
    rest = await ops.post(url, json={"tenant": "acme", "status": "queued"})
    assert sorted(rest.json()["run_ids"]) == sorted(acme[1:])
    assert (await worker.runs.load(other)).status == "queued"
    types = [event.type for event in await worker.events(ThreadId(acme[1].split(".")[0]))]
    assert types == ["run.queued", "run.cancelled"]


async def test_more_runs_than_one_request_ends_are_ended_by_the_next_ones(
    ops: httpx.AsyncClient, worker: Worker
) -> None:
    held = (await worker.running(await worker.thread(ACME), ACME)).run_id
    queued = [await worker.open(await worker.thread(ACME), caller=ACME) for _ in range(505)]
    body = {"tenant": "acme", "reason": "it mines coins", "cancel_runs": True}
    first = (await ops.post("/api/operator/tenants/block", json=body)).json()["cancelled"]
    later = await worker.open(await worker.thread(OTHER), caller=OTHER)
    rest = {"tenant": "acme", "cursor": first["next_cursor"], "reason": first["reason"]}
    second = (await ops.post("/api/operator/runs/cancel", json=rest)).json()
    assert (len(first["run_ids"]), len(second["run_ids"]), second["next_cursor"]) == (500, 6, None)
    assert {*first["run_ids"], *second["run_ids"]} == {held, *queued}, "each of them once, also one that ends later"
    record = await worker.runs.load(RunId(second["run_ids"][-1]))
    assert record.reason == "an operator has blocked the tenant: it mines coins"
    assert (await worker.runs.load(later)).status == "queued"


async def test_the_terminal_goes_on_until_all_runs_are_ended_and_says_how_far_it_is(
    ops: httpx.AsyncClient, worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    async def desk(*arguments: str, status: int = 0) -> list[str]:
        key = ops.headers["Authorization"].removeprefix("Bearer ")
        line = ["desk", *arguments, "--url", str(ops.base_url), "--key", key]
        assert await asyncio.to_thread(main, line) == status
        return capsys.readouterr().out.splitlines()

    runs = [await worker.open(await worker.thread(ACME), caller=ACME) for _ in range(503)]
    named = await desk("cancel", runs[0], f"{'0' * 20}.00000000", status=1)
    assert named == ["1 runs cancelled, 1 unknown"]
    assert await desk("cancel", "--tenant", "acme") == ["500 runs cancelled …", "502 runs cancelled"]
    assert await desk("cancel", *runs) == [
        "0 runs cancelled, 500 had ended already",
        "0 runs cancelled, 503 had ended already",
    ]
    more = [await worker.open(await worker.thread(ACME), caller=ACME) for _ in range(501)]
    blocked = await desk("block", "acme", "--reason", "no", "--cancel-runs")
    assert blocked == ["blocked; 500 runs cancelled …", "501 runs cancelled"]
    assert {(await worker.runs.load(run_id)).status for run_id in more} == {"cancelled"}


async def test_a_run_is_requeued_even_when_its_worker_does_not_listen(ops: httpx.AsyncClient, worker: Worker) -> None:
    turn = await worker.running(await worker.thread(ACME), ACME)
    answer = await ops.post(f"/api/operator/runs/{turn.run_id}/requeue")
    assert (answer.status_code, answer.json()["run"]["status"]) == (200, "queued")
    with pytest.raises(Exception, match="no longer ours"):
        await turn.say("from the grave")
    again = await worker.runs.claim(turn.run_id, worker="w2", lease_s=60)
    assert again is not None
    assert again.reason == "released"


async def test_what_cannot_be_requeued_is_refused_with_the_reason(ops: httpx.AsyncClient, worker: Worker) -> None:
    thread = await worker.thread(ACME)
    turn = await worker.running(thread, ACME)
    behind = await worker.open(thread, "next", ACME)
    for run_id, status, words in (
        (behind, 409, "earlier run"),
        (f"{'0' * 20}.00000000", 404, "no run"),
        ("nonsense", 404, "no run"),
    ):
        answer = await ops.post(f"/api/operator/runs/{run_id}/requeue")
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    await turn.finish()
    answer = await ops.post(f"/api/operator/runs/{turn.run_id}/requeue")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await ops.post(f"/api/operator/runs/{behind}/requeue")).json()["run"]["status"] == "queued"


async def test_a_drain_is_a_wish_that_the_worker_hears_until_it_is_taken_back(
    ops: httpx.AsyncClient, worker: Worker
) -> None:
    assert (await ops.post("/api/operator/workers/w1/drain")).status_code == 404
    await workers.announce(worker.connections, a_worker())
    for gateway in (await ops.get("/api/operator/overview")).json()["gateways"]:
        assert (await ops.post(f"/api/operator/workers/{gateway['gateway']}/drain")).status_code == 404
    assert (await ops.post("/api/operator/workers/w1/drain", json={"hand_over": True})).status_code == 202
    wishes = await workers.announce(worker.connections, a_worker())
    assert (wishes.drained_by, wishes.hand_over) == ("olga@ops", True)
    assert (await ops.post("/api/operator/workers/w1/undrain")).status_code == 202
    assert (await workers.announce(worker.connections, a_worker())).drained_by == ""


async def test_history_and_costs_add_up_over_processes_and_show_every_tenant(
    ops: httpx.AsyncClient, worker: Worker
) -> None:
    for process, tenant, usd in (("p1", "acme", 0.25), ("p2", "acme", 0.5), ("p3", "other", 2.0)):
        meter = Meter()
        meter.add(RUNS_ENDED, "finished", "")
        meter.observe(WAIT_SECONDS, seconds=0.2)
        call = Usage(input_tokens=10, output_tokens=5, cost_usd=usd)
        event = UsageUpdated(thread_id=ThreadId("t"), call=call, run=call, model="m")
        meter.saw((event,), pause_s=0.1, tenant=tenant)
        await Reporter(worker.connections, meter, process=process, component="worker", gauges=dict).report()
    costs = (await ops.get("/api/operator/costs", params={"days": 2})).json()
    assert costs["total_usd"] == 2.75
    assert [(one["tenant"], one["model"], one["usd"], one["tokens"], one["calls"]) for one in costs["items"]] == [
        ("other", "m", 2.0, 15, 1),
        ("acme", "m", 0.75, 30, 2),
    ]
    mine = (await ops.get("/api/operator/costs", params={"tenant": "acme", "limit": 1})).json()
    assert (mine["total_usd"], mine["next_cursor"]) == (0.75, None)
    history = (await ops.get("/api/operator/history", params={"hours": 12})).json()
    assert len(history["items"]) <= 121
    assert sum(point["finished"] for point in history["items"]) == 3
    assert sum(point["cost_usd"] for point in history["items"]) == 2.75
    newest = [point for point in history["items"] if point["finished"]][-1]
    assert 0.1 < newest["wait_s"] <= 0.25
    assert (await ops.get("/api/operator/history", params={"hours": 13})).status_code == 422


async def test_dead_notices_of_all_tenants_are_shown_and_replayed(ops: httpx.AsyncClient, worker: Worker) -> None:
    redis = worker.connections.commands
    for number, tenant in enumerate(("acme", "other")):
        notice = f"msg_{number:032x}"
        fields = {"tenant": tenant, "type": "run.finished", "thread_id": "t", "run_id": "t.r", "url": "https://x.test/"}
        times = {"attempts": 8, "result": "HTTP 500", "created_at": 1, "died_at": 2 + number, "body": "{}"}
        await redis.hset(keys.notice(notice), mapping=fields | times)
        for index in (keys.HOOKS_DEAD, keys.dead_notices(TenantId(tenant))):
            await redis.zadd(index, {notice: number})
    first = (await ops.get("/api/operator/webhooks/dead", params={"limit": 1})).json()
    second = (await ops.get("/api/operator/webhooks/dead", params={"cursor": first["next_cursor"]})).json()
    assert [item["tenant"] for item in (*first["items"], *second["items"])] == ["other", "acme"]
    path = f"/api/operator/webhooks/{first['items'][0]['id']}/replay"
    assert (await ops.post(path)).status_code == 202
    assert (await ops.post(path)).status_code == 409
    assert await redis.zcard(keys.HOOKS_DUE) == 1


async def test_a_reload_is_answered_by_every_process_and_names_those_that_are_silent(
    ops: httpx.AsyncClient, worker: Worker
) -> None:
    await workers.announce(worker.connections, a_worker("deaf"))
    items = (await ops.post("/api/operator/config/reload", timeout=15)).json()["items"]
    assert {(one["kind"], one["answered"]) for one in items} == {("gateway", True), ("worker", False)}


async def test_in_development_mode_the_local_caller_is_an_operator(redis_url: str, tmp_path: Path) -> None:
    async with (
        Gateway(make_settings(redis_url, tmp_path)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):
        assert (await http.get("/api/operator/overview")).status_code == 200


async def test_the_desk_page_is_served_under_the_strict_policy(ops: httpx.AsyncClient) -> None:
    page = await ops.get("/desk")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert 'src="desk.js"' in page.text
