"""A model that says again what it said when a run was recorded."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

from workflow.core.errors import DialtoneError, ModelError, ModelRefused, RunCancelled
from workflow.llm.base import Completion, ModelEvent, ModelRequest, ReasoningDelta, TextDelta
from workflow.llm.cassette import Cassette, End, Exchange, as_sent, same_at_first


@dataclass(slots=True)
class CassetteLLM:
    """Gives the recorded answers in their order, whatever it is asked, and notes where it is asked something else."""

    cassette: Cassette
    mismatches: list[str] = field(default_factory=list)
    """What was different, in words."""
    _next: int = 0
    _sent: list[dict[str, Any]] = field(default_factory=list)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """The next answer.

        Raises: ModelRefused for a summary that was not recorded; behind the last answer, what ended the run.
        """
        answer = self._take("turn" if request.cache_breakpoints else "notes")
        if answer.purpose == "turn":
            self._compare(answer, as_sent(request.messages))
        if answer.reasoning:
            yield ReasoningDelta(answer.reasoning)
        if answer.text:
            yield TextDelta(answer.text)
        yield Completion(
            text=answer.text,
            tool_calls=answer.tool_calls,
            reasoning=answer.reasoning,
            opaque=answer.opaque,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model=answer.model,
        )

    async def close(self) -> None:
        """Nothing to release."""

    def rest(self) -> list[str]:
        """What of the recording was not asked for, in words."""
        return [f"turn {answer.turn} was not reached" for answer in self.cassette.answers[self._next :]]

    def _take(self, purpose: str) -> Exchange:
        answers = self.cassette.answers
        while purpose == "turn" and self._next < len(answers) and answers[self._next].purpose == "notes":
            self.mismatches.append(f"turn {answers[self._next].turn}: no summary was asked for")
            self._next += 1
        if self._next == len(answers):
            raise as_recorded(self.cassette.end)
        answer = answers[self._next]
        if answer.purpose != purpose:
            self.mismatches.append(f"turn {answer.turn}: a summary was asked for that was not recorded")
            raise ModelRefused("this summary was not recorded")
        self._next += 1
        return answer

    def _compare(self, answer: Exchange, now: list[dict[str, Any]]) -> None:
        then = [*self._sent[: answer.same], *answer.sent]
        self._sent = then
        if now == then:
            return
        place = same_at_first(then, now)
        was, is_now = (_shown(messages, place) for messages in (then, now))
        self.mismatches.append(f"turn {answer.turn}: message {place + 1} was {was} and is {is_now}")


def as_recorded(end: End) -> Exception:
    """What ends a replay where the recorded run ended without a last answer."""
    if end.status == "cancelled":
        return RunCancelled(end.reason)
    if end.status == "finished":
        return ModelError("the recording holds no further answer")
    known = next((kind for kind in _tree(DialtoneError) if kind.code == end.reason), None)
    kind = known or type("Recorded", (ModelError,), {"code": end.reason})
    error: Exception = kind(end.detail)
    return error


def _tree(kind: type[DialtoneError]) -> Iterator[type[DialtoneError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)


def _shown(messages: list[dict[str, Any]], place: int) -> str:
    if place >= len(messages):
        return "nothing"
    message = messages[place]
    return f"{message.get('role')}: {str(message.get('text'))[:120]!r}"
