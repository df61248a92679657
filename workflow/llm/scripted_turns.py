"""A scripted turn, and the script block that a task may carry.

A task with a block like this is played word for word by the model `scripted`, one turn per model call, so that a
test or a demo steers the whole product through its public API:

    ```script
    [{"text": "Looking.", "tool_calls": [{"name": "bash", "arguments": {"command": "ls"}}]},
     {"text": "All done."}]
    ```

The keys of a turn are those of `ScriptTurn`. After the last turn the model says "Done."; when no tool may be
called, a turn is its text alone.
"""

import json
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded, ModelRefused
from workflow.core.events import ToolCall, Usage
from workflow.core.ids import CallId
from workflow.llm.scripted_view import SCRIPT, View

_FILLER = "lorem ipsum dolor sit amet consectetur adipiscing elit "


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer: what is streamed, then either how it ends or the error that breaks it off."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls with an empty id get a fresh one."""
    reasoning: str = ""
    delay_s: float | None = None
    """Pause before each piece; None takes the model's own."""
    finish_reason: str = ""
    """Empty: `tool_calls` or `stop`, whichever fits."""
    usage: Usage | None = None
    """None: estimated from the characters."""
    error: Exception | None = None


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """A call for a Turn; its id is made when it is played."""
    return ToolCall(id=CallId(""), name=name, arguments=json.dumps(arguments, ensure_ascii=False))


def new_call_id(turn: int, place: int) -> CallId:
    """A fresh id that tells the turn it belongs to."""
    return CallId(f"call_{secrets.token_hex(4)}_{turn}_{place}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptCall(_Strict):
    name: str
    arguments: dict[str, Any] | str = Field({}, description="a string is sent as it is, valid JSON or not")
    id: str = ""


class ScriptTurn(_Strict):
    """One element of a script block."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ScriptCall, ...] = ()
    delay_ms: Annotated[float, Field(ge=0, le=600_000)] | None = Field(None, description="pause before each piece")
    tokens: int = Field(0, ge=0, le=1_000_000, description="this many words of filler follow the text")
    usage: Usage | None = None
    finish_reason: Literal["", "stop", "tool_calls", "length", "refusal"] = ""
    error: Literal["", "overloaded", "overflow", "refused", "failed"] = Field(
        "", description="breaks the answer off after its text, on every attempt"
    )

    def turn(self) -> Turn:
        return Turn(
            text=self.text + "".join(_words(self.tokens)),
            tool_calls=tuple(_call(call) for call in self.tool_calls),
            reasoning=self.reasoning,
            delay_s=None if self.delay_ms is None else self.delay_ms / 1000,
            finish_reason=self.finish_reason,
            usage=self.usage,
            error=_ERRORS[self.error]("the script says so") if self.error else None,
        )


_ERRORS: dict[str, type[ModelError]] = {
    "overloaded": ModelOverloaded,
    "overflow": ContextOverflow,
    "refused": ModelRefused,
    "failed": ModelError,
}
_SCRIPT: TypeAdapter[tuple[ScriptTurn, ...]] = TypeAdapter(tuple[ScriptTurn, ...])


def directive_turn(view: View) -> Turn | None:
    """The next turn of the task's script block; None when the task has no block.

    Raises: ModelRefused if the block is not a valid script; the message says where.
    """
    match = SCRIPT.search(view.task)
    if match is None:
        return None
    try:
        turns = _SCRIPT.validate_json(match["body"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "top"
        raise ModelRefused(f"the task's script block is not valid, at {place}: {first['msg']}") from error
    if view.turn >= len(turns):
        return Turn(text="Done.")
    turn = turns[view.turn].turn()
    return turn if view.tools else replace(turn, tool_calls=(), text=turn.text or "Done.")


def _call(call: ScriptCall) -> ToolCall:
    raw = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
    return ToolCall(id=CallId(call.id), name=call.name, arguments=raw)


def _words(count: int) -> list[str]:
    words = _FILLER.split(" ")[:-1]
    return [f"{words[place % len(words)]} " for place in range(count)]
