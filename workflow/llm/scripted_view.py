"""Where a scripted run stands, read from nothing but the request's messages."""

import re
from dataclasses import dataclass

from workflow.core.events import ToolCall
from workflow.core.ids import CallId
from workflow.llm.base import AssistantMessage, ChatMessage, ModelRequest, ToolMessage, UserMessage

SCRIPT = re.compile(r"^[ \t]*```script[ \t]*\n(?P<body>.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)

# Ids made by `scripted_turns.new_call_id` carry their turn, so that the place is known after a compaction too.
_CALL_ID = re.compile(r"call_[0-9a-f]{8}_(?P<turn>\d+)_\d+")


@dataclass(frozen=True, slots=True)
class Done:
    """A call of this run and what it gave back; `result` is None while it is unknown."""

    call: ToolCall
    result: ToolMessage | None


@dataclass(frozen=True, slots=True)
class View:
    """What a scripted model needs to know to take its next turn."""

    task: str
    turn: int
    """Turns taken since the task, 0 for the first."""
    done: tuple[Done, ...]
    """The calls since the task, in order."""
    steering: tuple[str, ...]
    """What the person wrote since the task."""
    tools: frozenset[str]
    """Names of the tools that may be called."""

    @classmethod
    def of(cls, request: ModelRequest) -> "View":
        place = _task_place(request.messages)
        # The agent adds where and when a task was given; a date in there is no wish of the person's.
        task = request.messages[place].text.partition("\n\n<context>")[0] if place >= 0 else ""
        since = request.messages[place + 1 :]
        results = {message.call_id: message for message in since if isinstance(message, ToolMessage)}
        calls = (call for message in since if isinstance(message, AssistantMessage) for call in message.tool_calls)
        return cls(
            task=task,
            turn=_turns_taken(since),
            done=tuple(Done(call, results.get(call.id)) for call in calls),
            steering=tuple(m.text for m in since if isinstance(m, UserMessage) and not _is_reminder(m)),
            tools=frozenset(tool.name for tool in request.tools if request.allow_calls),
        )

    def results(self, tool: str) -> tuple[ToolMessage, ...]:
        """The results of one tool since the task, in call order."""
        return tuple(step.result for step in self.done if step.call.name == tool and step.result is not None)


def _task_place(messages: tuple[ChatMessage, ...]) -> int:
    """Index of the request that the present run works on; -1 when there is none.

    The newest message marked `is_task`. A caller that marks none gets the newest one with a script block, else
    the newest that follows a finished answer, else the first.
    """
    users = [(place, message) for place, message in enumerate(messages) if isinstance(message, UserMessage)]
    for fits in (
        lambda place, message: message.is_task,
        lambda place, message: SCRIPT.search(message.text) is not None,
        lambda place, message: not _is_reminder(message) and _begins(messages, place),
    ):
        places = [place for place, message in users if fits(place, message)]
        if places:
            return places[-1]
    return -1


def _begins(messages: tuple[ChatMessage, ...], place: int) -> bool:
    before = messages[place - 1] if place else None
    if isinstance(before, AssistantMessage):
        return not before.tool_calls
    return not any(isinstance(message, UserMessage | AssistantMessage) for message in messages[:place])


def _is_reminder(message: ChatMessage) -> bool:
    """Agents put their own remarks to the model in angle brackets, e.g. `<reminder>`."""
    return message.text.lstrip().startswith("<")


def _turns_taken(since: tuple[ChatMessage, ...]) -> int:
    turns = 0
    for message in since:
        if isinstance(message, AssistantMessage):
            turns += 1
            turns = max([turns, *(_next_turn(call.id) for call in message.tool_calls)])
    return turns


def _next_turn(call_id: CallId) -> int:
    match = _CALL_ID.fullmatch(call_id)
    return int(match["turn"]) + 1 if match else 0
