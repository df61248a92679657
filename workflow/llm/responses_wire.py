"""OpenAI's Responses API, without state on the server: the only way its newer models take tools."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from workflow.core.events import Usage
from workflow.llm.base import AssistantMessage, ChatMessage, Image, ModelEvent, ModelRequest, SystemMessage, UserMessage
from workflow.llm.messages import (
    NO_OUTPUT,
    NO_TEXT,
    Exchange,
    arranged,
    base64_of,
    filled,
    in_order,
    order_block,
    own_opaque,
    valid_arguments,
    wire_call_id,
    wire_tool_name,
)
from workflow.llm.pieces import Pieces, count
from workflow.llm.provider_errors import from_stream
from workflow.llm.wire import Target

PREFIX = "responses/"
"""LiteLLM's way to ask for this API by name: `openai/responses/<model>`."""

_MAX_ID_CHARS = 64
_REASONING_MODEL = re.compile(r"(?:gpt-[5-9]|o\d)")
_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "refusal"}


class ResponsesWire:
    """Writes requests to `<base_url>/responses`."""

    def url(self, target: Target) -> str:
        return f"{target.base_url.rstrip('/')}/responses"

    def headers(self, target: Target) -> dict[str, str]:
        return {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}

    def body(self, request: ModelRequest, target: Target) -> dict[str, Any]:
        model = target.model.removeprefix(PREFIX)
        body: dict[str, Any] = {
            "model": model,
            "input": responses_input(request.messages, request.model),
            "stream": True,
            "store": False,
        }
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": False,
                }
                for tool in request.tools
            ]
            if not request.allow_calls:
                body["tool_choice"] = "none"
        if request.max_output_tokens is not None:
            body["max_output_tokens"] = request.max_output_tokens
        if _REASONING_MODEL.match(model):
            body["include"] = ["reasoning.encrypted_content"]
            if request.reasoning_effort is not None:
                # A summary is refused to accounts that are not verified, so it is not asked for by default.
                body["reasoning"] = {"effort": request.reasoning_effort, "summary": "auto"}
        elif request.temperature is not None:  # refused by reasoning models
            body["temperature"] = request.temperature
        return body

    def reader(self, request: ModelRequest, redact: Callable[[str], str]) -> "ResponsesReader":
        return ResponsesReader(request, redact)


def responses_input(messages: Iterable[ChatMessage], model: str) -> list[dict[str, Any]]:
    """The transcript as input items."""
    items: list[dict[str, Any]] = []
    for item in arranged(messages):
        if isinstance(item, SystemMessage):
            items.append({"role": "system", "content": [_text(filled(item.text, NO_TEXT))]})
        elif isinstance(item, UserMessage):
            parts = [_text(filled(item.text, NO_TEXT)), *map(_image, item.images)]
            items.append({"role": "user", "content": parts})
        else:
            items += _exchange(item, model)
    return items


def _exchange(item: Exchange, model: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for result in item.results:
        text = filled(result.text, NO_OUTPUT)
        output = [_text(text), *map(_image, result.images)] if result.images else text
        call_id = wire_call_id(result.call_id, max_chars=_MAX_ID_CHARS)
        results.append({"type": "function_call_output", "call_id": call_id, "output": output})
    return [*_said(item.said, model), *results]


def _said(said: AssistantMessage, model: str) -> list[dict[str, Any]]:
    opaque = own_opaque(said, model)
    calls = [
        {
            "type": "function_call",
            "call_id": wire_call_id(call.id, max_chars=_MAX_ID_CHARS),
            "name": wire_tool_name(call.name),
            "arguments": valid_arguments(call),
        }
        for call in said.tool_calls
    ]
    # Reasoning that nothing follows is refused.
    follows = bool(said.text.strip() or calls)
    thinking = [block for block in opaque if block.get("type") == "reasoning" and follows]
    return in_order(said, opaque, thinking=thinking, text=_output, calls=calls) or [_output(NO_TEXT)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _output(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


def _image(image: Image) -> dict[str, Any]:
    return {"type": "input_image", "image_url": f"data:{image.media_type};base64,{base64_of(image)}"}


class ResponsesReader:
    """Reads `response.*` events."""

    def __init__(self, request: ModelRequest, redact: Callable[[str], str]) -> None:
        self.pieces = Pieces(request)
        self.done = False
        self._redact = redact
        self._order: list[str | int] = []
        self._argued: set[int] = set()
        """Places of the calls whose arguments came as deltas."""

    def feed(self, payload: dict[str, Any]) -> list[ModelEvent]:
        match payload.get("type"):
            case "response.output_text.delta":
                return self._text(payload["delta"])
            case "response.refusal.delta":
                self.pieces.finish_reason = "refusal"
                return self._text(payload["delta"])
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return [self.pieces.add_reasoning(payload["delta"])]
            case "response.reasoning_summary_part.added" if payload.get("summary_index"):
                return [self.pieces.add_reasoning("\n\n")]
            case "response.function_call_arguments.delta":
                self._argued.add(payload["output_index"])
                return [self.pieces.add_call(payload["output_index"], arguments=payload["delta"])]
            case "response.output_item.added":
                return self._begun(payload["output_index"], payload["item"])
            case "response.output_item.done":
                return self._ended(payload["output_index"], payload["item"])
            case "response.completed" | "response.incomplete":
                self._finish(payload["response"])
            case "response.failed":
                raise from_stream(payload["response"].get("error"), self._redact)
            case "error":
                error = payload.get("error") or {"code": payload.get("code"), "message": payload.get("message")}
                raise from_stream(error, self._redact)
        return []

    def end(self) -> None:
        """Tells the order when it is not the usual one."""
        if any(block["type"] == "reasoning" for block in self.pieces.opaque):
            self.pieces.opaque += order_block(self._order)

    def _begun(self, index: int, item: dict[str, Any]) -> list[ModelEvent]:
        match item["type"]:
            case "function_call":
                self._order.append("call")
                return [self.pieces.add_call(index, call_id=item["call_id"], name=item["name"])]
            case "reasoning":
                self._order.append("thinking")
            case "message":
                self._order.append(0)
        return []

    def _ended(self, index: int, item: dict[str, Any]) -> list[ModelEvent]:
        if item["type"] == "function_call" and index not in self._argued and item.get("arguments"):
            return [self.pieces.add_call(index, arguments=item["arguments"])]
        if item["type"] == "reasoning" and item.get("encrypted_content"):
            # Without its id: an id is looked up on the server, which keeps nothing.
            kept = {"type": "reasoning", "summary": item.get("summary") or []}
            self.pieces.opaque.append({**kept, "encrypted_content": item["encrypted_content"]})
        return []

    def _text(self, text: str) -> list[ModelEvent]:
        if not self._order or not isinstance(self._order[-1], int):
            self._order.append(0)
        self._order[-1] = int(self._order[-1]) + len(text)
        return [self.pieces.add_text(text)]

    def _finish(self, response: dict[str, Any]) -> None:
        self.done = True
        if response.get("usage"):
            self.pieces.usage = responses_usage(response["usage"])
        reason = (response.get("incomplete_details") or {}).get("reason", "")
        self.pieces.finish_reason = _INCOMPLETE.get(reason) or self.pieces.finish_reason or "stop"


def responses_usage(usage: dict[str, Any]) -> Usage:
    """The four classes: cached and newly cached tokens are counted within `input_tokens`."""
    details = usage.get("input_tokens_details") or {}
    read, write = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
    return Usage(
        input_tokens=max(0, count(usage.get("input_tokens")) - read - write),
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=count(usage.get("output_tokens")),
    )
