"""A transcript as Anthropic messages: results of one turn in one user message, signed reasoning word for word."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from workflow.llm.base import (
    AssistantMessage,
    ChatMessage,
    Image,
    ModelRequest,
    SystemMessage,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from workflow.llm.messages import (
    NO_OUTPUT,
    NO_TEXT,
    Exchange,
    arranged,
    base64_of,
    filled,
    in_order,
    object_arguments,
    own_opaque,
    wire_call_id,
    wire_tool_name,
)

_MAX_ID_CHARS = 64
_MARK = {"type": "ephemeral"}


@dataclass(slots=True)
class Prompt:
    """The parts of a request body that the transcript fills."""

    system: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)


def anthropic_prompt(request: ModelRequest) -> Prompt:
    """System, messages and tools of a request, with at most four cache breakpoints.

    They stand at the end of the tools, of the first system text, and of the last two user turns: the older of
    those is where the previous call wrote its cache, so it is found however many blocks came since.
    """
    prompt = Prompt(tools=_tools(request))
    for item in arranged(request.messages):
        if isinstance(item, SystemMessage):
            prompt.system.append(_text(filled(item.text, NO_TEXT)))
        elif isinstance(item, UserMessage):
            _add(prompt.messages, "user", [_text(filled(item.text, NO_TEXT)), *map(_image, item.images)])
        else:
            _add_exchange(prompt.messages, item, request.model)
    if request.cache_breakpoints:
        _mark(prompt)
    return prompt


def _add_exchange(messages: list[dict[str, Any]], item: Exchange, model: str) -> None:
    _add(messages, "assistant", _said(item.said, model))
    if item.results:
        _add(messages, "user", [_result(result) for result in item.results])


def _add(messages: list[dict[str, Any]], role: str, blocks: list[dict[str, Any]]) -> None:
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def _said(said: AssistantMessage, model: str) -> list[dict[str, Any]]:
    opaque = own_opaque(said, model)
    signed = [block for block in opaque if block.get("type") in ("thinking", "redacted_thinking")]
    calls = [
        {
            "type": "tool_use",
            "id": wire_call_id(call.id, max_chars=_MAX_ID_CHARS),
            "name": wire_tool_name(call.name),
            "input": object_arguments(call),
        }
        for call in said.tool_calls
    ]
    return in_order(said, opaque, thinking=signed, text=_text, calls=calls) or [_text(NO_TEXT)]


def _result(result: ToolMessage) -> dict[str, Any]:
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": wire_call_id(result.call_id, max_chars=_MAX_ID_CHARS),
        "content": [_text(filled(result.text, NO_OUTPUT)), *map(_image, result.images)],
    }
    if not result.ok:
        block["is_error"] = True
    return block


def _tools(request: ModelRequest) -> list[dict[str, Any]]:
    """The tools on offer; when there are none, those that the transcript called: the API wants them declared."""
    tools = request.tools or tuple(_called(request.messages))
    return [{"name": tool.name, "description": tool.description, "input_schema": tool.parameters} for tool in tools]


def _called(messages: Iterable[ChatMessage]) -> list[ToolSpec]:
    names = {
        wire_tool_name(call.name) for said in messages if isinstance(said, AssistantMessage) for call in said.tool_calls
    }
    return [ToolSpec(name, "Not on offer now.", {"type": "object"}) for name in sorted(names)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: Image) -> dict[str, Any]:
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": image.media_type, "data": base64_of(image)},
    }


def _mark(prompt: Prompt) -> None:
    if prompt.tools:
        prompt.tools[-1]["cache_control"] = _MARK
    if prompt.system:
        prompt.system[0]["cache_control"] = _MARK
    turns = [message for message in prompt.messages if message["role"] == "user"]
    for message in turns[-2:]:
        message["content"][-1]["cache_control"] = _MARK
