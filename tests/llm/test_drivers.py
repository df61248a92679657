"""What every driver does over every wire: streams, ends, failures, accounts."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tests.llm.asking import BASH, collect, completed, joined
from tests.llm.conftest import KEY, Connect, Line, connected
from tests.servers.answers import Answer, Call
from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded, ModelRefused
from workflow.core.events import Usage
from workflow.core.redact import Redactor
from workflow.llm.anthropic_wire import AnthropicWire
from workflow.llm.base import Completion, ModelEvent, ModelRequest, SystemMessage, UserMessage
from workflow.llm.litellm import LiteLLM

# LiteLLM imports parts of itself during calls, and warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]

LS = Call("bash", '{"command": "ls"}')
PWD = Call("bash", '{"command": "pwd"}')


def question(line: Line, text: str = "What is here?", **changes: Any) -> ModelRequest:
    request = ModelRequest(
        model=line.model,
        messages=(SystemMessage("You are an agent."), UserMessage(text)),
        tools=(BASH,),
        max_output_tokens=1000,
        timeout_s=10,
        idle_timeout_s=5,
    )
    return replace(request, **changes)


async def warmed(line: Line) -> Line:
    """The same line after a first call: LiteLLM imports much of itself then, longer than these tests wait."""
    await completed(line.llm.stream(question(line)))
    return line


async def failure(line: Line, request: ModelRequest) -> tuple[ModelError, list[ModelEvent]]:
    """The error that a stream ends with, and what came before it."""
    pieces: list[ModelEvent] = []
    try:
        async for piece in line.llm.stream(request):
            pieces.append(piece)
    except ModelError as error:
        return error, pieces
    raise AssertionError(f"no error after {pieces[-1]}")


async def test_text_reasoning_and_parallel_calls_stream_and_add_up(connect: Connect) -> None:
    line = await connect([Answer(text="Let me look around here.", reasoning="Hmm, files?", calls=(LS, PWD))])
    pieces = await collect(line.llm.stream(question(line)))
    answer = pieces[-1]
    assert isinstance(answer, Completion)
    assert (answer.text, answer.reasoning) == ("Let me look around here.", "Hmm, files?")
    assert [(call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [
        ("bash", {"command": "ls"}),
        ("bash", {"command": "pwd"}),
    ]
    assert len({call.id for call in answer.tool_calls}) == 2
    assert joined(pieces) == (answer.text, answer.reasoning, [(c.id, c.name, c.arguments) for c in answer.tool_calls])
    assert answer.finish_reason == "tool_calls"
    assert answer.model == line.model
    assert answer.usage.output_tokens > 0
    assert answer.usage.tokens > answer.usage.output_tokens
    assert not answer.usage_is_estimate
    assert len(pieces) > 8


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_arguments_and_bytes_cut_anywhere_arrive_whole(connect: Connect, size: int) -> None:
    text = 'Grüße, 世界 👋\r\nand "quotes" \\n'
    arguments = json.dumps({"command": f"echo '{text}'"}, ensure_ascii=False)
    answer = Answer(
        text=text, calls=(Call("bash", arguments),), argument_chars=size, text_chars=size, write_bytes=size * 7
    )
    line = await connect([answer])
    got = await completed(line.llm.stream(question(line)))
    assert got.text == text
    assert json.loads(got.tool_calls[0].arguments) == json.loads(arguments)


async def test_arguments_that_are_no_json_come_through_unmended(connect: Connect) -> None:
    line = await connect([Answer(calls=(Call("bash", '{"command": "rm -rf ./build && ma'),))])
    got = await completed(line.llm.stream(question(line)))
    assert got.tool_calls[0].arguments == '{"command": "rm -rf ./build && ma'


async def test_an_answer_cut_by_the_token_limit_says_length(connect: Connect, way: str) -> None:
    finish = {"openai": "length", "anthropic": "max_tokens", "responses": "max_output_tokens"}[way.split("-")[1]]
    line = await connect([Answer(text="half an ans", calls=(Call("bash", '{"comm'),), finish=finish)])
    got = await completed(line.llm.stream(question(line)))
    assert got.finish_reason == "length"


async def test_a_refusal_is_told_apart_from_an_answer(connect: Connect, way: str) -> None:
    finish = "refusal" if way.endswith("anthropic") else "content_filter"
    line = await connect([Answer(text="I cannot", finish=finish)])
    assert (await completed(line.llm.stream(question(line)))).finish_reason == "refusal"


async def test_rate_limit_names_how_long_to_wait_and_is_asked_only_once(connect: Connect) -> None:
    answer = Answer(status=429, error="slow down", error_type="rate_limit_error", headers={"Retry-After": "7"})
    line = await connect([answer])
    error, pieces = await failure(line, question(line))
    assert isinstance(error, ModelOverloaded)
    assert error.retry_after_s == 7
    assert "usage" not in error.details
    assert pieces == []
    assert len(line.server.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_server_errors_are_worth_another_try_which_is_not_theirs_to_make(connect: Connect, status: int) -> None:
    line = await connect([Answer(status=status, raw_body="<html><h1>Bad gateway</h1></html>")])
    error, _ = await failure(line, question(line))
    assert isinstance(error, ModelOverloaded)
    assert len(line.server.requests) == 1


async def test_a_refused_key_is_final_and_never_repeated_in_the_message(connect: Connect) -> None:
    wrong = "wrong-key-4711-4711-4711"
    line = await connect(api_key=wrong)
    error, _ = await failure(line, question(line))
    assert isinstance(error, ModelRefused)
    assert wrong not in f"{error} {error.details}"
    assert "Incorrect API key" in error.message


async def test_a_prompt_that_is_too_long_is_told_apart(connect: Connect) -> None:
    words = "prompt is too long: 210000 tokens > 200000 maximum context length"
    line = await connect([Answer(status=400, error=words, error_type="invalid_request_error")])
    error, _ = await failure(line, question(line))
    assert isinstance(error, ContextOverflow)


async def test_another_bad_request_is_final(connect: Connect) -> None:
    line = await connect([Answer(status=400, error="temperature: not supported", error_type="invalid_request_error")])
    error, _ = await failure(line, question(line))
    assert isinstance(error, ModelRefused)
    assert "temperature: not supported" in error.message


async def test_an_account_without_money_is_final(connect: Connect) -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    line = await connect([Answer(status=429, error=words, error_type="insufficient_quota")])
    error, _ = await failure(line, question(line))
    assert isinstance(error, ModelRefused)


async def test_a_server_that_is_not_there_is_worth_another_try(way: str) -> None:
    driver, wire = way.split("-")
    llm = connected(driver, wire, "http://127.0.0.1:9", KEY)  # the discard port: nobody listens
    request = ModelRequest(model="m", messages=(SystemMessage("s"), UserMessage("u")), timeout_s=5)
    try:
        with pytest.raises(ModelOverloaded):
            await collect(llm.stream(request))
    finally:
        await llm.close()


async def test_a_silent_stream_is_given_up_and_its_tokens_are_counted(connect: Connect) -> None:
    line = await warmed(await connect([Answer(text="first"), Answer(text="x" * 400, stall_after=20)]))
    error, pieces = await failure(line, question(line, idle_timeout_s=0.3))
    assert isinstance(error, ModelOverloaded)
    assert "silent for 0.3 s" in error.message
    assert pieces != []
    _counted(error)
    await asyncio.wait_for(line.server.left.wait(), 2)


async def test_a_server_that_never_begins_to_answer_is_given_up(connect: Connect) -> None:
    line = await warmed(await connect([Answer(text="first"), Answer(text="x", stall_after=0)]))
    error, _ = await failure(line, question(line, idle_timeout_s=0.3))
    assert isinstance(error, ModelOverloaded)
    await asyncio.wait_for(line.server.left.wait(), 2)


async def test_a_stream_without_end_is_cut_by_the_total_time(connect: Connect) -> None:
    line = await warmed(await connect([Answer(text="first"), Answer(text="x" * 8000, delay_s=0.02)]))
    error, pieces = await failure(line, question(line, timeout_s=0.6, idle_timeout_s=0.5))
    assert isinstance(error, ModelOverloaded)
    assert "took longer than 0.6 s" in error.message
    assert pieces != []
    await asyncio.wait_for(line.server.left.wait(), 2)


@pytest.mark.parametrize("fault", ["drop_after", "end_after", "error_after", "garbage_after"])
async def test_a_stream_that_breaks_midway_is_worth_another_try_and_is_counted(connect: Connect, fault: str) -> None:
    answer = Answer(text="a long answer " * 20, error="Overloaded", error_type="overloaded_error")
    broken = replace(answer, **{fault: 20})  # type: ignore[arg-type]  # one of four fields, all int | None
    line = await connect([broken])
    error, pieces = await failure(line, question(line))
    assert isinstance(error, ModelOverloaded)
    assert joined(pieces)[0].startswith("a long answer")
    _counted(error)


@pytest.mark.parametrize("garbage", ["[" * 50_000, "[]", "null", "7", '{"type": 1, "choices": 7}', ""])
async def test_whatever_a_server_sends_is_worth_another_try(connect: Connect, garbage: str) -> None:
    line = await connect([Answer(text="hi", garbage_after=0, garbage=garbage)])
    error, _ = await failure(line, question(line))
    assert isinstance(error, ModelOverloaded)


def _counted(error: ModelError) -> None:
    usage = error.details["usage"]
    assert isinstance(usage, Usage)
    assert usage.output_tokens > 0
    assert usage.tokens > usage.output_tokens


async def test_usage_is_estimated_when_the_provider_sends_none(connect: Connect) -> None:
    line = await connect([Answer(text="x" * 400, no_usage=True)])
    got = await completed(line.llm.stream(question(line)))
    assert got.usage.output_tokens >= 50
    assert got.usage.tokens > got.usage.output_tokens


async def test_closing_the_stream_closes_the_connection_at_once(connect: Connect) -> None:
    line = await connect([Answer(text="x" * 4000, delay_s=0.02)])
    stream = line.llm.stream(question(line))
    assert isinstance(stream, AsyncGenerator)
    async with aclosing(stream):
        await anext(stream)
    await asyncio.wait_for(line.server.left.wait(), 2)
    assert line.server.connections == 0


@pytest.mark.parametrize("events", [0, 20])
async def test_cancelling_the_caller_closes_the_connection_at_once(connect: Connect, events: int) -> None:
    line = await warmed(await connect([Answer(text="first"), Answer(text="x" * 400, stall_after=events)]))
    task = asyncio.create_task(collect(line.llm.stream(question(line))))
    await asyncio.wait_for(line.server.stalled.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(line.server.left.wait(), 2)


async def test_one_connection_serves_one_call_after_the_other(connect: Connect) -> None:
    line = await connect([Answer(text="one"), Answer(text="two")])
    assert (await completed(line.llm.stream(question(line)))).text == "one"
    assert (await completed(line.llm.stream(question(line)))).text == "two"
    assert not line.server.left.is_set()


async def test_many_streams_at_once_do_not_mix(connect: Connect) -> None:
    def echo(body: dict[str, Any]) -> Answer:
        content = body["input" if "input" in body else "messages"][-1]["content"]
        return Answer(text=(content if isinstance(content, str) else content[-1]["text"]) * 10)

    line = await connect(echo)
    asked = [f"number {number}." for number in range(40)]
    answers = await asyncio.gather(*(completed(line.llm.stream(question(line, text))) for text in asked))
    assert [answer.text for answer in answers] == [text * 10 for text in asked]


async def test_limits_and_tools_reach_the_server(connect: Connect) -> None:
    line = await connect([Answer(text="ok"), Answer(text="ok")])
    await completed(line.llm.stream(question(line, temperature=0.5)))
    await completed(line.llm.stream(question(line, allow_calls=False)))
    first, second = (received.body for received in line.server.requests)
    assert first["max_output_tokens" if line.wire == "responses" else "max_tokens"] == 1000
    assert first.get("temperature") == (0.5 if line.wire == "openai" else None)  # the two others refuse it
    assert first["stream"] is True
    assert [tool.get("name") or tool["function"]["name"] for tool in first["tools"]] == ["bash"]
    assert first.get("tool_choice") in (None, "auto", {"type": "auto"})
    assert second["tool_choice"] == ({"type": "none"} if line.wire == "anthropic" else "none")
    assert second["tools"] == first["tools"]


@pytest.mark.parametrize(
    "way", ["direct-openai", "direct-anthropic", "direct-responses", "litellm-anthropic"], indirect=True
)
async def test_effort_reaches_the_server(connect: Connect) -> None:
    line = await connect()
    await completed(line.llm.stream(question(line, reasoning_effort="low")))
    body = line.server.requests[0].body
    said = [body.get("reasoning_effort"), body.get("output_config"), body.get("reasoning")]
    assert [effort for effort in said if effort] in (
        ["low"],
        [{"effort": "low"}],
        [{"effort": "low", "summary": "auto"}],
    )


@pytest.mark.parametrize("way", ["litellm-openai", "litellm-anthropic"], indirect=True)
async def test_warming_up_loads_litellm_and_sends_nothing(connect: Connect) -> None:
    line = await connect()
    assert isinstance(line.llm, LiteLLM)
    await line.llm.warm_up()
    assert line.server.requests == []
    assert (await completed(line.llm.stream(question(line)))).text == "Done."


def test_arguments_that_come_with_the_start_of_a_call_are_not_lost() -> None:
    reader = AnthropicWire().reader(ModelRequest(model="anthropic/x", messages=()), Redactor())
    for index, pieces in enumerate(([], ['{"path": ', '"b"}'])):
        block = {"type": "tool_use", "id": f"t{index}", "name": "ls", "input": {"path": "a"}}
        reader.feed({"type": "content_block_start", "index": index, "content_block": block})
        for piece in pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            reader.feed({"type": "content_block_delta", "index": index, "delta": delta})
        reader.feed({"type": "content_block_stop", "index": index})
    reader.end()
    assert [call.arguments for call in reader.pieces.completion().tool_calls] == ['{"path": "a"}', '{"path": "b"}']
