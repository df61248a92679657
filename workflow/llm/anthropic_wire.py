"""Anthropic's Messages API."""

import json
import re
from collections.abc import Callable
from typing import Any

from workflow.core.events import Usage
from workflow.llm.anthropic_messages import anthropic_prompt
from workflow.llm.base import ModelEvent, ModelRequest
from workflow.llm.messages import order_block
from workflow.llm.pieces import Pieces, count
from workflow.llm.provider_errors import from_stream
from workflow.llm.wire import Target

ANTHROPIC_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 16_000  # the API demands a number

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
# Models before 4.6 take a budget of reasoning tokens; later ones decide themselves and take an effort.
_BUDGET_MODEL = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[015])?(?:-\d{8})?$)")
# Models from 4.7 on refuse to be told a temperature.
_SAMPLING_MODEL = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?:-\d{8})?$)|^(?!claude)")
_BUDGETS = {"low": 1_024, "medium": 4_096, "high": 16_384}


class AnthropicWire:
    """Writes requests to `<base_url>/v1/messages`."""

    def url(self, target: Target) -> str:
        return f"{target.base_url.rstrip('/').removesuffix('/v1')}/v1/messages"

    def headers(self, target: Target) -> dict[str, str]:
        return {"anthropic-version": "2023-06-01", **({"x-api-key": target.api_key} if target.api_key else {})}

    def body(self, request: ModelRequest, target: Target) -> dict[str, Any]:
        prompt = anthropic_prompt(request)
        body: dict[str, Any] = {
            "model": target.model,
            "max_tokens": request.max_output_tokens or DEFAULT_MAX_TOKENS,
            "messages": prompt.messages,
            "stream": True,
        }
        if prompt.system:
            body["system"] = prompt.system
        if prompt.tools:
            body["tools"] = prompt.tools
            if not (request.tools and request.allow_calls):
                body["tool_choice"] = {"type": "none"}
        if request.reasoning_effort is not None:
            body |= _reasoning(request.reasoning_effort, target.model, body["max_tokens"])
        elif request.temperature is not None and _SAMPLING_MODEL.search(target.model):
            body["temperature"] = request.temperature
        return body

    def reader(self, request: ModelRequest, redact: Callable[[str], str]) -> "AnthropicReader":
        return AnthropicReader(request, redact)


def _reasoning(effort: str, model: str, max_tokens: int) -> dict[str, Any]:
    if _BUDGET_MODEL.search(model):
        budget = min(_BUDGETS[effort], max_tokens - 1)
        return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget >= 1_024 else {}
    # Without `summarized` the blocks come back blank.
    return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}


class AnthropicReader:
    """Reads `message_start`, `content_block_*`, `message_delta` and `message_stop` events."""

    def __init__(self, request: ModelRequest, redact: Callable[[str], str]) -> None:
        self.pieces = Pieces(request)
        self.done = False
        self._redact = redact
        self._counts: dict[str, Any] = {}
        self._signed: dict[int, dict[str, Any]] = {}
        self._order: list[str | int] = []
        self._given: dict[int, str] = {}
        """Arguments of calls that came with their start; void once pieces of them come."""

    def feed(self, payload: dict[str, Any]) -> list[ModelEvent]:
        match payload.get("type"):
            case "content_block_delta":
                return self._delta(payload["index"], payload["delta"])
            case "content_block_start":
                return self._start(payload["index"], payload["content_block"])
            case "content_block_stop" if given := self._given.pop(payload["index"], ""):
                return [self.pieces.add_call(payload["index"], arguments=given)]
            case "message_start":
                self._counts = dict(payload["message"].get("usage") or {})
                self.pieces.prompt_usage = anthropic_usage(self._counts | {"output_tokens": 0})
            case "message_delta":
                # Totals, not increments; what is absent here was told at the start.
                self._counts |= payload.get("usage") or {}
                self.pieces.usage = anthropic_usage(self._counts)
                reason = (payload.get("delta") or {}).get("stop_reason")
                if reason:
                    self.pieces.finish_reason = _FINISH.get(reason, "stop")
            case "message_stop":
                self.done = True
            case "error":
                raise from_stream(payload.get("error"), self._redact)
        return []

    def _start(self, index: int, block: dict[str, Any]) -> list[ModelEvent]:
        match block["type"]:
            case "tool_use":
                self._order.append("call")
                # Some servers that only speak this API give the whole input here and send no pieces of it.
                self._given[index] = json.dumps(block["input"]) if block.get("input") else ""
                return [self.pieces.add_call(index, call_id=block["id"], name=block["name"])]
            case "thinking" | "redacted_thinking":
                self._order.append("thinking")
                self._signed[index] = dict(block)
                return [self.pieces.add_reasoning(block["thinking"])] if block.get("thinking") else []
            case "text":
                self._order.append(0)
                return self._text(block["text"]) if block.get("text") else []
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[ModelEvent]:
        match delta["type"]:
            case "text_delta":
                return self._text(delta["text"])
            case "input_json_delta":
                self._given.pop(index, None)
                return [self.pieces.add_call(index, arguments=delta["partial_json"])]
            case "thinking_delta":
                block = self._signed[index]
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
                return [self.pieces.add_reasoning(delta["thinking"])]
            case "signature_delta":
                block = self._signed[index]
                block["signature"] = block.get("signature", "") + delta["signature"]
        return []

    def _text(self, text: str) -> list[ModelEvent]:
        self._order[-1] = int(self._order[-1]) + len(text)
        return [self.pieces.add_text(text)]

    def end(self) -> None:
        """Keeps the signed reasoning; a block that was cut before its signature would be refused later."""
        signed = [block for block in self._signed.values() if block.get("signature") or block.get("data")]
        self.pieces.opaque += [*signed, *(order_block(self._order) if signed else [])]


def anthropic_usage(counts: dict[str, Any]) -> Usage:
    """The four classes as the API counts them; `input_tokens` has no cached ones."""
    return Usage(
        input_tokens=count(counts.get("input_tokens")),
        cache_read_tokens=count(counts.get("cache_read_input_tokens")),
        cache_write_tokens=count(counts.get("cache_creation_input_tokens")),
        output_tokens=count(counts.get("output_tokens")),
    )
