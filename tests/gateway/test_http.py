"""Requests that are wrong in every way, and the answers that say so."""

import asyncio
import json
import re
from collections import defaultdict
from contextlib import suppress
from typing import Any

import httpx
import pytest
from anyio import to_thread

from gateway.server import Protocol
from tests.gateway.openapi import operations
from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway
from tests.until import until
from workflow.core.config import Settings
from workflow.core.ids import ThreadId


async def thread_of(http: httpx.AsyncClient) -> str:
    answer = await http.post("/api/agent/initiate")
    assert answer.status_code == 200
    thread_id: str = answer.json()["thread_id"]
    return thread_id


class Impatient(Protocol):
    """Waits for heads not as long."""

    head_s = 0.2


async def test_no_request_waits_for_a_thread(
    http: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI takes endpoints and dependencies that are plain functions to a pool of 40 threads; that costs a small
    request a third more."""
    taken: list[str] = []

    async def run_sync(function: Any, *_: object, **__: object) -> Any:
        taken.append(repr(function))
        return function()

    monkeypatch.setattr(to_thread, "run_sync", run_sync)
    asked = list(operations(gateway.app.openapi()))
    for operation in asked:
        await http.request(operation.method, operation.url(defaultdict(lambda: "0" * 20)), json=operation.json)
    assert len(asked) >= 50
    assert not taken


async def test_thread_can_be_made_read_changed_listed_and_deleted(http: httpx.AsyncClient) -> None:
    made = await http.post("/api/agent/initiate", json={"title": "Report", "metadata": {"a": [1, None]}})
    path = f"/api/agent/{made.json()['thread_id']}"
    assert (await http.get(path)).json()["title"] == "Report"
    assert (await http.patch(path, json={"title": "Other"})).json()["metadata"] == {"a": [1, None]}
    listed = (await http.get("/api/agent", params={"q": "oth", "limit": 5})).json()
    assert [item["title"] for item in listed["items"]] == ["Other"]
    assert listed["next_cursor"] is None
    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).status_code == 404


async def test_threads_come_in_pages_each_once(http: httpx.AsyncClient) -> None:
    made = [(await http.post("/api/agent/initiate", json={"title": f"t{n}"})).json()["thread_id"] for n in range(5)]
    listed: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await http.get("/api/agent", params={"limit": 2, "cursor": cursor})).json()
        listed += [item["thread_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(listed) == sorted(made)
    assert (await http.get("/api/agent", params={"limit": 1, "q": "no such title"})).json()["items"] == []


async def test_a_page_goes_on_where_the_last_one_ended_whatever_came_and_went(
    http: httpx.AsyncClient, worker: Worker
) -> None:
    made = [await thread_of(http) for _ in range(5)]
    first = (await http.get("/api/agent", params={"limit": 2})).json()
    assert [item["thread_id"] for item in first["items"]] == made[:2:-1]
    await thread_of(http)
    await http.delete(f"/api/agent/{made[3]}")  # the last one shown
    rest = (await http.get("/api/agent", params={"cursor": first["next_cursor"]})).json()
    assert [item["thread_id"] for item in rest["items"]] == made[2::-1]

    path = f"/api/agent/{made[0]}/runs"
    runs = [await worker.open(ThreadId(made[0])) for _ in range(4)]
    first = (await http.get(path, params={"limit": 2})).json()
    await worker.open(ThreadId(made[0]))
    rest = (await http.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [item["run_id"] for item in first["items"] + rest["items"]] == runs[::-1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    "path", ["/api/agent", "/api/agent/{}/runs", "/api/webhooks/dead", "/api/operator/webhooks/dead"]
)
@pytest.mark.parametrize("cursor", ["nope", "-1", "1:", ":a", "٣:a", "1e3:a", "(1:a", "0" * 16])
async def test_what_is_no_cursor_is_refused(http: httpx.AsyncClient, path: str, cursor: str) -> None:
    answer = await http.get(path.format(await thread_of(http)), params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
    assert "next_cursor" in answer.json()["detail"]


async def test_execute_accepts_a_task_and_the_same_key_gives_the_same_run(http: httpx.AsyncClient) -> None:
    thread = await thread_of(http)
    key = {"Idempotency-Key": "k1"}
    first = await http.post(f"/api/agent/{thread}/execute", json={"task": "go"}, headers=key)
    again = await http.post(f"/api/agent/{thread}/execute", json={"task": "go"}, headers=key)
    assert first.status_code == 202
    assert first.json() == again.json()
    assert first.json()["stream_url"] == f"/api/agent/{thread}/stream?run_id={first.json()['run_id']}"
    other = await http.post(f"/api/agent/{thread}/execute", json={"task": "stop"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    runs = (await http.get(f"/api/agent/{thread}/runs")).json()["items"]
    assert [run["run_id"] for run in runs] == [first.json()["run_id"]]


async def test_run_can_be_read_steered_and_cancelled(http: httpx.AsyncClient) -> None:
    thread = await thread_of(http)
    run = (await http.post(f"/api/agent/{thread}/execute", json={"task": "go"})).json()["run_id"]
    path = f"/api/agent/{thread}/runs/{run}"
    assert (await http.get(path)).json()["status"] == "queued"
    assert (await http.get(f"{path}/usage")).json()["output_tokens"] == 0
    assert (await http.post(f"{path}/steer", json={"text": "faster"})).status_code == 202
    assert (await http.post(f"{path}/cancel", json={"reason": "enough"})).json()["status"] == "cancelled"
    assert (await http.post(f"{path}/cancel")).json()["status"] == "cancelled"
    assert (await http.post(f"{path}/steer", json={"text": "late"})).status_code == 409
    events = (await http.get(f"{path}/events")).json()["items"]
    assert [event["type"] for event in events] == ["run.queued", "message", "run.cancelled"]


async def test_events_come_in_pages_and_fold_to_the_state(http: httpx.AsyncClient, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say(*map(str, range(10)))
    await turn.finish()
    seen: list[dict[str, Any]] = []
    after = ""
    while page := (await http.get(f"/api/agent/{thread}/events", params={"after": after, "limit": 4})).json():
        if not page["items"]:
            break
        assert len(page["items"]) <= 4
        seen += page["items"]
        after = page["next_after"]
    assert [event["id"] for event in seen] == await worker.ids(thread)
    state = (await http.get(f"/api/agent/{thread}/state")).json()
    assert state["last_id"] == seen[-1]["id"]
    assert state["runs"][turn.run_id]["status"] == "finished"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "not_valid"),
        (b"{", 400, "bad_json"),
        (b"nonsense", 400, "bad_json"),
        (b'"text"', 422, "not_valid"),
        (b"{}", 422, "not_valid"),
        (b'{"task": ""}', 422, "not_valid"),
        (b'{"task": "  \\n"}', 422, "not_valid"),
        (b'{"task": 7}', 422, "not_valid"),
        (b'{"task": null}', 422, "not_valid"),
        (b'{"task": "x", "unknown": 1}', 422, "not_valid"),
        (b'{"task": "nul \\u0000"}', 422, "not_valid"),
        (b'{"task": "escape \\u001b[31m"}', 422, "not_valid"),
        (b'{"task": "half \\ud800"}', 422, "not_valid"),
        (b'{"task": "x", "policy": "maybe"}', 422, "not_valid"),
        (b'{"task": "x", "budgets": {"usd": -1}}', 422, "not_valid"),
        (b'{"task": "x", "budgets": {"usd": 1e999}}', 422, "not_valid"),
        (b'{"task": "x", "webhook": "file:///etc/passwd"}', 422, "not_valid"),
        (b'{"task": "\xff"}', 400, "bad_json"),
        (json.dumps({"task": "x" * 1_000_000}).encode(), 413, "too_large"),
        (json.dumps({"task": "x" * 3_000_000}).encode(), 413, "too_large"),
        (b"[" * 100_000, 400, "bad_json"),
        (b'{"task":' + b'{"a":' * 65 + b"1" + b"}" * 66, 400, "bad_json"),
        (b'{"task": ' + b"9" * 10_000 + b"}", 400, "bad_json"),
    ],
)
async def test_bad_task_is_refused_with_a_problem_and_nothing_is_made(
    http: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    thread = await thread_of(http)
    answer = await http.post(f"/api/agent/{thread}/execute", content=body, headers={"Content-Type": "application/json"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (await http.get(f"/api/agent/{thread}/runs")).json()["items"] == []
    assert (await http.get(f"/api/agent/{thread}/events")).json()["items"] == []


async def test_body_without_a_length_is_cut_off_at_the_limit(http: httpx.AsyncClient) -> None:
    async def pieces() -> Any:
        for _ in range(30):
            yield b" " * 100_000

    answer = await http.post("/api/agent/initiate", content=pieces(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("start", ["GET /", "GET /health HTTP/1.1\r\nX-Long: "])
async def test_a_request_whose_head_has_no_end_is_cut_off(gateway: Gateway, start: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(start.encode())
    async with asyncio.timeout(5):  # it would wait for more for ever
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"a" * 10_000)
                await writer.drain()
            await reader.read()
    writer.close()


@pytest.mark.parametrize("start", ["", "GET /health HTT", "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /he"])
async def test_a_request_whose_head_does_not_come_is_given_up(settings: Settings, start: str) -> None:
    gateway = Gateway(settings)
    gateway.config.http = Impatient
    async with gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(start.encode())
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()


async def test_an_idle_stream_outlives_the_wait_for_heads(settings: Settings, worker: Worker) -> None:
    gateway = Gateway(settings)
    gateway.config.http = Impatient
    async with gateway:
        async with await Reader.open(f"{gateway.url}/api/agent/{await worker.thread()}/stream") as reader:
            await reader.until_heartbeats(2)


@pytest.mark.parametrize("metadata", [{"a": "\ud800"}, {"a": float("inf")}, {"a": "x" * 20_000}])
async def test_metadata_that_cannot_be_kept_is_refused(http: httpx.AsyncClient, metadata: Any) -> None:
    answer = await http.post("/api/agent/initiate", content=json.dumps({"metadata": metadata}))
    assert answer.status_code == 422


async def test_unknown_things_are_not_found_whatever_they_look_like(http: httpx.AsyncClient) -> None:
    thread = await thread_of(http)
    for path in (
        "/api/agent/nobody",
        "/api/agent/{a}",
        "/api/agent/%00",
        "/api/agent/" + "x" * 65,
        f"/api/agent/{thread}/runs/nobody",
        f"/api/agent/{thread}/runs/{thread}.0000",
        f"/api/agent/{thread}/runs/other.0000",
        f"/api/agent/{thread}/stream?run_id={thread}.0000",
        "/agent/event-stream?flowUuid=nobody",
        "/api/nothing",
    ):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert (await http.delete(f"/api/agent/{thread}/runs")).json()["code"] == "method_not_allowed"
    assert (await http.get("/agent/event-stream")).status_code == 422


async def test_busy_thread_is_refused_when_asked_to_reject(http: httpx.AsyncClient) -> None:
    thread = await thread_of(http)
    await http.post(f"/api/agent/{thread}/execute", json={"task": "go"})
    answer = await http.post(f"/api/agent/{thread}/execute", json={"task": "go", "policy": "reject"})
    assert (answer.status_code, answer.json()["code"]) == (409, "thread_busy")
    assert (await http.delete(f"/api/agent/{thread}")).status_code == 409


async def test_every_answer_has_safe_headers_and_a_request_id(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/api/agent", "/api/agent/nobody", "/docs", "/nothing"):
        headers = (await http.get(path, headers={"X-Request-ID": "mine-1"})).headers
        assert headers["x-request-id"] == "mine-1"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    answer = await http.get("/health", headers={"X-Request-ID": "not good"})
    assert answer.headers["x-request-id"] != "not good"


async def test_client_that_left_before_its_answer_is_logged_as_499(
    gateway: Gateway, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.access")
    thread = await worker.thread()
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST /api/agent/{thread}/execute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{{".encode()
    )
    await writer.drain()
    writer.close()
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?ticket=secret") as stream:
        await stream.until_heartbeats(1)

    async def logged() -> bool:
        lines = [record.getMessage() for record in caplog.records if record.name == "gateway.access"]
        return all(any(f"{what} 499" in line for line in lines) for what in ("/execute", "/stream"))

    await until(logged, what="both lines")
    assert "secret" not in caplog.text
    assert await worker.events(thread) == []


async def test_health_says_what_stands_behind_the_gateway(http: httpx.AsyncClient) -> None:
    answer = await http.get("/health")
    health = answer.json()
    assert (answer.status_code, health["status"]) == (200, "degraded")
    assert health["redis"]["ok"] is True
    assert health["workers"] == {"alive": 0, "running": 0, "capacity": 0}


async def test_metrics_count_requests_and_streams(http: httpx.AsyncClient) -> None:
    await http.get("/api/agent/nobody")
    text = (await http.get("/metrics")).text
    assert 'dialtone_requests_total{method="GET",status="404"} 1.0' in text
    assert re.search(r'dialtone_streams\{component="gateway",process="[^"]+"\} 0\.0', text)
    assert "dialtone_redis_up 1.0" in text


async def test_legacy_stream_is_the_same_log(gateway: Gateway, worker: Worker, http: httpx.AsyncClient) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say("hello")
    last = await turn.finish()
    answer = await http.get("/agent/event-stream", params={"flowUuid": thread, "flowInputUuid": turn.run_id})
    ids = [line.removeprefix("id: ") for line in answer.text.splitlines() if line.startswith("id: ")]
    assert ids == await worker.ids(thread)
    params = {"flowUuid": thread, "flowInputUuid": turn.run_id, "last_id": last}
    assert (await http.get("/agent/event-stream", params=params)).status_code == 204


async def test_files_without_a_worker_are_unavailable_and_bad_paths_refused(http: httpx.AsyncClient) -> None:
    thread = await thread_of(http)
    assert (await http.get(f"/api/agent/{thread}/files/a%00b")).status_code == 400
    assert (await http.get(f"/api/agent/{thread}/files", params={"depth": 0})).status_code == 422
    assert (await http.get("/api/agent/nobody/files")).status_code == 404
