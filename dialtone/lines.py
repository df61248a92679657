"""Events as readable lines. Pure: everything a line shows is in its arguments, and is made safe here."""

import json
from collections.abc import Sequence
from typing import Any

from dialtone.items import UnknownEvent
from dialtone.paint import Paint
from dialtone.text import clip, neutral_line, one_line, safe_lines, wrapped
from workflow.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    ContextCompacted,
    EventBase,
    FileChanged,
    Notice,
    PlanStep,
    PreviewExposed,
    RunCancelled,
    RunFailed,
    RunFinished,
    SandboxReady,
    Todo,
    Usage,
)

_MARKS = {
    "pending": "☐",
    "in_progress": "◐",
    "done": "☑",
    "completed": "☑",
    "dropped": "☒",
    "cancelled": "☒",
}
ASKED_CHARS = 20_000
"""Of a question and of the call that it is about, at most so much is shown."""

_TITLE_FIELDS = ("command", "path", "pattern", "query", "url", "name", "template", "port", "title", "prompt")
"""The argument that says most about a call, in this order."""


def step_lines(steps: Sequence[PlanStep], *, paint: Paint, width: int) -> list[str]:
    """A plan as a checklist."""
    return [
        _check(f"{index}. {step.title}", step.status, step.note, paint, width) for index, step in enumerate(steps, 1)
    ]


def todo_lines(items: Sequence[Todo], *, paint: Paint, width: int) -> list[str]:
    """Todos as a checklist."""
    return [_check(item.content, item.status, "", paint, width) for item in items]


def changed_lines(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The lines of `after` worth showing again: those that changed, or all when the list itself is another one."""
    if len(before) != len(after):
        return list(after)
    return [new for old, new in zip(before, after, strict=True) if old != new]


def _check(title: str, status: str, note: str, paint: Paint, width: int) -> str:
    text = one_line(f"{_MARKS.get(status, '☐')} {title}", width - 2)
    match status:
        case "in_progress":
            text = paint.bold(text)
        case "done" | "completed":
            text = paint.green(text)
        case "dropped" | "cancelled":
            text = paint.dim(text)
    room = width - 6 - len(title)
    if note and room > 20:
        text += paint.dim(f" — {one_line(note, room)}")
    return f"  {text}"


def call_title(arguments: dict[str, Any], width: int) -> str:
    """What a tool call is about, in one line."""
    for name in _TITLE_FIELDS:
        value = arguments.get(name)
        if isinstance(value, str | int) and str(value).strip():
            return one_line(str(value), width)
    for value in arguments.values():
        if isinstance(value, list) and value and isinstance(value[0], dict) and "path" in value[0]:
            return one_line(", ".join(str(item.get("path", "")) for item in value if isinstance(item, dict)), width)
    return one_line(json.dumps(arguments, ensure_ascii=False), width) if arguments else ""


def file_lines(event: FileChanged, *, paint: Paint, width: int, limit: int) -> list[str]:
    """A changed file and its diff, at most `limit` lines of it."""
    diff = [line for line in event.diff.splitlines() if not line.startswith(("--- ", "+++ "))]
    added = sum(line.startswith("+") for line in diff)
    removed = sum(line.startswith("-") for line in diff)
    counts = f" {paint.green(f'+{added}')} {paint.red(f'−{removed}')}" if diff else ""
    mark = {"created": "+", "modified": "±", "deleted": "−"}[event.change]
    path = one_line(event.path, width - 24)
    lines = [f"{paint.cyan(f'{mark} {path}')} {paint.dim(event.change)}{counts}"]
    lines += [f"  {_diff_line(line, paint, width - 2)}".rstrip() for line in diff[:limit]]
    if len(diff) > limit:
        lines.append(paint.dim(f"  … {len(diff) - limit} more lines of the diff"))
    return lines


def _diff_line(line: str, paint: Paint, width: int) -> str:
    text = clip(neutral_line(line[: 50 * width]), width)
    match line[:1]:
        case "+":
            return paint.green(text)
        case "-":
            return paint.red(text)
        case "@":
            return paint.cyan(text)
    return paint.dim(text)


def question_lines(event: ApprovalRequested, *, paint: Paint, width: int) -> list[str]:
    """A question with what it is about and the answers that are understood: whole, for a person decides by it."""
    heading = {"approval": "May it?", "review": "Please check", "question": "Question"}[event.kind]
    lines = [paint.yellow(paint.bold(f"? {heading}"))]
    asked = [event.prompt]
    if event.tool and event.kind != "question":
        asked.append(f"{event.tool} {_call_text(event.arguments)}")
    for text in asked:
        lines += [f"  {line}" for line in wrapped(text[:ASKED_CHARS], width - 2)]
        if len(text) > ASKED_CHARS:
            rest = f"{len(text) - ASKED_CHARS:,} more characters, in `dialtone logs {event.run_id} --json`"
            lines.append(f"  {paint.yellow(f'… {neutral_line(rest)}')}")
    if event.choices:
        lines += [f"  {line}" for line in wrapped(f"answers: {' | '.join(event.choices)}", width - 2)]
    return lines


def _call_text(arguments: dict[str, Any]) -> str:
    """Everything that a tool is called with."""
    match list(arguments.values()):
        case []:
            return ""
        case [str(only)]:
            return only
    return json.dumps(arguments, ensure_ascii=False, indent=2)


def usage_text(usage: Usage, left: dict[str, float] | None = None) -> str:
    """E.g. `12,345 tokens (9,000 cached) · $0.0123 · $4.98 left`."""
    parts = [f"{usage.tokens:,} tokens"]
    if usage.cache_read_tokens:
        parts[0] += f" ({usage.cache_read_tokens:,} cached)"
    if usage.cost_usd:
        parts.append(money(usage.cost_usd))
    if left and "usd" in left:
        parts.append(f"{money(left['usd'])} left")
    return " · ".join(parts)


def money(usd: float) -> str:
    """Dollars, with more places for small sums."""
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"


def duration_text(milliseconds: int) -> str:
    """E.g. `0.3 s`, `42 s`, `3 min 05 s`, `2 h 03 min`."""
    seconds = max(0, milliseconds) / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def end_lines(
    event: RunFinished | RunFailed | RunCancelled, *, elapsed_ms: int | None, paint: Paint, width: int
) -> list[str]:
    """How a run ended, with its reason and its cost."""
    facts = [] if elapsed_ms is None else [duration_text(elapsed_ms)]
    facts += [f"{event.turn} turn{'s' if event.turn != 1 else ''}"] if event.turn else []
    facts += [usage_text(event.usage)] if event.usage.tokens else []
    cost = paint.dim(f" · {' · '.join(facts)}") if facts else ""
    match event:
        case RunFinished():
            return [paint.green("✔ finished") + cost]
        case RunCancelled():
            return [paint.yellow(f"■ cancelled: {one_line(event.reason, width - 16)}") + cost]
        case RunFailed():
            detail = [f"  {line}" for line in safe_lines(event.detail[:4000], width - 2)[:10]] if event.detail else []
            return [paint.red(f"✘ failed: {one_line(event.reason, width - 12)}") + cost, *detail]


def remark_lines(event: EventBase, *, paint: Paint, width: int) -> list[str]:
    """The events that one quiet line tells."""
    match event:
        case SandboxReady():
            gaps = f" · not guaranteed: {'; '.join(event.gaps)}" if event.gaps else ""
            text = f"sandbox {event.provider}/{event.tier}, network {event.network}{gaps}"
            return [paint.dim(f"  {one_line(text, width - 4)}")]
        case PreviewExposed():
            return [paint.cyan(f"  ↗ {one_line(event.url, len(event.url))}")]  # half a link leads nowhere
        case ApprovalResolved():
            by = f" by {event.by}" if event.by else ""
            return [paint.dim(f"  {one_line(f'answered: {event.answer}{by} {event.note}', width - 4)}")]
        case ContextCompacted():
            return [paint.dim(f"  context made shorter: {event.tokens_before:,} → {event.tokens_after:,} tokens")]
        case Notice():
            return [paint.yellow(f"  ! {one_line(event.text or event.code, width - 4)}")]
        case UnknownEvent():
            return [paint.dim(f"  {one_line(event.type, width - 4)}")]
    return []
