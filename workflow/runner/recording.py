"""Makes a cassette of any run that has ended, from the thread's log alone: nothing is recorded beforehand."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from workflow.agent.compaction import notes_of
from workflow.agent.context import entries_of, messages_of
from workflow.core.errors import BadInput
from workflow.core.events import (
    ApprovalResolved,
    ContextCompacted,
    Effect,
    Event,
    Message,
    PreviewExposed,
    RunQueued,
    RunStarted,
    ToolCalled,
    ToolResulted,
    Usage,
    UsageUpdated,
)
from workflow.core.ids import PREVIEW_SECRET, CallId, RunId, thread_of
from workflow.core.records import RunOptions
from workflow.core.state import ThreadState, fold
from workflow.llm.cassette import (
    Cassette,
    End,
    Exchange,
    Header,
    Person,
    ToolExchange,
    as_sent,
    is_counted,
    same_at_first,
)

_WITH_RESULT = frozenset({"file.changed", "plan.updated", "todo.updated", "preview.exposed", "suggestions"})


def record(events: Sequence[Event], run_id: RunId, *, options: RunOptions | None = None) -> Cassette:
    """The cassette of `run_id`. `events` is its thread's log, oldest first; what comes after the run does no harm.

    Raises: BadInput if the run has not ended, never began, or its beginning was trimmed away.
    """
    queued = next((e for e in events if isinstance(e, RunQueued) and e.run_id == run_id), None)
    start = next((i for i, e in enumerate(events) if isinstance(e, RunStarted) and e.run_id == run_id), None)
    end = next((i for i, e in enumerate(events) if e.terminal and e.run_id == run_id), None)
    if end is None:
        raise BadInput(f"run {run_id} has not ended")
    if start is None or queued is None:
        raise BadInput(f"run {run_id} never began to work, or its beginning is no longer in the log")
    started = events[start]
    assert isinstance(started, RunStarted)
    chosen = options or RunOptions(model=queued.model, files=queued.files)
    header = Header(
        run_id=run_id,
        thread_id=thread_of(run_id),
        task=queued.task,
        options=chosen.model_copy(update={"webhook": ""}),  # may hold a secret, and a replay tells nobody
        model=started.model,
        sandbox=started.sandbox,
        config_hash=started.config_hash,
    )
    recorder = _Recorder(run_id, fold(events[:start]))
    for event in events[start:end]:
        recorder.hear(event)
    exchanges = (*recorder.lines, *recorder.unfinished())
    return _without_links(Cassette(header, tuple(events[:start]), exchanges, _end(events[end])), events)


def _without_links(cassette: Cassette, events: Sequence[Event]) -> Cassette:
    """The same with a number for the secret of each preview link, wherever it stands: whoever has it may visit."""
    hosts = [urlsplit(event.url).hostname or "" for event in events if isinstance(event, PreviewExposed)]
    labels = dict.fromkeys(host.partition(".")[0] for host in hosts)
    masks = {label: f"preview-{n}" for n, label in enumerate(filter(PREVIEW_SECRET.fullmatch, labels), 1)}
    if not masks:
        return cassette
    secret = re.compile("|".join(masks), re.IGNORECASE)
    return Cassette.read(secret.sub(lambda match: masks[match[0].lower()], line) for line in cassette.lines())


class _Recorder:
    """Turns a run's events into exchanges, one by one."""

    def __init__(self, run_id: RunId, state: ThreadState) -> None:
        self.lines: list[Exchange | ToolExchange | Person] = []
        self._run_id = run_id
        self._state = state
        self._sent: list[dict[str, Any]] = []
        self._calls: dict[CallId, ToolCalled] = {}
        self._with_result: list[Event] = []
        self._own_entries = 0

    def hear(self, event: Event) -> None:
        is_person = isinstance(event, ApprovalResolved) or (isinstance(event, Message) and event.origin == "person")
        if is_person and event.run_id in {None, self._run_id}:
            self.lines.append(Person(after=self._own_entries, event=event))
        elif event.run_id == self._run_id:
            self._own(event)
        if event.run_id in {None, self._run_id}:
            self._state.apply(event)

    def _own(self, event: Event) -> None:
        self._own_entries += is_counted(event)
        if event.type in _WITH_RESULT:
            self._with_result.append(event)
            return
        match event:
            case Message(role="assistant"):
                self._answer(event)
            case ContextCompacted():
                self.lines.append(Exchange(turn=event.turn, purpose="notes", text=notes_of(event.summary)))
            case UsageUpdated():
                self._usage(event)
            case ToolCalled():
                self._calls[event.call_id] = event
            case ToolResulted():
                self.lines.append(self._result(event))
        self._with_result = []

    def _answer(self, event: Message) -> None:
        entries = entries_of(self._state, self._run_id)
        now = as_sent(messages_of(entries, self._run_id, system="", images={}))
        same = same_at_first(self._sent, now)
        self._sent = now
        self.lines.append(
            Exchange(
                turn=event.turn,
                same=same,
                sent=tuple(now[same:]),
                text=event.text,
                reasoning=event.reasoning,
                tool_calls=event.tool_calls,
                opaque=event.opaque,
                finish_reason=event.finish_reason,
                model=event.model,
            )
        )

    def _usage(self, event: UsageUpdated) -> None:
        """The cost of the answer before it; that of a call which failed belongs to no answer."""
        last = self.lines[-1] if self.lines else None
        if isinstance(last, Exchange) and last.usage == Usage():
            self.lines[-1] = last.model_copy(update={"usage": event.call, "model": event.model})

    def _result(self, event: ToolResulted) -> ToolExchange:
        intent = self._calls.pop(event.call_id, None)
        return ToolExchange(
            turn=event.turn,
            call_id=event.call_id,
            tool=event.tool,
            arguments=intent.arguments if intent is not None else None,
            effect=intent.effect if intent is not None else Effect.PURE,
            ok=event.ok,
            output=event.output,
            data=event.data,
            error=event.error,
            duration_ms=event.duration_ms,
            events=tuple(self._with_result),
        )

    def unfinished(self) -> list[ToolExchange]:
        """Calls that were under way when the run ended."""
        return [
            ToolExchange(
                turn=call.turn,
                call_id=call.call_id,
                tool=call.tool,
                arguments=call.arguments,
                effect=call.effect,
                ok=None,
            )
            for call in self._calls.values()
        ]


def _end(event: Event) -> End:
    return End.model_validate(
        {
            "status": event.type.removeprefix("run."),
            "reason": getattr(event, "reason", ""),
            "detail": getattr(event, "detail", ""),
            "summary": getattr(event, "summary", ""),
            "usage": getattr(event, "usage", Usage()),
        }
    )
