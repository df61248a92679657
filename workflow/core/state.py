"""The state of a thread, folded from its log: what an agent resumes from and a browser converges to.

Nothing here is stored: `fold(events)` gives it again at any time. The gateway sends it as the snapshot of a
`gap`; the agent rebuilds its context from it after a takeover.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from workflow.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    ContextCompacted,
    Event,
    FileChanged,
    Message,
    Notice,
    PlanStep,
    PlanUpdated,
    PreviewExposed,
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
    SandboxReady,
    SuggestionsMade,
    Todo,
    TodoUpdated,
    ToolCalled,
    ToolResulted,
    Usage,
    UsageUpdated,
    WorkspaceSaved,
)
from workflow.core.ids import CallId, RunId


@dataclass(slots=True)
class RunState:
    """One run as its events tell it."""

    run_id: RunId
    task: str = ""
    status: str = "queued"
    """`queued`, `running`, `finished`, `failed`, `cancelled`."""
    attempt: int = 0
    turn: int = 0
    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    active_ms: int = 0
    """Time spent at work, by the log's clock; waiting for a worker or a person does not count."""
    seen_ms: int = 0
    """Time of the last event while at work; 0 while nobody works."""
    reason: str = ""

    def clock(self, event: Event) -> None:
        """Adds the time since the last event to `active_ms`, unless a pause lies between."""
        if self.seen_ms and not isinstance(event, RunResumed | ApprovalResolved):
            self.active_ms += max(0, event.at - self.seen_ms)
        if self.status == "running" or isinstance(event, RunStarted | RunResumed):
            self.seen_ms = event.at


@dataclass(slots=True)
class ThreadState:
    """Everything a reader of the whole log would know."""

    last_id: str = ""
    runs: dict[RunId, RunState] = field(default_factory=dict)
    transcript: list[RunQueued | Message | ToolResulted | PlanUpdated | ContextCompacted] = field(default_factory=list)
    """What a model reads again, in order; starts over at the last compaction."""
    calls: dict[CallId, ToolCalled] = field(default_factory=dict)
    """Intents without a result yet."""
    held: set[CallId] = field(default_factory=set)
    """Of those, the ones that a person must allow first and that did not begin: an intent follows when they do."""
    call_ids: set[CallId] = field(default_factory=set)
    """Every tool call id of the thread, so that none is used twice."""
    plan: tuple[PlanStep, ...] = ()
    todos: tuple[Todo, ...] = ()
    files: dict[str, FileChanged] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    """Path → sha256 of what the model last saw of a file; survives compaction and takeover."""
    questions: dict[str, ApprovalRequested] = field(default_factory=dict)
    """Open questions by id."""
    answers: dict[str, ApprovalResolved] = field(default_factory=dict)
    previews: dict[int, PreviewExposed] = field(default_factory=dict)
    suggestions: tuple[str, ...] = ()
    saved: WorkspaceSaved | None = None
    """The newest snapshot of the workspace."""

    def apply(self, event: Event) -> None:
        """Takes one more event in. Events must come in the log's order."""
        self.last_id = event.id or self.last_id
        run = self._run(event.run_id)
        if run is not None:
            run.turn = max(run.turn, event.turn)
            run.clock(event)
        match event:
            case RunQueued():
                self.transcript.append(event)
                if run is not None:
                    run.task = event.task
            case RunStarted() | RunResumed():
                if run is not None:
                    run.status, run.attempt = "running", event.attempt
            case Message():
                self.transcript.append(event)
                self.call_ids.update(call.id for call in event.tool_calls)
            case ToolCalled():
                self.calls[event.call_id] = event
                self.held.discard(event.call_id)
            case ToolResulted():
                self.calls.pop(event.call_id, None)
                self.held.discard(event.call_id)
                self.transcript.append(event)
                seen = event.data.get("facts")
                if isinstance(seen, dict):
                    self.facts.update(seen)
            case PlanUpdated():
                self.plan = event.steps
                self.transcript.append(event)
            case TodoUpdated():
                self.todos = event.items
            case FileChanged():
                self._file(event)
            case ApprovalRequested():
                self.questions[event.question_id] = event
                if event.kind == "approval" and event.call_id is not None:
                    self.held.add(event.call_id)
            case ApprovalResolved():
                self.questions.pop(event.question_id, None)
                self.answers[event.question_id] = event
            case PreviewExposed():
                self.previews[event.port] = event
            case SuggestionsMade():
                self.suggestions = event.items
            case UsageUpdated():
                if run is not None:
                    run.usage = event.run
                    run.model_calls += 1
            case ContextCompacted():
                self._compact(event)
            case WorkspaceSaved():
                self.saved = event
            case SandboxReady() | Notice():
                pass
            case _:
                self._end(event, run)

    def _run(self, run_id: RunId | None) -> RunState | None:
        if run_id is None:
            return None
        return self.runs.setdefault(run_id, RunState(run_id))

    def _file(self, event: FileChanged) -> None:
        if event.change == "deleted":
            self.files.pop(event.path, None)
        else:
            self.files[event.path] = event

    @property
    def open_runs(self) -> set[RunId]:
        """The runs that have not ended."""
        return {run.run_id for run in self.runs.values() if run.status in {"queued", "running"}}

    def _compact(self, event: ContextCompacted) -> None:
        open_runs = self.open_runs
        kept = [
            entry
            for entry in self.transcript
            if _after(entry.id, event.through) or (isinstance(entry, RunQueued) and entry.run_id in open_runs)
        ]
        plans = [entry for entry in self.transcript if isinstance(entry, PlanUpdated) and entry not in kept]
        self.transcript = [event, *plans[-1:], *kept]

    def _end(self, event: Event, run: RunState | None) -> None:
        if run is None:
            return
        run.status = event.type.removeprefix("run.")
        run.reason = getattr(event, "reason", "")
        if isinstance(event, RunFinished):
            run.usage = event.usage
        for question_id in [q for q, e in self.questions.items() if e.run_id == run.run_id]:
            del self.questions[question_id]
        for call_id in [c for c, e in self.calls.items() if e.run_id == run.run_id]:
            del self.calls[call_id]


def _after(event_id: str, cursor: str) -> bool:
    """True if `event_id` comes after `cursor`; ids compare as pairs of integers."""
    return tuple(map(int, event_id.split("-"))) > tuple(map(int, cursor.split("-")))


def fold(events: Iterable[Event], state: ThreadState | None = None) -> ThreadState:
    """The state after `events`, starting from `state` or from nothing."""
    state = state or ThreadState()
    for event in events:
        state.apply(event)
    return state
