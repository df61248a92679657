"""A run is told to another server by the whole line: real gateway, worker, Redis and sockets."""

import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.line import Line, script
from tests.receiver import SECRET, Received, Receiver
from tests.until import until


@pytest.fixture(scope="module")
def hooked() -> Iterator[Line]:
    with Line(
        settings={
            "DIALTONE_RUNS__LEASE_S": "2",
            "DIALTONE_WEBHOOKS__SECRET": SECRET,
            "DIALTONE_WEBHOOKS__ALLOW_PRIVATE": "true",
            "DIALTONE_WEBHOOKS__WAITS_S": "[0.1]",
            "DIALTONE_WEBHOOKS__MAX_ATTEMPTS": "2",
        }
    ) as line:
        yield line.start()


@pytest.fixture
async def http(hooked: Line) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hooked.url, trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def execute(http: httpx.AsyncClient, task: str, *, webhook: str = "", thread_webhook: str = "") -> str:
    """The new thread's path."""
    made = await http.post("/api/agent/initiate", json={"webhook": thread_webhook})
    assert made.status_code == 200, made.text
    path = f"/api/agent/{made.json()['thread_id']}"
    accepted = await http.post(f"{path}/execute", json={"task": task, "webhook": webhook})
    assert accepted.status_code == 202, accepted.text
    return path


async def events(http: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await http.get(f"{path}/events")).json()["items"]
    return items


async def test_the_end_of_a_run_reaches_the_server_that_the_task_named(
    http: httpx.AsyncClient, receiver: Receiver
) -> None:
    path = await execute(http, script({"text": "All done."}), webhook=receiver.url)
    (received,) = await receiver.wait(1)
    assert received.notice["type"] == "run.finished"
    assert received.notice["data"] == (await events(http, path))[-1]
    assert received.notice["data"]["summary"] == "All done."


async def test_a_question_reaches_the_server_that_the_thread_named_and_its_answer_goes_back(
    http: httpx.AsyncClient, receiver: Receiver
) -> None:
    question = {"name": "ask_person", "arguments": {"question": "Tea or coffee?", "choices": ["tea", "coffee"]}}
    task = script({"text": "I ask.", "tool_calls": [question]}, {"text": "Enjoy."})
    path = await execute(http, task, thread_webhook=receiver.url)
    (asked,) = await receiver.wait(1)
    notice = asked.notice["data"]
    assert (asked.notice["type"], notice["prompt"], notice["choices"]) == (
        "approval.requested",
        "Tea or coffee?",
        ["tea", "coffee"],
    )
    answer = await http.post(f"{path}/questions/{notice['question_id']}/answer", json={"answer": "tea"})
    assert answer.status_code == 204
    _, ended = await receiver.wait(2)
    assert ended.notice["data"]["summary"] == "Enjoy."


async def test_a_notice_that_could_not_be_delivered_is_listed_replayed_and_deleted(
    http: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.statuses = [500, 503]
    await execute(http, script({"text": "Done."}), webhook=receiver.url)

    async def dead() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await http.get("/api/webhooks/dead")).json()["items"]
        return items

    (notice,) = await until(dead, what="the dead notice")
    assert (notice["type"], notice["attempts"], notice["result"]) == ("run.finished", 2, "HTTP 503")
    assert (await http.post(f"/api/webhooks/{notice['id']}/replay")).status_code == 202
    received = await receiver.wait(3)
    assert {one.id for one in received} == {notice["id"]}

    async def forgotten() -> bool:
        return (await http.delete(f"/api/webhooks/{notice['id']}")).status_code == 404

    await until(forgotten, what="the delivered notice to be forgotten")
    assert (await http.get("/api/webhooks/dead")).json() == {"items": [], "next_cursor": None}
    assert (await http.post("/api/webhooks/nonsense/replay")).status_code == 404


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/", "http://127.0.0.1:6379/", "https://a:b@example.org/"]
)
async def test_an_address_that_must_not_be_reached_is_refused_and_starts_nothing(
    http: httpx.AsyncClient, url: str
) -> None:
    path = await execute(http, script({"text": "Done."}))
    before = (await http.get(f"{path}/runs")).json()["items"]
    refused = await http.post(f"{path}/execute", json={"task": "go", "webhook": url})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "bad_input", "webhook")
    assert len((await http.get(f"{path}/runs")).json()["items"]) == len(before)
    assert (await http.post("/api/agent/initiate", json={"webhook": url})).status_code == 400
    assert (await http.patch(path, json={"webhook": url})).status_code == 400


async def test_a_run_whose_worker_is_killed_is_told_once_when_it_has_ended(
    hooked: Line, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    task = script({"text": "Slowly …", "delay_ms": 300}, {"text": "Done."})
    path = await execute(http, task, webhook=receiver.url)

    async def started() -> bool:
        return any(event["type"] == "run.started" for event in await events(http, path))

    await until(started, what="the run to start")
    for worker in hooked.alive("worker"):
        worker.kill(signal.SIGKILL)
    hooked.worker()
    (received,) = await receiver.wait(1, timeout_s=40)
    types = [event["type"] for event in await events(http, path)]
    assert received.notice["type"] == types[-1] == "run.finished"
    assert "run.resumed" in types
    assert_one(receiver.received)


def assert_one(received: list[Received]) -> None:
    """All deliveries are of the same notice; a repeated one is allowed, a second one is not."""
    assert len({one.id for one in received}) == 1
