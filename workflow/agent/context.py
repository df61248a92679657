"""What the model reads: messages folded from the thread's log.

The same log always gives the same messages, and a longer log only adds to their end. That keeps a provider's
prompt cache warm and lets another worker go on after the last committed step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from workflow.core.events import (
    ContextCompacted,
    Message,
    PlanStep,
    PlanUpdated,
    RunQueued,
    ToolResulted,
)
from workflow.core.ids import CallId, RunId
from workflow.core.state import ThreadState
from workflow.llm.base import (
    AssistantMessage,
    ChatMessage,
    Image,
    SystemMessage,
    ToolMessage,
    UserMessage,
)

Entry = RunQueued | Message | ToolResulted | PlanUpdated | ContextCompacted

NOT_RUN = "(not run: the run ended before)"
_MARKS = {"pending": "[ ]", "in_progress": "[>]", "done": "[x]", "dropped": "[-]"}


def entries_of(state: ThreadState, run_id: RunId) -> list[Entry]:
    """The transcript in the order the runs were worked on, up to and with `run_id`.

    A task that was queued while another ran stands where its own run began; runs that never began are left out.
    """
    groups: dict[RunId | None, list[Entry]] = {}
    begun: list[RunId | None] = []
    tasks: dict[RunId | None, RunQueued] = {}
    summary: list[Entry] = []
    current: RunId | None = None
    for entry in state.transcript:
        if isinstance(entry, RunQueued):
            tasks[entry.run_id] = entry
        elif isinstance(entry, ContextCompacted):
            summary = [entry]
        else:
            current = entry.run_id or current
            if current not in groups:
                groups[current] = []
                begun.append(current)
            groups[current].append(entry)
    if run_id not in groups:
        begun.append(run_id)
    ordered = [[*([tasks[run]] if run in tasks else []), *groups.get(run, [])] for run in begun]
    return [*summary, *(entry for group in ordered for entry in group)]


def messages_of(
    entries: Iterable[Entry], run_id: RunId, *, system: str, images: Mapping[CallId, tuple[Image, ...]]
) -> tuple[ChatMessage, ...]:
    """The messages for the model; `images` are those still at hand, by tool call."""
    builder = _Builder(run_id, images)
    for entry in entries:
        builder.add(entry)
    builder.close_calls()
    return (SystemMessage(system), *builder.messages)


def plan_line(steps: Iterable[PlanStep]) -> str:
    """The plan in one line, e.g. `[x] 1 Read · [>] 2 Write · [ ] 3 Test`."""
    return " · ".join(f"{_MARKS[step.status]} {step.id} {step.title}" for step in steps)


@dataclass(slots=True)
class _Builder:
    """Puts tool results in call order behind their call, and whatever came in between behind them."""

    run_id: RunId
    images: Mapping[CallId, tuple[Image, ...]]
    messages: list[ChatMessage] = field(default_factory=list)
    plan: tuple[PlanStep, ...] = ()
    calls: dict[CallId, str] = field(default_factory=dict)
    """Calls of the last assistant message, in order: id → tool."""
    results: dict[CallId, ToolMessage] = field(default_factory=dict)
    held: list[ChatMessage] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        match entry:
            case PlanUpdated():
                self.plan = entry.steps
            case ToolResulted():
                self._result(entry)
            case Message(role="assistant"):
                self.close_calls()
                self._assistant(entry)
            case _:
                self._say(_user(entry, is_task=isinstance(entry, RunQueued) and entry.run_id == self.run_id))

    def _assistant(self, entry: Message) -> None:
        if not entry.text and not entry.tool_calls:
            return  # providers refuse empty messages
        self.messages.append(
            AssistantMessage(
                text=entry.text,
                tool_calls=entry.tool_calls,
                reasoning=entry.reasoning,
                opaque=entry.opaque,
                model=entry.model,
            )
        )
        self.calls = {call.id: call.name for call in entry.tool_calls}

    def _result(self, entry: ToolResulted) -> None:
        if entry.call_id not in self.calls:
            return
        self.results[entry.call_id] = ToolMessage(
            call_id=entry.call_id,
            name=entry.tool,
            text=entry.output or "(no output)",
            ok=entry.ok,
            images=self.images.get(entry.call_id, ()),
        )
        if len(self.results) == len(self.calls):
            self.close_calls()

    def _say(self, message: ChatMessage) -> None:
        (self.held if self.calls else self.messages).append(message)

    def close_calls(self) -> None:
        """Ends the last batch of calls: each gets its result, the last one shows the plan."""
        if self.calls:
            batch = [
                self.results.get(call_id) or ToolMessage(call_id=call_id, name=name, text=NOT_RUN, ok=False)
                for call_id, name in self.calls.items()
            ]
            if self.plan:
                last = batch[-1]
                text = f"{last.text}\n\n<plan>{plan_line(self.plan)}</plan>"
                batch[-1] = ToolMessage(last.call_id, last.name, text, ok=last.ok, images=last.images)
            self.messages += batch
        self.messages += self.held
        self.calls, self.results, self.held = {}, {}, []


def _user(entry: Entry, *, is_task: bool) -> UserMessage:
    match entry:
        case RunQueued():
            when = datetime.fromtimestamp(entry.at / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
            came = f" Files that came with it: {', '.join(entry.files)}." if entry.files else ""
            return UserMessage(f"{entry.task}\n\n<context>Given on {when}.{came}</context>", is_task=is_task)
        case Message(origin="agent"):
            return UserMessage(f"<reminder>{entry.text}</reminder>")
        case Message():
            return UserMessage(entry.text or "(empty)")
        case ContextCompacted():
            return UserMessage(f"<notes>Earlier work in this thread, in your own notes:\n{entry.summary}</notes>")
        case _:
            raise TypeError(f"no message: {entry.type}")
