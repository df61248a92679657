"""Another tenant's ids look like unknown ones, on every route that there is."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.keyring import KeyRing
from tests.gateway.playing import Worker
from tests.gateway.serving import Gateway, make_settings
from workflow.core.config import Settings
from workflow.core.ids import TenantId, UserId
from workflow.core.records import Caller

ALICE = Caller(tenant=TenantId("acme"), user=UserId("alice"))
BODIES: dict[str, Any] = {
    "execute": {"task": "steal"},
    "steer": {"text": "stop"},
    "answer": {"answer": "yes"},
    "cancel": {},
    "ticket": None,
}


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return make_settings(redis_url, tmp_path, auth={"mode": "on"})


@pytest.fixture
async def eve(gateway: Gateway, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    key = KeyRing(Path(settings.data_dir) / "keys.json").new(
        tenant="evil", user="eve", scopes=frozenset({"read", "write", "operator"})
    )
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, headers=headers, timeout=10) as client:
        yield client


async def test_no_route_tells_another_tenants_thread_or_run_from_an_unknown_one(
    gateway: Gateway, worker: Worker, eve: httpx.AsyncClient
) -> None:
    thread = await worker.thread(ALICE)
    turn = await worker.running(thread, ALICE)
    await turn.say("secret")
    swept = 0
    for path, method in _operations(gateway):
        unknown = thread[:-4] + ("0000" if not thread.endswith("0000") else "1111")
        real_run, unknown_run = turn.run_id, f"{unknown}.{turn.run_id.rpartition('.')[2]}"
        answers = [
            await _ask(eve, method, path, thread_id, run_id)
            for thread_id, run_id in ((thread, real_run), (unknown, unknown_run))
        ]
        assert [answer.status_code for answer in answers] == [404, 404], f"{method} {path}: {answers[0].text}"
        texts = [
            answer.text.replace(answer.headers["x-request-id"], "R")
            .replace(real_run, "RUN")
            .replace(unknown_run, "RUN")
            for answer in answers
        ]
        assert texts[0].replace(thread, "T") == texts[1].replace(unknown, "T"), f"{method} {path}"
        assert "secret" not in answers[0].text
        swept += 1
    assert swept >= 20
    assert [event.type for event in await worker.events(thread)] == ["run.queued", "run.started", "message"]
    assert (await eve.get("/api/agent")).json()["items"] == []


def _operations(gateway: Gateway) -> list[tuple[str, str]]:
    """Every documented path that names a thread, and the old one that names it in its query."""
    paths = gateway.app.openapi()["paths"]
    found = [(path, method) for path, methods in paths.items() for method in methods if "{thread_id}" in path]
    return [*found, ("/agent/event-stream?flowUuid={thread_id}&flowInputUuid={run_id}", "get")]


async def _ask(http: httpx.AsyncClient, method: str, path: str, thread_id: str, run_id: str) -> httpx.Response:
    url = path.format(thread_id=thread_id, run_id=run_id, question_id="q1", path="a.txt")
    name = path.rpartition("/")[2]
    if method == "put":
        return await http.put(url, content=b"stolen")
    if method == "patch":
        return await http.patch(url, json={"title": "mine"})
    return await http.request(method, url, json=BODIES[name] if method == "post" else None)


async def test_run_of_another_thread_is_unknown_even_to_its_owner(
    gateway: Gateway, worker: Worker, settings: Settings
) -> None:
    first, second = await worker.thread(ALICE), await worker.thread(ALICE)
    run = await worker.open(first, caller=ALICE)
    key = KeyRing(Path(settings.data_dir) / "keys.json").new(
        tenant="acme", user="alice", scopes=frozenset({"read", "write"})
    )
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        header = {"Authorization": f"Bearer {key}"}
        assert (await http.get(f"/api/agent/{first}/runs/{run}", headers=header)).status_code == 200
        assert (await http.get(f"/api/agent/{second}/runs/{run}", headers=header)).status_code == 404
        assert (await http.get(f"/api/agent/{second}/stream?run_id={run}", headers=header)).status_code == 404
