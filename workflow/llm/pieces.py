"""Puts one answer together while it streams, the same way for every driver."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from workflow.core.events import ToolCall, Usage
from workflow.core.ids import CallId
from workflow.core.texts import sound, sound_value
from workflow.llm.base import Completion, ModelRequest, ReasoningDelta, TextDelta, ToolCallDelta
from workflow.llm.tokens import estimate_tokens, estimate_usage


@dataclass(slots=True)
class _Call:
    id: CallId
    sent_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


def count(value: Any) -> int:
    """A number of tokens as a server sent it; 0 for what is none."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):
        return 0


class Pieces:
    """What has arrived of an answer to `request`.

    The `add_*` methods take a piece in and give back what to show of it.
    """

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self.finish_reason = ""
        """Empty until the provider said how the answer ends."""
        self.usage: Usage | None = None
        """What the provider counted; None while it has not."""
        self.prompt_usage: Usage | None = None
        """The prompt's part of it, when the provider tells that at the start."""
        self.opaque: list[dict[str, Any]] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._places: dict[int, int] = {}
        self._chars = 0

    def add_text(self, text: str) -> TextDelta:
        text = sound(text)
        self._text.append(text)
        self._chars += len(text)
        return TextDelta(text)

    def add_reasoning(self, text: str) -> ReasoningDelta:
        text = sound(text)
        self._reasoning.append(text)
        self._chars += len(text)
        return ReasoningDelta(text)

    def add_call(self, key: int | None, *, call_id: str = "", name: str = "", arguments: str = "") -> ToolCallDelta:
        """Takes a piece of the call that the provider numbers `key`.

        Servers differ: some repeat id and name in every piece, some send no id or give all calls the same,
        some number every parallel call 0 and tell them apart by id. None as key means the call that is open.
        """
        call_id, name, arguments = sound(call_id), sound(name), sound(arguments)
        place = self._place(key, call_id)
        if place is None:
            sent_id = call_id
            if not call_id or any(call.id == call_id for call in self._calls):
                call_id = f"call_{secrets.token_hex(8)}"
            self._calls.append(_Call(CallId(call_id), sent_id, name))
            place = len(self._calls) - 1
            self._places[place if key is None else key] = place
        call = self._calls[place]
        call.name = call.name or name
        call.arguments.append(arguments)
        self._chars += len(arguments)
        return ToolCallDelta(place, call.id, call.name, arguments)

    @property
    def started(self) -> bool:
        """True once the provider has spent anything that is worth an account."""
        return self._chars > 0 or self.usage is not None or self.prompt_usage is not None

    def spent(self) -> Usage:
        """The provider's count, or an estimate of what was sent and received so far."""
        if self.usage is not None:
            return self.usage
        if self.prompt_usage is not None:
            return self.prompt_usage + Usage(output_tokens=estimate_tokens(self._chars))
        return estimate_usage(self.request, output_chars=self._chars)

    def completion(self) -> Completion:
        """The whole message."""
        calls = tuple(ToolCall(id=c.id, name=c.name, arguments="".join(c.arguments)) for c in self._calls)
        reason = self.finish_reason or "stop"
        return Completion(
            text="".join(self._text),
            tool_calls=calls,
            reasoning="".join(self._reasoning),
            opaque=tuple(sound_value(block) for block in self.opaque),
            # Some servers say `stop` after calls, or `tool_calls` without any.
            finish_reason=("tool_calls" if calls else "stop") if reason in ("stop", "tool_calls") else reason,
            usage=self.spent(),
            usage_is_estimate=self.usage is None,
            model=self.request.model,
        )

    def _place(self, key: int | None, call_id: str) -> int | None:
        place = len(self._calls) - 1 if key is None else self._places.get(key)
        if place is None or place < 0:
            return None
        call = self._calls[place]
        if call_id and call_id not in (call.id, call.sent_id):
            return None
        return place
