"""A run in one file: what the model was asked and said, what each tool was asked and gave back.

A cassette is JSON Lines. The first line is the header, the last one the end; between them stand the thread's earlier
events, and then exchanges in the order they happened. docs/cassettes.md describes every line.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workflow.core.errors import BadInput
from workflow.core.events import (
    ContextCompacted,
    Effect,
    Event,
    Message,
    PlanUpdated,
    RunQueued,
    ToolCall,
    ToolResulted,
    Usage,
)
from workflow.core.ids import RUN_ID, CallId, RunId, ThreadId
from workflow.core.records import RunOptions
from workflow.llm.base import (
    AssistantMessage,
    ChatMessage,
    SystemMessage,
    ToolMessage,
)
from workflow.llm.messages import uncaptioned

VERSION = 1
_EVENT_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Header(Line):
    """Which run this was."""

    type: Literal["cassette"] = "cassette"
    version: int = VERSION
    run_id: RunId
    thread_id: ThreadId
    task: str
    options: RunOptions = RunOptions()
    model: str = Field("", description="LiteLLM name")
    sandbox: str = ""
    config_hash: str = ""


class Before(Line):
    """An event of the thread from before the run began to work, or the run's own `run.queued`."""

    type: Literal["before"] = "before"
    event: Event


class Exchange(Line):
    """One answer of a model. What it was sent are the first `same` messages of the exchange before, then `sent`."""

    type: Literal["model"] = "model"
    turn: int
    purpose: Literal["turn", "notes"] = Field("turn", description="`notes`: a summary that made room")
    same: int = 0
    sent: tuple[dict[str, Any], ...] = Field((), description="without the system prompt, which no log holds")
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    opaque: tuple[dict[str, Any], ...] = ()
    finish_reason: str = "stop"
    usage: Usage = Usage()
    model: str = ""


class ToolExchange(Line):
    """One tool call and what came back; `ok` None: nothing did, the run ended before."""

    type: Literal["tool"] = "tool"
    turn: int
    call_id: CallId
    tool: str
    arguments: dict[str, Any] | None = Field(None, description="None: refused before it ran")
    effect: Effect = Effect.PURE
    ok: bool | None
    output: str = ""
    data: dict[str, Any] = {}
    error: str = ""
    duration_ms: int = 0
    events: tuple[Event, ...] = Field((), description="facts that came with the result, e.g. `file.changed`")


class Person(Line):
    """Something a person (or a policy in place of one) said. `after`: entries of the run's transcript before it."""

    type: Literal["person"] = "person"
    after: int
    event: Event


class End(Line):
    """How the run ended."""

    type: Literal["end"] = "end"
    status: Literal["finished", "failed", "cancelled"]
    reason: str = ""
    detail: str = ""
    summary: str = ""
    usage: Usage = Usage()


AnyLine = Annotated[Header | Before | Exchange | ToolExchange | Person | End, Field(discriminator="type")]
_LINE: TypeAdapter[Header | Before | Exchange | ToolExchange | Person | End] = TypeAdapter(AnyLine)


@dataclass(frozen=True, slots=True)
class Cassette:
    """A whole run."""

    header: Header
    before: tuple[Event, ...]
    exchanges: tuple[Exchange | ToolExchange | Person, ...]
    end: End

    @property
    def answers(self) -> tuple[Exchange, ...]:
        return tuple(line for line in self.exchanges if isinstance(line, Exchange))

    @property
    def tools(self) -> tuple[ToolExchange, ...]:
        return tuple(line for line in self.exchanges if isinstance(line, ToolExchange))

    @property
    def people(self) -> tuple[Person, ...]:
        return tuple(line for line in self.exchanges if isinstance(line, Person))

    def lines(self) -> Iterator[str]:
        """The file's lines, without line ends."""
        for line in (self.header, *(Before(event=event) for event in self.before), *self.exchanges, self.end):
            yield line.model_dump_json()

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Cassette":
        """Raises: BadInput, naming the line, for anything that is no cassette of this version."""
        parsed = [_parsed(number, text) for number, text in enumerate(lines, 1) if text.strip()]
        header, end = (parsed[0], parsed[-1]) if parsed else (None, None)
        if not isinstance(header, Header):
            raise BadInput("line 1: a cassette begins with its header")
        if header.version != VERSION:
            raise BadInput(f"line 1: version {header.version} is not known here; this is version {VERSION}")
        if not isinstance(end, End):
            raise BadInput("the last line is not the end of a run: the file was cut off")
        between = parsed[1:-1]
        exchanges = tuple(line for line in between if isinstance(line, Exchange | ToolExchange | Person))
        before = tuple(line.event for line in between if isinstance(line, Before))
        if len(exchanges) + len(before) != len(between):
            raise BadInput("there is more than one header or end: a cassette holds one run")
        run = RUN_ID.fullmatch(header.run_id)
        if run is None or run[1] != header.thread_id:
            raise BadInput("line 1: run_id is no run of thread_id")
        if not all(_EVENT_ID.fullmatch(event.id) for event in before):
            raise BadInput("the event of a `before` line has no id")
        if not any(isinstance(event, RunQueued) and event.run_id == header.run_id for event in before):
            raise BadInput("no `before` line holds the run's own run.queued")
        return cls(header, before, exchanges, end)


def _parsed(number: int, text: str) -> Header | Before | Exchange | ToolExchange | Person | End:
    try:
        return _LINE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInput(f"line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def as_sent(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as a cassette holds them: no system prompt, no pictures, no provider blocks."""
    return [_message(message) for message in messages if not isinstance(message, SystemMessage)]


def _message(message: ChatMessage) -> dict[str, Any]:
    match message:
        case AssistantMessage():
            calls = [call.model_dump(mode="json") for call in message.tool_calls]
            return {"role": "assistant", "text": message.text} | ({"tool_calls": calls} if calls else {})
        case ToolMessage():
            return {"role": "tool", "call_id": message.call_id, "text": uncaptioned(message.text), "ok": message.ok}
        case _:
            return {"role": "user", "text": message.text}


def same_at_first(then: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> int:
    """How many messages at the beginning of both are the same."""
    return next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))


def is_counted(event: Event) -> bool:
    """True for the entries of a run's transcript that `Person.after` counts."""
    return isinstance(event, Message | ToolResulted | PlanUpdated | ContextCompacted)
