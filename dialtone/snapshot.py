"""A folded thread as lines: what the events of a gap would have told."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from dialtone import lines
from dialtone.paint import Paint
from dialtone.text import one_line, safe_lines
from workflow.core.events import ApprovalRequested, PlanStep, Todo

T = TypeVar("T")

_STEPS = TypeAdapter(tuple[PlanStep, ...])
_TODOS = TypeAdapter(tuple[Todo, ...])
_QUESTIONS = TypeAdapter(dict[str, ApprovalRequested])

FILES = 20
MESSAGE_LINES = 15


def snapshot_lines(state: dict[str, Any], *, paint: Paint, width: int) -> list[str]:
    """The last messages, the plan, the todos, the files and the open questions of a folded state.

    state: `ThreadState` as JSON. A part that cannot be read is left out: it is a summary, not a fact.
    """
    block = _messages(state.get("transcript"), paint=paint, width=width)
    steps, items = _read(_STEPS, state.get("plan")), _read(_TODOS, state.get("todos"))
    plan = lines.step_lines(steps or (), paint=paint, width=width)
    todos = lines.todo_lines(items or (), paint=paint, width=width)
    for heading, part in (("Plan", plan), ("Todos", todos), ("Files", _files(state.get("files"), paint, width))):
        block += [paint.bold(heading), *part] if part else []
    for question in (_read(_QUESTIONS, state.get("questions")) or {}).values():
        block += lines.question_lines(question, paint=paint, width=width)
    return block


def _messages(transcript: Any, *, paint: Paint, width: int) -> list[str]:
    entries = [entry for entry in transcript if isinstance(entry, dict)] if isinstance(transcript, list) else []
    block: list[str] = []
    for entry in entries[-50:]:
        if entry.get("type") == "run.queued":
            block.append(paint.bold(f"▶ {one_line(str(entry.get('task', '')), width - 2)}"))
        elif entry.get("type") == "message" and str(entry.get("text", "")).strip():
            block += ["", *safe_lines(str(entry["text"])[:4000], width)[:MESSAGE_LINES], ""]
    return block


def _files(files: Any, paint: Paint, width: int) -> list[str]:
    paths = sorted(files) if isinstance(files, dict) else []
    more = [paint.dim(f"  … {len(paths) - FILES} more")] if len(paths) > FILES else []
    return [f"  {one_line(path, width - 2)}" for path in paths[:FILES]] + more


def _read(kind: TypeAdapter[T], value: Any) -> T | None:
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None
