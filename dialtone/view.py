"""Renders a stream as readable text: feed it the items, write what it gives back.

Pure: no terminal, no clock. The same items give the same text, whatever was lost on the way except previews.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dialtone import lines
from dialtone.items import Gap, Reset, StreamItem, Waiting
from dialtone.output import CallOutput
from dialtone.paint import Paint
from dialtone.preview import Shown
from dialtone.snapshot import snapshot_lines
from dialtone.text import neutral, one_line, safe_lines
from workflow.core.events import (
    ApprovalRequested,
    Delta,
    DeltaKind,
    FileChanged,
    Message,
    PlanUpdated,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
    SuggestionsMade,
    TodoUpdated,
    ToolCalled,
    ToolResulted,
    UsageUpdated,
)

_SHOWN_BY_EVENTS = frozenset({"job_plan", "todo_write", "suggest_next_steps"})
"""Tools whose result is an event of its own: their calls are shown only when they fail."""

_SHOWN_AS_DIFFS = frozenset({"file_edit", "multi_edit", "files_creation"})
"""Tools whose effect is shown by `file.changed`: a result that says the same is left out."""

_COMMANDS = frozenset({"bash"})
"""Tools whose output is what a person came to see; of others a few lines are enough."""


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """How to render. Lengths are in terminal columns and lines."""

    color: bool = False
    width: int = 100
    output_lines: int = 40
    result_lines: int = 6
    diff_lines: int = 40
    reasoning: bool = False
    """Show what the model thinks, not only that it does."""


@dataclass(slots=True)
class _RunView:
    """What is on the screen about one run."""

    started_at: int = 0
    is_at_work: bool = False
    plan: list[str] = field(default_factory=list)
    todos: list[str] = field(default_factory=list)
    waiting: str = ""
    last_text: str = ""


class View:
    """One rendering. `feed` gives the text to append; nothing that was given is ever taken back."""

    def __init__(self, options: ViewOptions | None = None) -> None:
        self._options = options or ViewOptions()
        self._paint = Paint(self._options.color)
        self._width = max(40, self._options.width)
        self._runs: dict[str, _RunView] = {}
        self._texts: dict[tuple[str, DeltaKind], Shown] = {}
        self._outputs: dict[str, CallOutput] = {}
        self._finished: set[str] = set()
        """Messages whose late previews are ignored."""
        self._open: tuple[str, DeltaKind] | None = None
        """The message whose text stands at the end of the screen."""
        self._last_call = ""
        self._at_line_start = True
        self._after_blank = True

    def feed(self, item: StreamItem) -> str:
        """The text that `item` adds, empty when it adds none."""
        match item:
            case Delta():
                return self._delta(item)
            case Message():
                return self._message(item)
            case Waiting() | Gap() | Reset():
                return self._block(self._news(item))
            case ToolCalled() | ToolResulted():
                return self._block(self._call(item))
            case _:
                return self._block(self._fact(item))

    def close(self) -> str:
        """Ends the line that is open."""
        return self._leave_text()

    def _delta(self, delta: Delta) -> str:
        if delta.item in self._finished:
            return ""
        match delta.kind:
            case DeltaKind.TEXT:
                new = self._texts.setdefault((delta.item, delta.kind), Shown()).take(delta.offset, delta.text)
                return self._text(delta.item, delta.kind, new)
            case DeltaKind.REASONING:
                shown = self._texts.setdefault((delta.item, delta.kind), Shown())
                if self._options.reasoning:
                    return self._text(delta.item, delta.kind, shown.take(delta.offset, delta.text))
                first = shown.length == 0 and not shown.has_hole
                shown.take(delta.offset, delta.text)
                return self._block([self._paint.dim("thinking …")]) if first else ""
            case DeltaKind.STDOUT | DeltaKind.STDERR:
                output = self._outputs.get(delta.item)
                if output is None:
                    return ""
                new_lines = output.take(delta.kind, delta.offset, delta.text)
                return self._block(self._headed(delta.item, output, new_lines))
            case DeltaKind.ARGUMENTS:
                return ""

    def _text(self, item: str, kind: DeltaKind, text: str) -> str:
        """A piece of a message, after whatever opens it."""
        if not text:
            return ""
        opening = ""
        if self._open != (item, kind):
            opening = self._leave_text() + ("" if self._after_blank else "\n")
            self._open = (item, kind)
        safe = neutral(text)
        self._at_line_start = safe.endswith("\n")
        return opening + (self._paint.dim(safe) if kind is DeltaKind.REASONING else safe)

    def _leave_text(self) -> str:
        if self._open is None:
            return ""
        ending = "\n" if self._at_line_start else "\n\n"
        self._open, self._after_blank = None, True
        return ending

    def _block(self, block: list[str]) -> str:
        if not block:
            return ""
        opening = self._leave_text()
        self._after_blank = not block[-1]
        return opening + "".join(f"{line}\n" for line in block)

    def _message(self, message: Message) -> str:
        if message.origin == "agent":
            return self._block([self._paint.dim(f"  (reminder: {one_line(message.text, self._width - 14)})")])
        if message.role == "user":
            said = safe_lines(message.text, self._width - 2)
            return self._block([self._paint.cyan(f"» {said[0]}"), *(f"  {line}" for line in said[1:20])])
        thought = self._missing(message.item, DeltaKind.REASONING, message.reasoning if self._options.reasoning else "")
        said_now = self._missing(message.item, DeltaKind.TEXT, message.text)
        self._run(message.run_id).last_text = message.text.strip() or self._run(message.run_id).last_text
        self._finished.add(message.item)
        return thought + said_now + self._leave_text()

    def _missing(self, item: str, kind: DeltaKind, whole: str) -> str:
        """What of a finished text is not on the screen yet."""
        shown = self._texts.pop((item, kind), None)
        rest = shown.rest_of(whole) if shown and whole else whole
        if rest is not None:
            return self._text(item, kind, rest)
        note = self._block([self._paint.dim("(the message was written anew)")])
        return note + self._text(item, kind, whole)

    def _call(self, event: ToolCalled | ToolResulted) -> list[str]:
        tool = one_line(event.tool, 40)
        quiet = event.tool in _SHOWN_BY_EVENTS
        if isinstance(event, ToolCalled):
            title = lines.call_title(event.arguments, self._width - len(tool) - 4)
            heading = f"{self._paint.cyan('●')} {self._paint.bold(tool)} {title}".rstrip()
            limit = self._options.output_lines if event.tool in _COMMANDS else self._options.result_lines
            output = CallOutput(title=heading, paint=self._paint, width=self._width, limit=limit)
            self._outputs[event.call_id] = output
            self._last_call = event.call_id
            note = [self._paint.dim(f"  {one_line(event.note, self._width - 2)}")] if event.note else []
            return [] if quiet else [heading, *note]
        unseen = CallOutput(title=tool, paint=self._paint, width=self._width, limit=self._options.result_lines)
        output = self._outputs.pop(event.call_id, unseen)
        if quiet and event.ok:
            return []
        rest = [] if event.ok and event.tool in _SHOWN_AS_DIFFS else output.finish(event.output)
        return [*self._headed(event.call_id, output, rest), self._verdict(event)]

    def _headed(self, call_id: str, output: CallOutput, block: list[str]) -> list[str]:
        """Output lines, after a line that says whose they are when another call came between."""
        if not block or self._last_call == call_id:
            return block
        self._last_call = call_id
        return [self._paint.dim("┄ ") + output.title, *block]

    def _verdict(self, event: ToolResulted) -> str:
        took = lines.duration_text(event.duration_ms)
        status = event.data.get("exit_code")
        facts = f"exit {status} · {took}" if isinstance(status, int) else took
        if event.ok:
            return f"  {self._paint.green('✔')} {self._paint.dim(facts)}"
        kind = one_line(event.error, 40)
        return f"  {self._paint.red(f'✘ {kind}'.rstrip())} {self._paint.dim(facts)}"

    def _fact(self, event: Any) -> list[str]:
        paint, width = self._paint, self._width
        match event:
            case RunQueued():
                self._run(event.run_id).started_at = event.at
                task = safe_lines(event.task[:8000], width - 2)
                more = [paint.dim(f"  … {len(task) - 8} more lines")] if len(task) > 8 else []
                return [paint.bold(f"▶ {task[0]}"), *(f"  {line}" for line in task[1:8]), *more]
            case RunStarted():
                self._run(event.run_id).is_at_work = True
                where = " · ".join(filter(None, (event.model, event.sandbox, _configuration(event.config_hash))))
                return [paint.dim(f"  started on {one_line(event.worker, 40)} · {one_line(where, width - 60)}")]
            case RunResumed():
                worker = one_line(event.worker, 40)
                why = ", ".join(filter(None, (event.reason, _configuration(event.config_hash))))
                return [paint.yellow(f"  ↻ resumed on {worker} (attempt {event.attempt}, {why})")]
            case RunFinished() | RunFailed() | RunCancelled():
                return self._end(event)
            case PlanUpdated():
                run = self._run(event.run_id)
                plan = lines.step_lines(event.steps, paint=paint, width=width)
                shown, run.plan = lines.changed_lines(run.plan, plan), plan
                return [paint.bold("Plan"), *shown] if shown else []
            case TodoUpdated():
                run = self._run(event.run_id)
                todos = lines.todo_lines(event.items, paint=paint, width=width)
                shown, run.todos = lines.changed_lines(run.todos, todos), todos
                return [paint.bold("Todos"), *shown] if shown else []
            case FileChanged():
                return lines.file_lines(event, paint=paint, width=width, limit=self._options.diff_lines)
            case ApprovalRequested():
                return lines.question_lines(event, paint=paint, width=width)
            case UsageUpdated():
                text = lines.usage_text(event.run, event.left)
                return [paint.dim(f"  turn {event.turn} · {text}")]
            case SuggestionsMade():
                items = [f"  {index}. {one_line(item, width - 6)}" for index, item in enumerate(event.items, 1)]
                return [paint.bold("Next"), *items] if items else []
            case _:
                return lines.remark_lines(event, paint=paint, width=width)

    def _end(self, event: RunFinished | RunFailed | RunCancelled) -> list[str]:
        run = self._runs.pop(event.run_id or "", _RunView())
        elapsed_ms = event.at - run.started_at if run.started_at and event.at else None
        summary = "" if isinstance(event, RunCancelled) else event.summary.strip()
        block = [] if not summary or summary == run.last_text else ["", *safe_lines(summary, 10_000), ""]
        return block + lines.end_lines(event, elapsed_ms=elapsed_ms, paint=self._paint, width=self._width)

    def _news(self, item: Waiting | Gap | Reset) -> list[str]:
        """What happened to the stream itself."""
        match item:
            case Waiting():
                run = self._run(item.run_id)
                if run.is_at_work and not item.waiting_for:
                    run.waiting = ""
                    return []
                ahead = "" if item.position is None else f"{item.position} before it"
                why = f"for {item.waiting_for}" if item.waiting_for else ""
                text = " · ".join(filter(None, [f"waiting {why}".rstrip(), ahead]))
                if text == run.waiting:
                    return []
                run.waiting = text
                return [self._paint.dim(f"  {one_line(text, self._width - 2)}")]
            case Gap():
                missing = one_line(f"{item.first} to {item.last}", 80)
                return [self._paint.yellow(f"! events {missing} are no longer in the log"), *self._snapshot(item.state)]
            case Reset():
                self._forget()
                note = self._paint.yellow("! this is another log than before; it starts anew")
                return [note, *self._snapshot(item.state)]

    def _snapshot(self, state: dict[str, Any] | None) -> list[str]:
        return snapshot_lines(state or {}, paint=self._paint, width=self._width)

    def _forget(self) -> None:
        self._runs.clear()
        self._texts.clear()
        self._outputs.clear()

    def _run(self, run_id: str | None) -> _RunView:
        return self._runs.setdefault(run_id or "", _RunView())


def render(items: Iterable[StreamItem], options: ViewOptions | None = None) -> str:
    """The whole text of a stream."""
    view = View(options)
    return "".join(map(view.feed, items)) + view.close()


def _configuration(config_hash: str) -> str:
    """Which configuration a run goes on with; the same words in both lines."""
    return f"configuration {one_line(config_hash, 16)}" if config_hash else ""
