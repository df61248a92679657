"""A transcript as OpenAI chat messages. LiteLLM takes the same shape for every provider."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from workflow.core.ids import CallId
from workflow.core.texts import sound
from workflow.llm.base import AssistantMessage, ChatMessage, Image, SystemMessage, ToolSpec, UserMessage
from workflow.llm.messages import (
    NO_OUTPUT,
    NO_TEXT,
    Exchange,
    arranged,
    base64_of,
    filled,
    is_own,
    own_opaque,
    valid_arguments,
    wire_call_id,
    wire_tool_name,
)

REASONING_FIELD = "openai.reasoning"
"""Type of the opaque block that names the field a server's reasoning came in, e.g. `reasoning_content`."""
CALL_EXTRA = "openai.call_extra"
"""Type of the opaque block with a call's `extra_content` (Gemini's signature), which must go back."""

_MAX_ID_CHARS = 40  # OpenAI refuses longer ones from elsewhere
_MARK = {"type": "ephemeral"}


@dataclass(frozen=True, slots=True)
class OpenAiStyle:
    """What differs between readers of this shape."""

    cache_marks: bool = False
    """Put Anthropic's cache_control on the prefix; LiteLLM passes it on."""
    thinking_blocks: bool = False
    """Send signed reasoning as LiteLLM's `thinking_blocks`."""
    raw_ids: bool = False
    """Send every call id unmodified: LiteLLM adapts them itself and reads some back."""


def openai_messages(messages: Iterable[ChatMessage], model: str, style: OpenAiStyle) -> list[dict[str, Any]]:
    """The transcript for `model`; pictures of tool results follow them in a user message."""
    rendered: list[dict[str, Any]] = []
    for item in arranged(messages):
        if isinstance(item, SystemMessage):
            rendered.append({"role": "system", "content": filled(item.text, NO_TEXT)})
        elif isinstance(item, UserMessage):
            _add_user(rendered, filled(item.text, NO_TEXT), item.images)
        else:
            rendered += _exchange(item, model, style)
            for result in item.results:
                if result.images:
                    _add_user(rendered, f"Pictures from {result.name}:", result.images)
    if style.cache_marks:
        _mark(rendered)
    return rendered


def openai_tools(tools: tuple[ToolSpec, ...], *, cache_mark: bool = False) -> list[dict[str, Any]]:
    """The tools as functions; the last one marked as the end of a cached prefix on request."""
    rendered: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]
    if rendered and cache_mark:
        rendered[-1]["cache_control"] = _MARK
    return rendered


def _exchange(item: Exchange, model: str, style: OpenAiStyle) -> list[dict[str, Any]]:
    own = style.raw_ids or is_own(item.said, model)
    ids = {
        call.id: str(call.id) if own else wire_call_id(call.id, max_chars=_MAX_ID_CHARS)
        for call in item.said.tool_calls
    }
    results = [
        {"role": "tool", "tool_call_id": ids[result.call_id], "content": filled(result.text, NO_OUTPUT)}
        for result in item.results
    ]
    return [_said(item.said, ids, model, style), *results]


def _said(said: AssistantMessage, ids: dict[CallId, str], model: str, style: OpenAiStyle) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": sound(said.text) or None}
    if not said.tool_calls:
        message["content"] = filled(said.text, NO_TEXT)
    opaque = own_opaque(said, model)
    extras = {block["id"]: block["extra_content"] for block in opaque if block.get("type") == CALL_EXTRA}
    if said.tool_calls:
        message["tool_calls"] = [
            {
                "id": ids[call.id],
                "type": "function",
                "function": {"name": wire_tool_name(call.name), "arguments": valid_arguments(call)},
                **({"extra_content": extras[call.id]} if call.id in extras else {}),
            }
            for call in said.tool_calls
        ]
    for block in opaque:
        if block.get("type") == REASONING_FIELD and said.reasoning:
            message[block["field"]] = said.reasoning
    signed = [block for block in opaque if block.get("type") in ("thinking", "redacted_thinking")]
    if style.thinking_blocks and signed:
        message["thinking_blocks"] = signed
    return message


def _add_user(rendered: list[dict[str, Any]], text: str, images: tuple[Image, ...]) -> None:
    """Adds to the user message at the end, or a new one: some chat templates demand that roles alternate."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for image in images:
        url = f"data:{image.media_type};base64,{base64_of(image)}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    if rendered and rendered[-1]["role"] == "user":
        parts = _parts(rendered.pop()["content"]) + parts
    rendered.append({"role": "user", "content": text if len(parts) == 1 else parts})


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _mark(rendered: list[dict[str, Any]]) -> None:
    """Marks the ends of the system prompt and of the last two user turns (a user message or a batch of results)."""
    ends = [
        place
        for place, message in enumerate(rendered)
        if message["role"] in ("user", "tool")
        and (place + 1 == len(rendered) or rendered[place + 1]["role"] == "assistant")
    ]
    firsts = [place for place, message in enumerate(rendered) if message["role"] == "system"][:1]
    for place in (*firsts, *ends[-2:]):
        message = rendered[place]
        if message["role"] == "tool":
            message["cache_control"] = _MARK
        else:
            parts = _parts(message["content"])
            message["content"] = [*parts[:-1], {**parts[-1], "cache_control": _MARK}]
