"""A model without a model: it answers from a script. Drives the keyless demo and the tests.

Two faces behind the `LLM` protocol:

- `ScriptedLLM()` is the shipped model `scripted`. It keeps no state: what comes next is read from the request's
  own messages, so a run resumes on any worker. A task with a script block (see `scripted_turns.py`) is played
  turn by turn; any other task gets the demo of `scripted_demo.py`.
- `ScriptedLLM.of(turns)` is for tests within one process: it plays the given turns in order, one per call.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TypeAlias

from workflow.core.errors import ModelError
from workflow.core.events import ToolCall
from workflow.llm.base import Completion, ModelEvent, ModelRequest, ReasoningDelta, TextDelta, ToolCallDelta
from workflow.llm.scripted_demo import demo_turn
from workflow.llm.scripted_turns import Turn, directive_turn, new_call_id
from workflow.llm.scripted_view import View
from workflow.llm.tokens import estimate_usage

TurnLike: TypeAlias = Turn | str | Exception | Callable[[ModelRequest], Turn | str | Exception]

_WORD = re.compile(r"\s*\S+\s*|\s+")
_ARGUMENT_CHARS = 24


class ScriptedLLM:
    """Answers from a script, streaming like any model.

    delay_s: pause before each piece (a word of text, 24 characters of arguments); 0 for none.
    """

    def __init__(self, *, delay_s: float = 0.01) -> None:
        self._delay_s = delay_s
        self._turns: Sequence[TurnLike] | None = None
        self.requests: list[ModelRequest] = []
        """The requests seen, oldest first; kept only by a model made with `of`."""

    @classmethod
    def of(cls, turns: Sequence[TurnLike], *, delay_s: float = 0.0) -> "ScriptedLLM":
        """A model that plays `turns`, one per call, whatever it is asked.

        A turn is a `Turn`, a text, an exception to raise, or a callable that makes one of them of the request.
        A call after the last turn raises ModelError.
        """
        llm = cls(delay_s=delay_s)
        llm._turns = tuple(turns)
        return llm

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """The next turn's pieces; the last one is a Completion. See `LLM.stream`."""
        number, turn = self._next_turn(request)
        delay_s = self._delay_s if turn.delay_s is None else turn.delay_s
        calls = tuple(_with_id(call, number, place) for place, call in enumerate(turn.tool_calls))
        pieces = [*_pieces(turn.reasoning, ReasoningDelta), *_pieces(turn.text, TextDelta), *_call_pieces(calls)]
        for piece in pieces:
            await asyncio.sleep(delay_s)
            yield piece
        usage = turn.usage or estimate_usage(request, output_chars=_length(turn))
        if turn.error is not None:
            if isinstance(turn.error, ModelError) and pieces:
                turn.error.details["usage"] = usage
            raise turn.error
        yield Completion(
            text=turn.text,
            tool_calls=calls,
            reasoning=turn.reasoning,
            finish_reason=turn.finish_reason or ("tool_calls" if calls else "stop"),
            usage=usage,
            usage_is_estimate=turn.usage is None,
            model=request.model,
        )

    async def close(self) -> None:
        """Nothing to release."""

    def _next_turn(self, request: ModelRequest) -> tuple[int, Turn]:
        if self._turns is None:
            view = View.of(request)
            return view.turn, directive_turn(view) or demo_turn(view)
        number = len(self.requests)
        self.requests.append(request)
        if number >= len(self._turns):
            raise ModelError(f"the script has {len(self._turns)} turns and was asked for number {number + 1}")
        given = self._turns[number]
        made = given(request) if callable(given) else given
        if isinstance(made, Turn):
            return number, made
        return number, Turn(text=made) if isinstance(made, str) else Turn(error=made)


def _pieces(text: str, kind: type[TextDelta] | type[ReasoningDelta]) -> Iterator[TextDelta | ReasoningDelta]:
    return (kind(match[0]) for match in _WORD.finditer(text))


def _call_pieces(calls: tuple[ToolCall, ...]) -> Iterator[ToolCallDelta]:
    for index, call in enumerate(calls):
        for start in range(0, max(1, len(call.arguments)), _ARGUMENT_CHARS):
            yield ToolCallDelta(index, call.id, call.name, call.arguments[start : start + _ARGUMENT_CHARS])


def _with_id(call: ToolCall, number: int, place: int) -> ToolCall:
    return call if call.id else call.model_copy(update={"id": new_call_id(number, place)})


def _length(turn: Turn) -> int:
    calls = sum(len(call.name) + len(call.arguments) for call in turn.tool_calls)
    return len(turn.text) + len(turn.reasoning) + calls
