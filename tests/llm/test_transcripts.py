"""Transcripts as providers get them: whatever was cancelled, steered or compacted, the request is accepted.

The local servers make the checks of the real ones, so a transcript that would poison a thread is refused here too.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.llm.asking import BASH, completed
from tests.llm.conftest import MODELS, SERVERS, WIRES, Connect, Line
from tests.servers.answers import Answer, Call
from tests.servers.anthropic_server import prompt_blocks
from workflow.core.events import ToolCall
from workflow.core.ids import CallId
from workflow.llm.base import (
    AssistantMessage,
    ChatMessage,
    Completion,
    Image,
    ModelRequest,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from workflow.llm.messages import GO_ON, INTERRUPTED, Exchange, arranged
from workflow.llm.wire import Target

# LiteLLM imports parts of itself during calls, and warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]

SYSTEM = SystemMessage("You are an agent.")
TASK = UserMessage("Do it.")
PNG = Image("image/png", b"\x89PNG\r\n\x1a\n")


def call(call_id: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(id=CallId(call_id), name="bash", arguments=arguments)


def result(call_id: str, text: str = "ok", **fields: Any) -> ToolMessage:
    return ToolMessage(CallId(call_id), "bash", text, **fields)


def request(line: Line, *messages: ChatMessage, **fields: Any) -> ModelRequest:
    return ModelRequest(
        model=line.model, messages=(SYSTEM, *messages), tools=(BASH,), timeout_s=10, idle_timeout_s=10, **fields
    )


async def sent(line: Line, *messages: ChatMessage, **fields: Any) -> dict[str, Any]:
    """The body that a request of these messages becomes; the server accepted it."""
    await completed(line.llm.stream(request(line, *messages, **fields)))
    return line.server.requests[-1].body


ODD_ID = "call_0__thought__" + "U0lH+/=" * 40

MADE_UP = ("web.search! ü", "", "x" * 300)

HISTORIES: dict[str, tuple[ChatMessage, ...]] = {
    "a call without its result": (TASK, AssistantMessage("", (call("a"), call("b"))), result("b")),
    "a result without its call": (TASK, result("gone", "left over"), AssistantMessage("Done."), UserMessage("More.")),
    "results out of order": (TASK, AssistantMessage("x", (call("a"), call("b"))), result("b"), result("a")),
    "steering among the results": (
        TASK,
        AssistantMessage("x", (call("a"), call("b"))),
        result("a"),
        UserMessage("wait"),
        result("b"),
    ),
    "a result twice": (TASK, AssistantMessage("x", (call("a"),)), result("a"), result("a", "again")),
    "empty texts": (UserMessage(""), AssistantMessage("", (call("a"),)), result("a", ""), AssistantMessage("  "), TASK),
    "half a surrogate pair": (
        UserMessage("a\ud83d"),
        AssistantMessage("b\ude00", (call("a"),)),
        result("a", "c\udcff"),
    ),
    "an answer of nothing": (TASK, AssistantMessage(""), UserMessage("Go on.")),
    "ids of another provider": (TASK, AssistantMessage("x", (call(ODD_ID),), model="gemini/x"), result(ODD_ID)),
    "arguments that are no object": (
        TASK,
        AssistantMessage("x", (call("a", "[1]"), call("b", '{"c'), call("c", ""))),
        result("a"),
        result("b"),
        result("c"),
    ),
    "reasoning of another provider": (
        TASK,
        AssistantMessage(
            "x",
            (call("a"),),
            reasoning="hm",
            opaque=(
                {"type": "thinking", "thinking": "hm", "signature": "not of here"},
                {"type": "openai.reasoning", "field": "reasoning_content"},
            ),
            model="elsewhere/model",
        ),
        result("a"),
    ),
    "nothing but a system prompt and an answer": (AssistantMessage("I began.", (call("a"),)), result("a")),
    "pictures": (UserMessage("Look.", (PNG,)), AssistantMessage("", (call("a"),)), result("a", "shot", images=(PNG,))),
    "tools that nobody has": (
        TASK,
        AssistantMessage("x", tuple(ToolCall(id=CallId(str(n)), name=name) for n, name in enumerate(MADE_UP))),
        *(ToolMessage(CallId(str(n)), name, "no such tool") for n, name in enumerate(MADE_UP)),
    ),
    "a failed call": (TASK, AssistantMessage("x", (call("a"),)), result("a", "no such file", ok=False)),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
async def test_provider_accepts(connect: Connect, history: tuple[ChatMessage, ...]) -> None:
    line = await connect()
    answer = await completed(line.llm.stream(request(line, *history)))
    assert answer.text == "Done."


async def test_results_of_one_turn_come_in_call_order_and_in_one_message(connect: Connect) -> None:
    line = await connect()
    body = await sent(
        line,
        TASK,
        AssistantMessage("x", (call("a"), call("b"), call("c"))),
        result("c", "third"),
        UserMessage("please hurry"),
        result("a", "first"),
    )
    match line.wire:
        case "openai":
            assert [message["role"] for message in body["messages"]][-4:] == ["tool", "tool", "tool", "user"]
            texts = [message["content"] for message in body["messages"][-4:]]
        case "anthropic":
            assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
            texts = [block.get("content") or block["text"] for block in body["messages"][-1]["content"]]
        case _:
            texts = [item.get("output") or item["content"] for item in body["input"][-4:]]
    texts = [text if isinstance(text, str) else text[0]["text"] for text in texts]
    assert texts == ["first", INTERRUPTED, "third", "please hurry"]


@pytest.mark.parametrize("way", ["direct-anthropic", "litellm-anthropic"], indirect=True)
async def test_signed_reasoning_goes_back_word_for_word_through_three_turns(connect: Connect) -> None:
    answers = [
        Answer(reasoning=f"I think, step {n}.", redacted=f"secret{n}", text="", calls=(Call("bash"),)) for n in (1, 2)
    ]
    line = await connect([*answers, Answer(text="Done.")])
    messages: list[ChatMessage] = [TASK]
    for _ in range(3):
        answer = await completed(line.llm.stream(request(line, *messages, reasoning_effort="low")))
        messages.append(_as_message(answer))
        messages += [result(tool_call.id) for tool_call in answer.tool_calls]
    assert answer.text == "Done."
    blocks = prompt_blocks(line.server.requests[-1].body)
    # The server refuses a block whose signature does not fit its text.
    assert [block["thinking"] for block in blocks if block.get("type") == "thinking"] == [
        "I think, step 1.",
        "I think, step 2.",
    ]
    assert [block["data"] for block in blocks if block.get("type") == "redacted_thinking"] == ["secret1", "secret2"]


@pytest.mark.parametrize("way", ["direct-openai"], indirect=True)
async def test_plain_reasoning_goes_back_to_the_server_that_sent_it(connect: Connect) -> None:
    line = await connect([Answer(reasoning="hm", calls=(Call("bash"),)), Answer(text="Done.")])
    first = await completed(line.llm.stream(request(line, TASK)))
    body = await sent(line, TASK, _as_message(first), result(first.tool_calls[0].id))
    assert body["messages"][2]["reasoning_content"] == "hm"


@pytest.mark.parametrize("way", ["direct-responses"], indirect=True)
async def test_encrypted_reasoning_goes_back_without_its_id_and_never_alone(connect: Connect) -> None:
    answers = [
        Answer(reasoning="I think.", calls=(Call("bash"),)),
        Answer(reasoning="Nothing to say."),
        Answer(text="Ok."),
    ]
    line = await connect(answers)
    messages: list[ChatMessage] = [TASK]
    for _ in range(3):
        answer = await completed(line.llm.stream(request(line, *messages)))
        messages += [_as_message(answer), *(result(tool_call.id) for tool_call in answer.tool_calls)]
    assert answer.text == "Ok."
    kinds = [item.get("type", item.get("role")) for item in line.server.requests[-1].body["input"]]
    assert kinds == ["system", "user", "reasoning", "function_call", "function_call_output", "assistant", "user"]


def _as_message(answer: Completion) -> AssistantMessage:
    return AssistantMessage(answer.text, answer.tool_calls, answer.reasoning, answer.opaque, answer.model)


async def test_every_call_but_the_first_reads_the_whole_earlier_prompt_from_the_cache(connect: Connect) -> None:
    many = tuple(Call("bash", json.dumps({"command": f"echo {n}"})) for n in range(12))
    line = await connect([Answer(text="x" * 100, calls=many) for _ in range(8)])
    messages: list[ChatMessage] = [TASK]
    before = 0
    for turn in range(8):
        answer = await completed(line.llm.stream(request(line, *messages)))
        usage = answer.usage
        prompt = usage.tokens - usage.output_tokens
        if turn:
            assert usage.cache_read_tokens == before, turn
        before = usage.cache_read_tokens + usage.cache_write_tokens if line.wire == "anthropic" else prompt
        messages.append(_as_message(answer))
        messages += [result(tool_call.id, "y" * 50) for tool_call in answer.tool_calls]
    assert before > 1000


async def test_cache_breakpoints_can_be_left_out(connect: Connect) -> None:
    line = await connect()
    body = await sent(line, TASK, cache_breakpoints=False)
    assert "cache_control" not in json.dumps(body)


async def test_a_picture_reaches_the_model_as_base64(connect: Connect) -> None:
    line = await connect()
    body = json.dumps(await sent(line, *HISTORIES["pictures"]))
    assert body.count("iVBORw0KGgo=") == 2


texts = st.sampled_from(["", " ", "words", "a\ud83d"]) | st.text(max_size=5)
ids = st.sampled_from(["a", "b", "c", ODD_ID])
calls = st.builds(call, ids, st.sampled_from(["{}", "", "[]", '{"a": 1}', '{"a'])).map(lambda made: (made,))
makers = st.sampled_from(["", "openai/x", "anthropic/claude-sonnet-5-5"])
messages = st.one_of(
    st.builds(UserMessage, texts, st.sampled_from([(), (PNG,)])),
    st.builds(AssistantMessage, texts, st.just(()) | calls, model=makers),
    st.builds(result, ids, texts, images=st.sampled_from([(), (PNG,)])),
)


@given(st.lists(messages, max_size=10), st.sampled_from(list(WIRES)))
def test_no_history_at_all_is_refused(history: list[ChatMessage], wire: str) -> None:
    asked = ModelRequest(model=MODELS[wire], messages=(SYSTEM, *history), tools=(BASH,))
    body = WIRES[wire].body(asked, Target("model", "http://127.0.0.1"))
    json.dumps(body, ensure_ascii=False).encode()
    SERVERS[wire]().check(body)


def test_arranging_keeps_what_it_need_not_change() -> None:
    history = (SYSTEM, TASK, said := AssistantMessage("x", (call("a"),)), answer := result("a"), UserMessage("more"))
    assert arranged(history) == [SYSTEM, TASK, Exchange(said, (answer,)), UserMessage("more")]


def test_arranging_begins_and_ends_with_the_user() -> None:
    said = AssistantMessage("x")
    assert arranged([SYSTEM, said]) == [SYSTEM, GO_ON, Exchange(said, ()), GO_ON]
