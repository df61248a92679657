"""The one seam to language models: a request goes in, typed pieces stream out.

A driver (`litellm`, `direct`, `scripted`) implements `LLM.stream` for one attempt at one model.
Retries, fallbacks and budgets live above it, in `workflow/llm/policy.py`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from workflow.core.events import ToolCall, Usage
from workflow.core.ids import CallId


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the model is told about a tool. `parameters` is a JSON Schema object with sorted keys."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture for a vision model. `media_type` comes from the magic bytes."""

    media_type: str
    content: bytes
    path: str = ""
    """The file of the workspace that it was read from, if any."""
    lost: str = ""
    """Why it cannot be shown again; `content` is then empty, and the model reads this instead."""


@dataclass(frozen=True, slots=True)
class SystemMessage:
    text: str


@dataclass(frozen=True, slots=True)
class UserMessage:
    text: str
    images: tuple[Image, ...] = ()
    is_task: bool = False
    """True for the request that began a run; False for steering, answers and reminders in between."""


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    opaque: tuple[dict[str, Any], ...] = ()
    """Provider blocks that go back complete and unmodified (signed reasoning)."""
    model: str = ""
    """Who wrote it: another provider's opaque blocks are not sent."""


@dataclass(frozen=True, slots=True)
class ToolMessage:
    call_id: CallId
    name: str
    text: str
    ok: bool = True
    images: tuple[Image, ...] = ()


ChatMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Everything one model call needs. `messages[0]` is the SystemMessage."""

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    allow_calls: bool = True
    """False: the tools stay in the prompt, and in its cache, but none may be called (a last turn, a summary)."""
    max_output_tokens: int | None = None
    temperature: float | None = None
    reasoning_effort: str | None = None
    """`low`, `medium`, `high`; None leaves the provider's default."""
    cache_breakpoints: bool = True
    """Mark the stable prefix for providers that want it marked (Anthropic)."""
    timeout_s: float = 600.0
    """Whole call, first byte to last."""
    idle_timeout_s: float = 90.0
    """Longest silence within the stream."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call's arguments. `index` orders parallel calls within the message."""

    index: int
    id: CallId
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a stream: the whole message. `tool_calls` hold raw argument text, possibly not valid JSON."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    opaque: tuple[dict[str, Any], ...] = ()
    finish_reason: str = "stop"
    """`stop`, `tool_calls`, `length` (cut by the token limit), `refusal`."""
    usage: Usage = field(default_factory=Usage)
    usage_is_estimate: bool = False
    """True when the provider sent no usage and it was counted as characters / 4."""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answer begins anew: what was shown of it so far is void. Sent by the policy when a stream broke midway."""

    reason: str


ModelEvent = TextDelta | ReasoningDelta | ToolCallDelta | Restarted | Completion


class LLM(Protocol):
    """A driver. One event loop for life."""

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The pieces of one answer as they arrive; the last one is a Completion.

        Closing the iterator closes the connection at once. Raises, at any point: ModelOverloaded (with
        `retry_after_s` when the provider named it), ContextOverflow, ModelRefused, ModelError. When the stream
        breaks after pieces were given, the error carries `usage=Usage` of what was spent, as `details["usage"]`.
        """
        ...

    async def close(self) -> None: ...
