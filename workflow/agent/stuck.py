"""Sees an agent going in circles: the same call with the same result, the same error, a cycle, a monologue.

A result that changes (polling) is no circle, and neither are waiting and a provider's trouble: only the agent's own
calls and what they gave back are compared. Calls of one turn were made without knowing each other's results, so they
count once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Literal

from workflow.core.config import AgentSettings
from workflow.core.events import Message, ToolCall, ToolResulted
from workflow.core.ids import CallId
from workflow.tools.output import OUTPUT_FOLDER

MONOLOGUE = 3
LONGEST_CYCLE = 5
CYCLES = 3
_WAITED_MS = 1_000
_OF_ONE_CALL = re.compile(
    r"\b\d+\.\d+ ?(?:m?s|sec|seconds)\b"  # `[exit status 1, 2.3 s]`, `1 failed in 0.12s`
    rf"|{re.escape(OUTPUT_FOLDER)}/[\w-]+"  # where the whole of a long output is
    r'|<untrusted id="\w+"|</untrusted id="\w+">'  # the fence around what came from the web
)
"""What differs between two results of the same call even when nothing has changed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Literal["warn", "stop"]
    text: str


@dataclass(frozen=True, eq=False)
class _Step:
    """A call and what it gave back. The results, which may be long, are looked at only where two calls are the same."""

    call: ToolCall
    given: ToolResulted

    @cached_property
    def asked(self) -> str:
        return f"{self.call.name} {self.call.arguments}"

    @cached_property
    def result(self) -> str:
        """What makes two results the same."""
        return self.call.id if _waited(self.call, self.given) else _OF_ONE_CALL.sub("", self.given.output)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Step) and self.asked == other.asked and self.result == other.result

    def __hash__(self) -> int:
        return hash(self.asked)


def judge(entries: Sequence[object], settings: AgentSettings) -> Verdict | None:
    """None while all is well; `warn` from the limit on, `stop` from twice the limit.

    entries: Messages and ToolResulted of the run, oldest first.
    """
    recent = _since_person(entries)
    steps = _steps(recent)
    return (
        _repeats(steps, settings.stuck_repeats)
        or _errors(steps, settings.stuck_errors)
        or _cycle(steps)
        or _monologue(recent)
    )


def _since_person(entries: Sequence[object]) -> list[object]:
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        if isinstance(entry, Message) and entry.origin == "person":
            return list(entries[place + 1 :])
    return list(entries)


def _steps(entries: Sequence[object]) -> list[_Step]:
    calls: dict[CallId, ToolCall] = {}
    steps: dict[tuple[int, str], _Step] = {}
    for entry in entries:
        if isinstance(entry, Message):
            calls |= {call.id: call for call in entry.tool_calls}
        elif isinstance(entry, ToolResulted) and entry.call_id in calls:
            step = _Step(calls[entry.call_id], entry)
            steps[entry.turn, step.asked] = step
    return list(steps.values())


def _waited(call: ToolCall, result: ToolResulted) -> bool:
    """True for a call that let time pass on purpose: the next one may find something else."""
    is_polled = call.name == "bash_output" and result.data.get("running") is True
    waits = is_polled or (call.name == "bash" and "sleep" in call.arguments)
    return waits and result.duration_ms >= _WAITED_MS


def _verdict(count: int, limit: int, text: str) -> Verdict | None:
    if count >= 2 * limit:
        return Verdict("stop", text)
    return Verdict("warn", text) if count >= limit else None


def _repeats(steps: Sequence[_Step], limit: int) -> Verdict | None:
    if not steps:
        return None
    count = sum(1 for _ in takewhile(steps[-1].__eq__, reversed(steps)))
    return _verdict(
        count,
        limit,
        f"You made the same {steps[-1].call.name} call {count} times and got the same result. Do something else: "
        "change the arguments, look at the cause, or finish and say what is in the way.",
    )


def _errors(steps: Sequence[_Step], limit: int) -> Verdict | None:
    if not steps or not steps[-1].given.error:
        return None
    last = steps[-1].given
    given = (step.given for step in reversed(steps))
    same = takewhile(lambda one: (one.tool, one.error) == (last.tool, last.error), given)
    count = len({one.turn for one in same})
    return _verdict(
        count,
        limit,
        f"{last.tool} failed {count} times in a row with {last.error}. Read the message, look at the real state with "
        "another tool, then try a different way.",
    )


def _cycle(steps: Sequence[_Step]) -> Verdict | None:
    """A pattern of 2 to 5 different steps, over and over."""
    for length in range(2, LONGEST_CYCLE + 1):
        pattern = steps[-length:]
        if len(steps) < length * CYCLES or len(set(pattern)) == 1:
            continue
        rounds = 0
        while steps[len(steps) - length * (rounds + 1) : len(steps) - length * rounds] == pattern:
            rounds += 1
        text = f"You repeat the same {length} calls in turn, {rounds} rounds by now. Break the circle."
        if verdict := _verdict(rounds, CYCLES, text):
            return verdict
    return None


def _monologue(entries: Sequence[object]) -> Verdict | None:
    count = 0
    for entry in reversed(entries):
        if isinstance(entry, ToolResulted) or (isinstance(entry, Message) and entry.tool_calls):
            break
        count += isinstance(entry, Message) and entry.role == "assistant"
    text = f"{count} answers in a row had no tool call although the work is not done. Act, or drop the open steps."
    return Verdict("stop", text) if count >= 2 * MONOLOGUE else None
