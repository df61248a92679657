"""The LiteLLM driver: every provider that LiteLLM knows. The only file that imports it.

The import takes seconds and 160 MB, so it happens in a thread, at the first call or in `warm_up`. LiteLLM is asked
for one attempt and nothing else: no retries, no router, no callbacks (their arguments hold the raw key).
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator
from importlib import import_module
from typing import Any

from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded
from workflow.core.redact import Redactor
from workflow.llm.base import ModelEvent, ModelRequest
from workflow.llm.messages import provider_of
from workflow.llm.openai_messages import REASONING_FIELD, OpenAiStyle, openai_messages, openai_tools
from workflow.llm.openai_wire import FINISH_REASONS, openai_usage
from workflow.llm.pieces import Pieces
from workflow.llm.provider_errors import classified, retry_after_s

# They want a model's reasoning back within a turn; strict servers refuse a field they do not know.
_WANT_REASONING_BACK = frozenset({"deepseek", "hosted_vllm", "openrouter", "moonshot", "dashscope", "zai"})
_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise the import fetches a price list
    "LITELLM_LOG": "ERROR",
    "REPEATED_STREAMING_CHUNK_LIMIT": "100000",  # at 100 equal chunks it takes a row of dashes for a fault
}
# LiteLLM appends these to some messages; the second is the whole prompt.
_APPENDED = re.compile(r"\n(?:Traceback|Received Messages)")


class LiteLLM:
    """Streams from one model by its LiteLLM name. One event loop for life: LiteLLM's clients are bound to it."""

    def __init__(self, model: str, *, api_base: str = "", api_key: str = "") -> None:
        self._model = model
        self._api_base = api_base
        self._api_key = api_key
        self._redact = Redactor([api_key] if api_key else [])
        self._library: Any = None
        self._loading: asyncio.Task[Any] | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See `LLM.stream`."""
        library = await self._loaded()
        reader = _Reader(request)
        deadline = time.monotonic() + request.timeout_s
        stream: Any = None
        try:
            stream = await _bounded(library.acompletion(**self._arguments(request)), request, deadline)
            while (chunk := await _bounded(anext(stream, None), request, deadline)) is not None:
                for event in reader.feed(chunk):
                    yield event
                await asyncio.sleep(0)  # its iterator never yields while data is buffered
            if not _ended_well(stream):
                raise ModelOverloaded("the stream of the model provider was cut before its end")
            reader.end()
            yield reader.pieces.completion()
        except ModelError as error:
            raise _with_usage(error, reader.pieces) from None
        except Exception as error:  # noqa: BLE001  # exceptions of LiteLLM, openai, httpx, aiohttp and json come through
            raise _with_usage(self._mapped(error), reader.pieces) from None
        finally:
            if stream is not None:
                await stream.aclose()

    async def warm_up(self) -> None:
        """Imports LiteLLM, in a thread, then the parts that it imports at a first call. Takes seconds."""
        library = await self._loaded()
        call = {"model": self._model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async for _ in await library.acompletion(**call, api_key="none", mock_response="hi"):
            pass

    async def close(self) -> None:
        """Closes the connections of every LiteLLM model of the process: it keeps them in one cache."""
        if self._library is not None:
            await self._library.close_litellm_async_clients()

    async def _loaded(self) -> Any:
        if self._library is None:
            if self._loading is None:
                self._loading = asyncio.create_task(asyncio.to_thread(_import))
            self._library = await asyncio.shield(self._loading)
        return self._library

    def _arguments(self, request: ModelRequest) -> dict[str, Any]:
        claude = "claude" in self._model.lower()
        marks = claude and request.cache_breakpoints
        style = OpenAiStyle(cache_marks=marks, thinking_blocks=claude, raw_ids=True)
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": openai_messages(request.messages, request.model, style),
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": request.timeout_s,
            "max_retries": 0,
            "drop_params": True,
        }
        if request.tools:
            arguments["tools"] = openai_tools(request.tools, cache_mark=marks)
            if not request.allow_calls:
                arguments["tool_choice"] = "none"
        optional = {
            "api_base": self._api_base or None,
            "api_key": self._api_key or None,
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "reasoning_effort": request.reasoning_effort,
        }
        return arguments | {name: value for name, value in optional.items() if value is not None}

    def _mapped(self, error: Exception) -> ModelError:
        """An exception from within LiteLLM as one of ours."""
        original = getattr(error, "original_exception", None)  # of a failure in the middle of a stream
        if isinstance(original, Exception):
            return self._mapped(original)
        kind = type(error).__name__
        detail = _APPENDED.split(str(getattr(error, "message", "") or error))[0] or kind
        if kind == "ContextWindowExceededError":
            return ContextOverflow(f"the model provider answered: {self._redact(detail)[:600]}")
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        return classified(
            detail,
            status=status if isinstance(status, int) else 0,
            kind=kind,
            retry_after_s=retry_after_s(headers) if headers else None,
            redact=self._redact,
        )


class _Reader:
    """Reads LiteLLM's chunks."""

    def __init__(self, request: ModelRequest) -> None:
        self.pieces = Pieces(request)
        self._signed: list[dict[str, Any]] = []

    def feed(self, chunk: Any) -> list[ModelEvent]:
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self.pieces.usage = openai_usage(usage.model_dump())
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        if choice.finish_reason:
            self.pieces.finish_reason = FINISH_REASONS.get(choice.finish_reason, "stop")
        return self._delta(choice.delta)

    def end(self) -> None:
        """Keeps what must go back: signed reasoning, or the mark that plain reasoning is wanted."""
        self.pieces.opaque += [block for block in self._signed if block.get("signature") or block.get("data")]
        if not self._signed and provider_of(self.pieces.request.model) in _WANT_REASONING_BACK:
            self.pieces.opaque.append({"type": REASONING_FIELD, "field": "reasoning_content"})

    def _delta(self, delta: Any) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        reasoning = getattr(delta, "reasoning_content", None)
        if reasoning:
            events.append(self.pieces.add_reasoning(reasoning))
        for block in getattr(delta, "thinking_blocks", None) or ():
            self._sign(block)
        if delta.content:
            events.append(self.pieces.add_text(delta.content))
        for call in delta.tool_calls or ():
            function = call.function
            events.append(
                self.pieces.add_call(
                    call.index,
                    call_id=call.id or "",
                    name=function.name or "",
                    arguments=function.arguments or "",
                )
            )
        return events

    def _sign(self, piece: dict[str, Any]) -> None:
        """Puts signed reasoning together; its signature, which comes last, ends a block."""
        if piece["type"] == "redacted_thinking":
            self._signed.append(dict(piece))
            return
        last = self._signed[-1] if self._signed else None
        if last is None or last["type"] != "thinking" or last["signature"]:
            last = {"type": "thinking", "thinking": "", "signature": ""}
            self._signed.append(last)
        last["thinking"] += piece.get("thinking") or ""
        last["signature"] += piece.get("signature") or ""


async def _bounded(step: Any, request: ModelRequest, deadline: float) -> Any:
    """Awaits one step of a stream. LiteLLM's own timeout bounds none of this."""
    left_s = deadline - time.monotonic()
    try:
        async with asyncio.timeout(min(request.idle_timeout_s, max(0.0, left_s))):
            return await step
    except TimeoutError:
        if left_s <= request.idle_timeout_s:
            raise ModelOverloaded(f"the model provider took longer than {request.timeout_s:g} s") from None
        raise ModelOverloaded(f"the model provider was silent for {request.idle_timeout_s:g} s") from None


def _ended_well(stream: Any) -> bool:
    """False when the provider never said how its answer ends: LiteLLM then makes up a `stop`."""
    said = (getattr(stream, name, None) for name in ("received_finish_reason", "intermittent_finish_reason"))
    return not hasattr(stream, "received_finish_reason") or any(said)


def _with_usage(error: ModelError, pieces: Pieces) -> ModelError:
    if pieces.started:
        error.details["usage"] = pieces.spent()
    return error


def _import() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # it reads its settings while it is imported
    # Not an import statement: a type checker that follows it reads LiteLLM's 1,156 modules.
    library: Any = import_module("litellm")
    library.suppress_debug_info = True  # otherwise it prints advice to stdout
    library.disable_streaming_logging = True
    return library
