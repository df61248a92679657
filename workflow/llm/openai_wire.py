"""OpenAI's chat completions, as spoken by OpenAI, vLLM, Ollama, llama.cpp, OpenRouter and many others."""

import json
from collections.abc import Callable
from typing import Any

from workflow.core.errors import ModelOverloaded
from workflow.core.events import Usage
from workflow.llm.base import ModelEvent, ModelRequest
from workflow.llm.openai_messages import CALL_EXTRA, REASONING_FIELD, OpenAiStyle, openai_messages, openai_tools
from workflow.llm.pieces import Pieces, count
from workflow.llm.provider_errors import from_stream
from workflow.llm.wire import Target

OPENAI_URL = "https://api.openai.com/v1"

FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
}


class OpenAiWire:
    """Writes requests to `<base_url>/chat/completions`."""

    def url(self, target: Target) -> str:
        return f"{target.base_url.rstrip('/')}/chat/completions"

    def headers(self, target: Target) -> dict[str, str]:
        return {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}

    def body(self, request: ModelRequest, target: Target) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": target.model,
            "messages": openai_messages(request.messages, request.model, OpenAiStyle()),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = openai_tools(request.tools)
            if not request.allow_calls:
                body["tool_choice"] = "none"
        if request.max_output_tokens is not None:
            # OpenAI's reasoning models refuse the older name, most other servers know only that.
            own = target.base_url.startswith("https://api.openai.com")
            body["max_completion_tokens" if own else "max_tokens"] = request.max_output_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.reasoning_effort is not None:
            body["reasoning_effort"] = request.reasoning_effort
        return body

    def reader(self, request: ModelRequest, redact: Callable[[str], str]) -> "OpenAiReader":
        return OpenAiReader(request, redact)


class OpenAiReader:
    """Reads `chat.completion.chunk` events."""

    def __init__(self, request: ModelRequest, redact: Callable[[str], str]) -> None:
        self.pieces = Pieces(request)
        self.done = False
        """Stays False: `[DONE]` ends the stream, and usage comes after the finish reason."""
        self._redact = redact

    def feed(self, payload: dict[str, Any]) -> list[ModelEvent]:
        if payload.get("error"):
            raise from_stream(payload["error"], self._redact)
        if payload.get("usage"):
            self.pieces.usage = openai_usage(payload["usage"])
        choices = payload.get("choices")
        if not choices:
            return []
        choice = choices[0]
        events = self._delta(choice.get("delta") or {})
        if choice.get("finish_reason"):
            if choice["finish_reason"] == "error":
                raise ModelOverloaded("the model provider broke the answer off")
            self.pieces.finish_reason = self.pieces.finish_reason or FINISH_REASONS.get(choice["finish_reason"], "stop")
        return events

    def end(self) -> None:
        """Nothing is left to do."""

    def _delta(self, delta: dict[str, Any]) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        pieces = self.pieces
        for field in ("reasoning_content", "reasoning"):
            if delta.get(field):
                if not pieces.opaque:
                    pieces.opaque.append({"type": REASONING_FIELD, "field": field})
                events.append(pieces.add_reasoning(delta[field]))
                break
        content = delta.get("content")
        if content:
            events.append(pieces.add_text(content if isinstance(content, str) else _joined(content)))
        if delta.get("refusal"):
            pieces.finish_reason = "refusal"
            events.append(pieces.add_text(delta["refusal"]))
        for call in delta.get("tool_calls") or ():
            events.append(self._call(call))
        return events

    def _call(self, call: dict[str, Any]) -> ModelEvent:
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        piece = self.pieces.add_call(
            call.get("index"),
            call_id=call.get("id") or "",
            name=function.get("name") or "",
            arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),
        )
        if call.get("extra_content"):
            self.pieces.opaque.append({"type": CALL_EXTRA, "id": piece.id, "extra_content": call["extra_content"]})
        return piece


def openai_usage(usage: dict[str, Any]) -> Usage:
    """The four classes: OpenAI counts cached tokens within `prompt_tokens`, reasoning within `completion_tokens`."""
    details = usage.get("prompt_tokens_details") or {}
    read = count(details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens"))
    write = count(details.get("cache_write_tokens") or details.get("cache_creation_tokens"))
    return Usage(
        input_tokens=max(0, count(usage.get("prompt_tokens")) - read - write),
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=count(usage.get("completion_tokens")),
    )


def _joined(parts: list[dict[str, Any]]) -> str:
    """Text of a content given as parts (Mistral's reasoning models)."""
    return "".join(part.get("text") or "" for part in parts if part.get("type") == "text")
