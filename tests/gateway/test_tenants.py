"""Another tenant's ids look like unknown ones, on every route that there is."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.keyring import KeyRing
from tests.gateway.openapi import Operation, operations
from tests.gateway.playing import Turn, Worker
from tests.gateway.serving import Gateway, make_settings
from tests.receiver import SECRET
from workflow.core.config import Settings
from workflow.core.ids import TenantId, UserId
from workflow.core.records import Caller, RunOptions

ALICE = Caller(tenant=TenantId("acme"), user=UserId("alice"))
OWNED = frozenset({"thread_id", "run_id", "notice_id", "flowUuid", "flowInputUuid"})
"""Parameters that name what belongs to somebody. A route for something new needs its id made in `belongings`."""
DESK = "/api/operator/"
"""Whose routes belong to the installation: the scope `operator` opens them to all tenants, without it they are shut."""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return make_settings(redis_url, tmp_path, auth={"mode": "on"}, webhooks={"secret": SecretStr(SECRET)})


def header_of(settings: Settings, tenant: str, user: str) -> dict[str, str]:
    key = KeyRing(Path(settings.data_dir) / "keys.json").new(
        tenant=tenant, user=user, scopes=frozenset({"read", "write"})
    )
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def eve(gateway: Gateway, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    headers = header_of(settings, "evil", "eve")
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, headers=headers, timeout=10) as client:
        yield client


async def belongings(worker: Worker) -> tuple[Turn, dict[str, str]]:
    """A run that goes on and a notice that nobody took, of Alice; and their ids by parameter."""
    told = await worker.threads.create(ALICE, webhook="https://hooks.example.org/alice")
    ended = await worker.threads.open_run(ALICE, told.thread_id, task="secret", options=RunOptions())
    await (await worker.take(ended.run_id)).finish()
    (notice,) = await worker.runs.webhooks.take(limit=10, lease_s=60)
    await worker.runs.webhooks.settle(notice, "dead", result="secret")
    turn = await worker.running(await worker.thread(ALICE), ALICE)
    await turn.say("secret")
    ids = {"thread_id": turn.thread_id, "run_id": turn.run_id, "notice_id": notice.id}
    return turn, ids | {"flowUuid": turn.thread_id, "flowInputUuid": turn.run_id}


def unknown(real: Mapping[str, str]) -> dict[str, str]:
    """Ids of the same shape that nobody has."""
    thread = real["thread_id"][:-4] + ("0000" if not real["thread_id"].endswith("0000") else "1111")
    run = f"{thread}.{real['run_id'].rpartition('.')[2]}"
    notice = real["notice_id"][:-4] + ("0000" if not real["notice_id"].endswith("0000") else "1111")
    return {"thread_id": thread, "run_id": run, "notice_id": notice, "flowUuid": thread, "flowInputUuid": run}


async def test_no_route_tells_another_tenants_things_from_unknown_ones(
    gateway: Gateway, worker: Worker, eve: httpx.AsyncClient
) -> None:
    turn, real = await belongings(worker)
    nobodys = unknown(real)
    named = [one for one in operations(gateway.app.openapi()) if one.names and not one.path.startswith(DESK)]
    assert len(named) >= 22
    for operation in named:
        assert operation.names & OWNED, f"{operation.path}: whose is it? see OWNED"
        answers = [await ask(eve, operation, ids) for ids in (real, nobodys)]
        where = f"{operation.method} {operation.path}"
        assert [answer.status_code for answer in answers] == [404, 404], f"{where}: {answers[0].text}"
        assert same_text(answers[0], real) == same_text(answers[1], nobodys), where
        assert "secret" not in answers[0].text
    assert [event.type for event in await worker.events(turn.thread_id)] == ["run.queued", "run.started", "message"]
    assert [notice.id for notice in (await worker.runs.webhooks.dead(ALICE.tenant))[0]] == [real["notice_id"]]


async def ask(http: httpx.AsyncClient, operation: Operation, ids: Mapping[str, str]) -> httpx.Response:
    """The answer to a request that would do something to whoever owns `ids`."""
    values = defaultdict(lambda: "x1", ids)
    content = b"stolen" if operation.takes_bytes else None
    return await http.request(operation.method, operation.url(values), content=content, json=operation.json)


def same_text(answer: httpx.Response, ids: Mapping[str, str]) -> str:
    """The answer's body with the names of what was asked taken out."""
    text = answer.text.replace(answer.headers["x-request-id"], "R")
    for value in sorted(ids.values(), key=len, reverse=True):
        text = text.replace(value, "ID")
    return text


async def test_no_list_shows_another_tenants_things(gateway: Gateway, worker: Worker, eve: httpx.AsyncClient) -> None:
    _, real = await belongings(worker)
    for operation in operations(gateway.app.openapi()):
        if operation.method == "GET" and not operation.names and not operation.path.startswith(DESK):
            text = (await eve.get(operation.path)).text
            assert not [name for name, value in real.items() if value in text], operation.path
            assert "secret" not in text or operation.path == "/events/schema.json", operation.path


async def test_the_operators_desk_is_shut_to_tenants(gateway: Gateway, worker: Worker, eve: httpx.AsyncClient) -> None:
    turn, real = await belongings(worker)
    desk = [one for one in operations(gateway.app.openapi()) if one.path.startswith(DESK)]
    assert len(desk) >= 10
    for operation in desk:
        answer = await ask(eve, operation, real)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), operation.path
        assert "secret" not in answer.text
    assert [event.type for event in await worker.events(turn.thread_id)] == ["run.queued", "run.started", "message"]


async def test_another_tenants_things_cannot_be_reached_through_ones_own(
    gateway: Gateway, worker: Worker, eve: httpx.AsyncClient
) -> None:
    _, real = await belongings(worker)
    own = (await eve.post("/api/agent/initiate")).json()["thread_id"]
    mixed = real | {"thread_id": own, "flowUuid": own}
    for operation in operations(gateway.app.openapi()):
        if "run_id" in operation.names and not operation.path.startswith(DESK):
            assert (await ask(eve, operation, mixed)).status_code == 404, operation.path
    for path in (
        f"/api/agent/{own}/stream?run_id={real['run_id']}",
        f"/agent/event-stream?flowUuid={own}&flowInputUuid={real['run_id']}",
    ):
        assert (await eve.get(path)).status_code == 404, path


async def test_socket_does_not_open_for_another_tenant(gateway: Gateway, worker: Worker, settings: Settings) -> None:
    _, real = await belongings(worker)
    header = header_of(settings, "evil", "eve")
    bodies: list[Any] = []
    for ids in (real, unknown(real)):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                f"ws://127.0.0.1:{gateway.port}/api/agent/{ids['thread_id']}/ws", additional_headers=header
            ):
                pass
        assert refused.value.response.status_code == 404
        bodies.append(refused.value.response.body.decode().replace(ids["thread_id"], "ID").split('"request_id"')[0])
    assert bodies[0] == bodies[1]


async def test_run_of_another_thread_is_unknown_even_to_its_owner(
    gateway: Gateway, worker: Worker, settings: Settings
) -> None:
    first, second = await worker.thread(ALICE), await worker.thread(ALICE)
    run = await worker.open(first, caller=ALICE)
    header = header_of(settings, "acme", "alice")
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, headers=header) as http:
        assert (await http.get(f"/api/agent/{first}/runs/{run}")).status_code == 200
        assert (await http.get(f"/api/agent/{second}/runs/{run}")).status_code == 404
        assert (await http.get(f"/api/agent/{second}/stream?run_id={run}")).status_code == 404
