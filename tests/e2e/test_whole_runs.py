"""A task goes in by HTTP, every step comes out by SSE; in between are a worker, a sandbox and Redis."""

import asyncio
from typing import Any, cast

import httpx
import pytest

from dialtone.client import AsyncClient
from tests.line import Line, bash, script
from tests.until import until
from workflow.core.events import (
    ApprovalRequested,
    Delta,
    Event,
    EventBase,
    Message,
    RunCancelled,
    RunFailed,
    RunFinished,
    ToolResulted,
)
from workflow.core.state import fold


async def play(client: AsyncClient, task: str, **execute: Any) -> tuple[str, list[Any]]:
    """Executes `task` in a new thread; its thread id and all that the stream showed up to the end."""
    thread_id = await client.initiate()
    run = await client.execute(thread_id, task, **execute)
    async with asyncio.timeout(60):
        items = [item async for item in client.stream(thread_id, run_id=run.run_id)]
    return thread_id, items


def facts(items: list[Any]) -> list[Event]:
    return [cast("Event", item) for item in items if isinstance(item, EventBase)]


async def test_the_demo_model_plans_writes_runs_edits_tests_and_sums_up(client: AsyncClient) -> None:
    thread_id, items = await play(client, "Write a program that prints the first ten prime numbers")
    events = facts(items)
    types = [event.type for event in events]
    assert types[:3] == ["run.queued", "run.started", "sandbox.ready"]
    assert types[-1] == "run.finished"
    assert {"plan.updated", "todo.updated", "file.changed", "suggestions", "usage"} <= set(types)
    failed = [e.output for e in events if isinstance(e, ToolResulted) and not e.ok]
    assert failed == []
    seqs = [int(event.id.split("-")[1]) for event in events]
    assert seqs == list(range(1, len(seqs) + 1))
    state = fold(events)
    assert {step.status for step in state.plan} == {"done"}
    assert len(await client.files(thread_id)) > 0


async def test_deltas_add_up_to_the_finished_message(client: AsyncClient) -> None:
    _, items = await play(client, script({"text": "One, two, three, four, five, six, seven.", "delay_ms": 20}))
    message = next(i for i in items if isinstance(i, Message))
    pieces = [i for i in items if isinstance(i, Delta) and i.item == message.item]
    assert len(pieces) > 1
    assert message.text.startswith("".join(piece.text for piece in pieces))
    assert [p.offset for p in pieces] == [sum(len(q.text) for q in pieces[:n]) for n in range(len(pieces))]


async def test_command_output_streams_while_the_command_runs(client: AsyncClient) -> None:
    _, items = await play(client, script(bash("echo first; sleep 0.5; echo second"), {"text": "Done."}))
    result = next(i for i in items if isinstance(i, ToolResulted))
    shown = [i for i in items if isinstance(i, Delta) and i.item == result.call_id and i.kind == "stdout"]
    assert shown[0].text == "first\n", "the rest may come with the finished result"
    assert "first" in result.output
    assert "second" in result.output


async def test_files_and_shell_state_survive_from_run_to_run(client: AsyncClient) -> None:
    thread_id = await client.initiate()
    tasks = [
        script(bash("mkdir -p d && cd d && echo hi > f && export X=7"), {"text": "a"}),
        script(bash("pwd; cat f; echo $X"), {"text": "b"}),
    ]
    for task in tasks:
        run = await client.execute(thread_id, task)
        items = [i async for i in client.stream(thread_id, run_id=run.run_id)]
    result = next(i for i in items if isinstance(i, ToolResulted))
    assert [line for line in ("/workspace/d", "hi", "7") if line in result.output] == ["/workspace/d", "hi", "7"]


async def test_a_run_that_fails_says_why_and_the_thread_goes_on(client: AsyncClient) -> None:
    thread_id = await client.initiate()
    run = await client.execute(thread_id, script({"text": "x", "error": "refused"}))
    items = [i async for i in client.stream(thread_id, run_id=run.run_id)]
    assert isinstance(items[-1], RunFailed)
    assert items[-1].reason == "model_refused"
    again = await client.execute(thread_id, script({"text": "fine"}))
    items = [i async for i in client.stream(thread_id, run_id=again.run_id)]
    assert isinstance(items[-1], RunFinished)


async def test_cancel_in_the_middle_of_a_command_leaves_no_process(client: AsyncClient, line: Line) -> None:
    thread_id = await client.initiate()
    run = await client.execute(thread_id, script(bash("echo up; sleep 987"), {"text": "no"}))
    async with asyncio.timeout(20):
        async for item in client.stream(thread_id, run_id=run.run_id):
            if isinstance(item, Delta) and item.kind == "stdout":
                started = asyncio.get_running_loop().time()
                await client.cancel(run.run_id, reason="enough")
    assert asyncio.get_running_loop().time() - started < 3
    assert (await client.run(run.run_id)).status == "cancelled"
    assert [e.reason async for e in client.events(thread_id) if isinstance(e, RunCancelled)] == ["enough"]

    async def none_left() -> bool:
        return not line.commands("987")

    await until(none_left, timeout_s=3, what="the command to be dead")


async def test_a_second_task_waits_its_turn_and_says_so(client: AsyncClient) -> None:
    thread_id = await client.initiate()
    first = await client.execute(thread_id, script(bash("sleep 0.5"), {"text": "a"}))
    second = await client.execute(thread_id, script({"text": "b"}))
    assert second.position == 1
    stream = client.stream(thread_id, run_id=second.run_id)
    order = [e.run_id async for e in stream if isinstance(e, RunFinished)]
    assert order == [second.run_id]
    assert (await client.run(first.run_id)).status == "finished"


async def test_steering_reaches_the_running_agent(client: AsyncClient) -> None:
    thread_id = await client.initiate()
    run = await client.execute(thread_id, script(bash("sleep 0.7"), {"text": "ok"}))
    await client.steer(run.run_id, "please hurry")
    items = [i async for i in client.stream(thread_id, run_id=run.run_id)]
    assert "please hurry" in [i.text for i in items if isinstance(i, Message) and i.origin == "person"]
    assert items[-1].type == "run.finished"


async def test_a_question_waits_for_its_answer_without_holding_a_worker(client: AsyncClient) -> None:
    ask = {
        "text": "",
        "tool_calls": [{"name": "ask_person", "arguments": {"question": "Tea?", "choices": ["yes", "no"]}}],
    }
    thread_id = await client.initiate()
    run = await client.execute(thread_id, script(ask, {"text": "Thanks."}))
    items = []
    async with asyncio.timeout(20):
        async for item in client.stream(thread_id, run_id=run.run_id):
            items.append(item)
            if isinstance(item, ApprovalRequested):
                await until(lambda: _status_is(client, run.run_id, "waiting"), what="the run to be parked")
                await client.answer(thread_id, item.question_id, "yes")
    types = [item.type for item in items]
    assert types.index("approval.resolved") < types.index("run.resumed")
    assert [i.output for i in items if isinstance(i, ToolResulted)] == ["yes"]
    assert types[-1] == "run.finished"


async def _status_is(client: AsyncClient, run_id: str, status: str) -> bool:
    return (await client.run(run_id)).status == status


async def test_files_go_in_and_out(client: AsyncClient) -> None:
    thread_id = await client.initiate()
    await client.put_file(thread_id, "in/data.bin", content=bytes(range(256)) * 5000)
    run = await client.execute(thread_id, script(bash("wc -c < in/data.bin > out.txt"), {"text": "ok"}))
    _ = [i async for i in client.stream(thread_id, run_id=run.run_id)]
    assert (await client.get_file(thread_id, "out.txt")).strip() == b"1280000"
    assert await client.get_file(thread_id, "in/data.bin") == bytes(range(256)) * 5000


BAD_EXECUTES = [
    (b'{"task": ""}', 422),
    (b'{"task": "   "}', 422),
    (b'{"task": 5}', 422),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[]", 422),
    (b'{"task": "a\\u0000b"}', 422),
    (b'{"task": "x", "nonsense": 1}', 422),
    (b'{"task": "x", "policy": "later"}', 422),
    (b'{"task": "x", "budgets": {"usd": -1}}', 422),
    (b'{"task": "' + b"x" * 1_000_000 + b'"}', 413),
    (b'{"task": "' + b"x" * 3_000_000 + b'"}', 413),
    (b"[" * 100_000 + b"]" * 100_000, 400),
]


@pytest.mark.parametrize(("body", "status"), BAD_EXECUTES, ids=[str(n) for n in range(len(BAD_EXECUTES))])
async def test_bad_bodies_get_a_problem_and_create_nothing(
    client: AsyncClient, line: Line, body: bytes, status: int
) -> None:
    thread_id = await client.initiate()
    async with httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
        answer = await http.post(
            f"/api/agent/{thread_id}/execute", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"title", "status", "detail", "code"} <= set(answer.json())
    assert (await client.runs(thread_id)).items == ()


@pytest.mark.parametrize("thread_id", ["nope", "a" * 64, "%00", "{x}", "..%2f..", "a" * 65])
async def test_unknown_threads_are_404(line: Line, thread_id: str) -> None:
    async with httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
        for answer in (
            await http.get(f"/api/agent/{thread_id}"),
            await http.get(f"/api/agent/{thread_id}/stream"),
            await http.post(f"/api/agent/{thread_id}/execute", json={"task": "x"}),
        ):
            posted_to_no_route = answer.request.method == "POST" and "%2f" in thread_id
            assert answer.status_code == (405 if posted_to_no_route else 404), answer.text
            assert answer.headers["content-type"] == "application/problem+json"


async def test_the_legacy_stream_shows_the_same_log(client: AsyncClient, line: Line) -> None:
    thread_id, items = await play(client, script({"text": "hello"}))
    run_id = facts(items)[0].run_id
    async with httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
        answer = await http.get(
            "/agent/event-stream", params={"flowUuid": thread_id, "flowInputUuid": run_id, "last_id": ""}
        )
    ids = [line.removeprefix("id: ") for line in answer.text.splitlines() if line.startswith("id: ")]
    assert ids == [event.id for event in facts(items)]
