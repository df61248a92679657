"""The WebSocket twin: the same log, the same cursors, and commands in band."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.gateway.playing import Worker
from tests.gateway.serving import Gateway, make_settings
from workflow.core.events import ApprovalRequested
from workflow.core.ids import ItemId


def address(gateway: Gateway, thread: str, query: str = "") -> str:
    return f"ws://127.0.0.1:{gateway.port}/api/agent/{thread}/ws{query}"


async def take(socket: ClientConnection, event: str) -> dict[str, Any]:
    """The next message of this kind."""
    async with asyncio.timeout(10):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["event"] == event:
                return message


async def test_socket_shows_the_log_and_resumes_after_any_event(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say("one", "two")
    ids = await worker.ids(thread)
    async with connect(address(gateway, thread)) as socket:
        seen = [await take(socket, "task_agent_execute") for _ in ids]
        assert [message["id"] for message in seen] == ids
        assert seen[-1]["data"]["text"] == "two"
        said = await turn.say("three")
        assert (await take(socket, "task_agent_execute"))["id"] == said[0]
    async with connect(address(gateway, thread, f"?last_id={ids[1]}")) as socket:
        assert (await take(socket, "task_agent_execute"))["id"] == ids[2]
    header = {"Last-Event-ID": ids[2]}
    async with connect(address(gateway, thread, f"?last_id={ids[1]}"), additional_headers=header) as socket:
        assert (await take(socket, "task_agent_execute"))["id"] == ids[3]


async def test_from_now_says_which_now_it_is(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    async with connect(address(gateway, thread, "?from=now")) as socket:
        assert json.loads(await socket.recv()) == {"event": "keep_alive", "id": "0-0", "data": {}}
    await worker.running(thread)
    ids = await worker.ids(thread)
    async with connect(address(gateway, thread, "?from=now")) as socket:
        assert json.loads(await socket.recv())["id"] == ids[-1]
    async with connect(address(gateway, thread, "?last_id=0-0")) as socket:
        assert [(await take(socket, "task_agent_execute"))["id"] for _ in ids] == ids


async def test_what_is_there_already_comes_many_to_a_message_when_asked_for(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say(*(str(number) for number in range(1000)))
    ids = await worker.ids(thread)
    async with connect(address(gateway, thread, "?batch=true"), max_size=None) as socket:
        seen: list[str] = []
        messages = 0
        async with asyncio.timeout(10):
            while len(seen) < len(ids):
                lines = str(await socket.recv()).split("\n")
                seen += [json.loads(line).get("id") for line in lines]
                messages += 1
        assert seen == ids and messages < 20


async def test_commands_are_answered_on_the_same_connection(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    async with connect(address(gateway, thread)) as socket:
        await socket.send(json.dumps({"command": "execute", "id": "c1", "task": "go"}))
        reply = (await take(socket, "reply"))["data"]
        assert (reply["id"], reply["command"]) == ("c1", "execute")
        run = reply["result"]["run_id"]
        await socket.send(json.dumps({"command": "steer", "id": "c2", "run_id": run, "text": "faster"}))
        assert (await take(socket, "reply"))["data"]["id"] == "c2"
        await socket.send(json.dumps({"command": "answer", "id": "c3", "question_id": "q", "answer": "yes"}))
        assert (await take(socket, "error"))["data"]["code"] == "conflict"
        await socket.send(json.dumps({"command": "cancel", "id": "c4", "run_id": run}))
        assert (await take(socket, "reply"))["data"]["result"]["status"] == "cancelled"
        for text, code, command_id in (
            ("{", "bad_json", ""),
            ("[]", "not_valid", ""),
            ('{"command": "dance", "id": "c5"}', "not_valid", "c5"),
            ('{"command": "execute", "id": "c6"}', "not_valid", "c6"),
            ('{"command": "execute", "id": 7}', "not_valid", ""),
        ):
            await socket.send(text)
            error = (await take(socket, "error"))["data"]
            assert (error["code"], error["id"]) == (code, command_id)
            assert error["request_id"]
        assert error["detail"].startswith("execute.")
    types = [event.type for event in await worker.events(thread)]
    assert types == ["run.queued", "message", "run.cancelled"]


async def test_a_command_shares_the_rate_of_its_route_and_a_bad_one_is_counted_too(
    redis_url: str, tmp_path: Path
) -> None:
    limits = {"requests_per_minute": 4, "routes": {"POST /api/agent/{thread_id}/execute": 1}}
    settings = make_settings(redis_url, tmp_path, limits=limits)
    async with Gateway(settings) as gateway, Worker(settings) as worker:
        thread = await worker.thread()
        async with connect(address(gateway, thread)) as socket:
            codes = []
            for text in [json.dumps({"command": "execute", "task": "go"})] * 2 + ["{"] * 4:
                await socket.send(text)
                async with asyncio.timeout(10):
                    while (answer := json.loads(await socket.recv()))["event"] not in {"reply", "error"}:
                        pass
                codes.append(answer["data"].get("code", "done"))
    assert codes == ["done", "limit_exceeded", "bad_json", "bad_json", "bad_json", "limit_exceeded"]


async def test_a_binary_message_is_refused_with_a_word(gateway: Gateway, worker: Worker) -> None:
    async with connect(address(gateway, await worker.thread())) as socket:
        await socket.send(b"{}")
        async with asyncio.timeout(10):
            await socket.wait_closed()
        assert socket.close_code == 1003


async def test_question_is_answered_in_band(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with connect(address(gateway, thread, "?from=now&deltas=false")) as socket:
        await turn.write(
            ApprovalRequested(
                thread_id=thread, run_id=turn.run_id, question_id="q1", kind="question", prompt="Which one?"
            )
        )
        asked = (await take(socket, "task_agent_execute"))["data"]
        assert (asked["type"], asked["prompt"]) == ("approval.requested", "Which one?")
        await socket.send(json.dumps({"command": "answer", "id": "a", "question_id": "q1", "answer": "the red one"}))
        told: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while not {"reply", "task_agent_execute"} <= set(told):  # in either order
                message = json.loads(await socket.recv())
                told[message["event"]] = message["data"]
    assert told["reply"] == {"id": "a", "command": "answer", "result": None}
    resolved = told["task_agent_execute"]
    assert (resolved["type"], resolved["answer"]) == ("approval.resolved", "the red one")


async def test_previews_can_be_switched_off_and_one_run_be_followed(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    other = await worker.open(thread, "another")
    async with connect(address(gateway, thread, f"?deltas=false&run_id={turn.run_id}")) as socket:
        await turn.grow(ItemId("m1"), 0, "Hel")
        await turn.say("Hello")
        seen = [(await take(socket, "task_agent_execute"))["data"] for _ in range(3)]
    assert [event["type"] for event in seen] == ["run.queued", "run.started", "message"]
    assert other not in {event["run_id"] for event in seen}


async def test_run_socket_closes_after_the_run(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with connect(address(gateway, thread, f"?run_id={turn.run_id}")) as socket:
        await turn.finish()
        async with asyncio.timeout(10):
            messages = [json.loads(text) async for text in socket]
        assert messages[-1]["data"]["type"] == "run.finished"
        assert (socket.close_code, socket.close_reason) == (1000, "ended")


async def test_upgrade_is_refused_with_a_problem(
    gateway: Gateway, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    thread = await worker.thread()
    for url, origin, status in (
        (address(gateway, "nobody"), None, 404),
        (address(gateway, thread, "?last_id=x"), None, 400),
        (address(gateway, thread, f"?run_id={thread}.00"), None, 404),
        (address(gateway, thread), "https://evil.test", 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, origin=origin):  # type: ignore[arg-type]  # a NewType of str
                pass
        assert refused.value.response.status_code == status
        body, headers = json.loads(refused.value.response.body), refused.value.response.headers
        assert body["status"] == status
        assert headers["X-Request-ID"] == body["request_id"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    told = [record.args[2] for record in caplog.records if record.name == "gateway.access" and record.args]  # type: ignore[index]
    assert told == [404, 400, 404, 403]
    assert not [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert gateway.services.hub.streams == 0


async def test_socket_that_is_left_gives_its_place_back(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    for _ in range(5):
        async with connect(address(gateway, thread)) as socket:
            await take(socket, "keep_alive")
    async with asyncio.timeout(5):
        while gateway.services.hub.streams:  # noqa: ASYNC110  # the server's side of the close
            await asyncio.sleep(0.02)
