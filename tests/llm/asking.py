"""Requests and collected answers for the tests of the model layer."""

from collections.abc import AsyncIterable, Sequence
from typing import Any

from workflow.llm.base import (
    ChatMessage,
    Completion,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    SystemMessage,
    TextDelta,
    ToolCallDelta,
    ToolSpec,
    UserMessage,
)

ALL_TOOLS = (
    "job_plan",
    "todo_write",
    "bash",
    "file_read",
    "file_edit",
    "files_creation",
    "grep",
    "ls",
    "suggest_next_steps",
)
BASH = ToolSpec(
    "bash",
    "Runs a command.",
    {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
)


def ask(task: str, *, tools: Sequence[str] = ALL_TOOLS, model: str = "scripted") -> ModelRequest:
    """A first request: system prompt, one task, tools without arguments."""
    return ModelRequest(
        model=model,
        messages=(SystemMessage("You are an agent."), UserMessage(task, is_task=True)),
        tools=tuple(ToolSpec(name, name, {"type": "object", "properties": {}}) for name in tools),
    )


def continued(request: ModelRequest, *messages: ChatMessage) -> ModelRequest:
    """The same request with more messages."""
    return ModelRequest(model=request.model, messages=(*request.messages, *messages), tools=request.tools)


async def collect(events: AsyncIterable[ModelEvent]) -> list[ModelEvent]:
    """Every piece of a stream."""
    return [event async for event in events]


async def completed(events: AsyncIterable[ModelEvent]) -> Completion:
    """The Completion of a stream, after a check that the pieces add up to it."""
    pieces = await collect(events)
    last = pieces[-1]
    assert isinstance(last, Completion)
    assert joined(pieces) == (last.text, last.reasoning, [(c.id, c.name, c.arguments) for c in last.tool_calls])
    return last


def joined(pieces: Sequence[ModelEvent]) -> tuple[str, str, list[tuple[Any, ...]]]:
    """Text, reasoning and calls that a watcher of the pieces would have put together."""
    text = "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))
    reasoning = "".join(piece.text for piece in pieces if isinstance(piece, ReasoningDelta))
    calls: dict[int, tuple[Any, ...]] = {}
    for piece in pieces:
        if isinstance(piece, ToolCallDelta):
            before = calls.get(piece.index, (piece.id, piece.name, ""))
            assert before[:2] == (piece.id, piece.name)
            calls[piece.index] = (*before[:2], before[2] + piece.arguments)
    return text, reasoning, [calls[index] for index in sorted(calls)]
