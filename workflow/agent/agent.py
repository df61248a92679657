"""The agent: a loop over the thread's state. Every pass looks at what the log says and does the next thing.

Nothing is remembered between passes but the state, so another worker that folds the same log goes on alike.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from workflow.agent import compaction, stuck
from workflow.agent.account import Account
from workflow.agent.budget import Budget
from workflow.agent.calls import Calls, FileLocks, understood
from workflow.agent.context import Entry, entries_of, messages_of
from workflow.agent.speaking import Speech
from workflow.core.config import Settings
from workflow.core.errors import ContextOverflow, SandboxError, Stuck, ToolError
from workflow.core.events import (
    EventBase,
    Message,
    Notice,
    ToolCall,
    ToolResulted,
    WorkspaceSaved,
)
from workflow.core.ids import ItemId, RunId, ThreadId, new_item_id
from workflow.core.ports import Journal, Purse
from workflow.core.records import RunRecord
from workflow.core.state import RunState, ThreadState
from workflow.llm.base import ChatMessage, Completion, ModelRequest
from workflow.llm.models import ResolvedModel
from workflow.sandboxes.base import Sandbox
from workflow.tools.registry import Registry, history_arguments

log = logging.getLogger(__name__)

MAX_NUDGES = 2
OPEN = frozenset({"pending", "in_progress"})
"""What a step of the plan may not be when the run finishes."""
EMPTY = "Your answer was empty. Go on with the task: call a tool, or say what the outcome is."
CUT = "Your answer was cut off by the output token limit. Go on where it stopped, in smaller pieces."
OPEN_STEPS = (
    "You stopped, but steps of your plan are still open. Finish them, or mark each with job_plan as done (with "
    "evidence) or dropped (with the reason), then give your summary."
)
LAST_CALL = "This is your last turn: the turn limit is reached. Call no tool; say what is done and what is left."


class Parked(Exception):  # a state, not a failure
    """The run waits for a person; `wake_ms` is when the first question expires, by the log's clock."""

    def __init__(self, wake_ms: int) -> None:
        super().__init__(f"waits for a person until {wake_ms}")
        self.wake_ms = wake_ms


@dataclass(slots=True)
class Agent:
    """One run's agent; `run()` takes it to its final answer."""

    record: RunRecord
    settings: Settings
    state: ThreadState
    journal: Journal
    purse: Purse
    model: ResolvedModel
    planning: ResolvedModel
    """Answers the first turn."""
    summaries: ResolvedModel
    registry: Registry
    sandbox: Sandbox
    system: str
    locks: FileLocks
    services: Mapping[str, Any]
    now_ms: Callable[[], int]
    """The log's clock: what the server's time is now."""
    calls: Calls = field(init=False)
    budget: Budget = field(init=False)
    account: Account = field(init=False)
    _saves: int = field(init=False, default=0)
    """How often this attempt has remembered the workspace."""
    _saving: "asyncio.Task[None] | None" = field(init=False, default=None)
    """Remembers the workspace while the model speaks."""
    _resumed: bool = field(init=False)

    def __post_init__(self) -> None:
        self._resumed = self.progress.turn > 0
        self.budget = Budget.of(self.settings.agent, self.record.options.budgets)
        self.account = Account(
            thread_id=self.thread_id,
            run_id=self.run_id,
            state=self.state,
            budget=self.budget,
            purse=self.purse,
            commit=self.commit,
            notice=self._notice,
        )
        self.calls = Calls(
            thread_id=self.thread_id,
            run_id=self.run_id,
            state=self.state,
            journal=self.journal,
            commit=self.commit,
            sandbox=self.sandbox,
            agent=self.settings.agent,
            tools=self.settings.tools,
            locks=self.locks,
            services=self.services,
            interrupted=frozenset(
                call_id
                for call_id, call in self.state.calls.items()
                if call.run_id == self.run_id and call_id not in self.state.held
            ),
            review=(self.settings.runs.review_timeout_s, self.settings.runs.review_on_expiry),
            now_ms=self.now_ms,
        )

    @property
    def thread_id(self) -> ThreadId:
        return self.record.thread_id

    @property
    def run_id(self) -> RunId:
        return self.record.run_id

    @property
    def progress(self) -> RunState:
        """This run as the log tells it."""
        return self.state.runs[self.run_id]

    async def run(self) -> str:
        """The final answer.

        Raises: Parked when a person must answer first, BudgetExceeded, Stuck, ModelError, and what `commit` raises.
        """
        try:
            return await self._to_answer()
        except asyncio.CancelledError:
            if self._saving is not None:
                self._saving.cancel()
            raise
        except Exception:
            await self._saved()
            raise

    async def _to_answer(self) -> str:
        while True:
            await self._hear()
            entries = self._own_entries()
            if pending := _pending(entries):
                await self._act(pending)
                continue
            last = entries[-1] if entries else None
            if isinstance(last, Message) and last.role == "assistant":
                final = await self._conclude(last, entries)
                if final is not None:
                    return final
                continue
            await self._mind(entries)
            await self._ask()

    async def commit(self, *events: EventBase) -> None:
        """Appends events and takes them into the state."""
        ids = await self.journal.commit(*events)
        for event_id, event in zip(ids, events, strict=True):
            self.state.apply(event.model_copy(update={"id": event_id, "at": self.now_ms()}))  # type: ignore[arg-type]

    async def _hear(self) -> None:
        for event in await self.journal.news():
            self.state.apply(event)

    def _own_entries(self) -> list[Entry]:
        entries = entries_of(self.state, self.run_id)
        begin = next((i for i, e in enumerate(entries) if e.type == "run.queued" and e.run_id == self.run_id), -1)
        return entries[begin + 1 :]

    async def _act(self, pending: list[ToolCall]) -> None:
        calls = understood(pending, [self.registry.parse(call) for call in pending])
        changing = self.calls.may_change_files(calls)
        if changing and not self._saves:
            # What an earlier attempt did may be unsaved: then this is the state after its last turn.
            await self._save("turn" if self._resumed else "start")
        questions = await self.calls.act(calls, turn=self.progress.turn)
        if changing:
            self._saving = asyncio.create_task(self._save("turn"))
        if questions:
            raise Parked(min(question.expires_at for question in questions))

    async def _saved(self) -> None:
        """Returns when the workspace is remembered as the last turn left it: no further turn may begin before."""
        saving, self._saving = self._saving, None
        if saving is not None:
            await saving

    async def _save(self, why: Literal["start", "turn"]) -> None:
        """Remembers the workspace and says so in the log, unless it is as it was; a failure ends nothing."""
        self._saves += 1
        try:
            snapshot = await self.sandbox.snapshot(f"{self.run_id} {why} {self.progress.turn}")
        except (SandboxError, ToolError) as error:
            log.warning("no snapshot: %s", error, extra={"run_id": self.run_id})
            if self._saves == 1:
                text = f"The workspace cannot be remembered, so this run cannot be undone: {error.message}"
                await self._notice("no_snapshot", text)
            return
        if self.state.saved is None or self.state.saved.snapshot != snapshot:
            turn = self.progress.turn
            saved = WorkspaceSaved(thread_id=self.thread_id, run_id=self.run_id, turn=turn, snapshot=snapshot, why=why)
            await self.commit(saved)

    async def _conclude(self, last: Message, entries: list[Entry]) -> str | None:
        """The final text, or None after a reminder that the work is not over."""
        if last.finish_reason == "length":
            reminder = CUT
        elif not last.text.strip():
            reminder = EMPTY
        elif any(step.status in OPEN for step in self.state.plan) and self._plan_is_ours():
            reminder = OPEN_STEPS
        else:
            return _whole(entries)
        if sum(isinstance(e, Message) and e.text == reminder for e in entries) >= MAX_NUDGES:
            if reminder is EMPTY:
                raise Stuck("the model keeps giving empty answers")
            if reminder is OPEN_STEPS:
                still = ", ".join(step.id for step in self.state.plan if step.status in OPEN)
                raise Stuck(f"the model stopped while steps of its plan were neither done nor dropped: {still}")
            return _whole(entries)
        await self._remind(reminder)
        return None

    def _plan_is_ours(self) -> bool:
        """A plan of an earlier run of the thread holds nobody up."""
        return any(e.type == "plan.updated" for e in self._own_entries())

    async def _mind(self, entries: list[Entry]) -> None:
        """Looks for circles and limits before money is spent."""
        verdict = stuck.judge(entries, self.settings.agent)
        if verdict is not None and verdict.level == "stop":
            raise Stuck(verdict.text)
        if verdict is not None and not any(_is_reminder(e) for e in entries[-2 * self.settings.agent.stuck_repeats :]):
            await self._remind(verdict.text)
        self.budget.check(self.progress)
        if self.budget.last_call(self.progress):
            await self._remind(LAST_CALL)

    async def _remind(self, text: str) -> None:
        await self.commit(
            Message(
                thread_id=self.thread_id,
                run_id=self.run_id,
                turn=self.progress.turn,
                role="user",
                origin="agent",
                item=new_item_id(),
                text=text,
            )
        )

    # -- the model

    async def _ask(self) -> None:
        """One model call: its message, its cost and its intents are committed together."""
        await self._recall()
        messages = self._messages()
        if compaction.is_due(messages, self.model, self.settings.agent):
            await self._compact()
            messages = self._messages()
        turn = self.progress.turn + 1
        try:
            completion, item = await self._speak(turn, messages)
        except ContextOverflow:
            await self._compact()
            completion, item = await self._speak(turn, self._messages())
        calls = self._unique(completion.tool_calls, turn)
        either = understood(calls, self.registry.parse_all(calls, finish_reason=completion.finish_reason))
        shown = tuple(
            one[0].model_copy(update={"arguments": history_arguments(one[0].arguments)})
            if isinstance(one, tuple)
            else one.call
            for one in either
        )
        message = Message(
            thread_id=self.thread_id,
            run_id=self.run_id,
            turn=turn,
            item=item,
            text=completion.text,
            reasoning=completion.reasoning,
            tool_calls=shown,
            finish_reason=completion.finish_reason,
            model=completion.model or self._model(turn).model,
            opaque=completion.opaque,
        )
        intents = self.calls.intents(either, turn=turn)
        await self._saved()
        await self.commit(message, self.account.event(completion.usage, turn, self._model(turn)), *intents)

    async def _speak(self, turn: int, messages: tuple[ChatMessage, ...]) -> tuple[Completion, ItemId]:
        speech = Speech(self.journal, turn)
        completion = await self.account.ask(self._model(turn), self._request(turn, messages), show=speech.show)
        return completion, speech.item

    def _model(self, turn: int) -> ResolvedModel:
        return self.planning if turn == 1 else self.model

    async def _notice(self, code: str, text: str) -> None:
        turn = self.progress.turn
        await self.commit(Notice(thread_id=self.thread_id, run_id=self.run_id, turn=turn, code=code, text=text))

    def _request(self, turn: int, messages: tuple[ChatMessage, ...]) -> ModelRequest:
        model = self._model(turn)
        settings = model.settings
        return ModelRequest(
            model=model.model,
            messages=messages,
            tools=self.registry.specs(),
            allow_calls=not self.budget.last_call(self.progress),
            max_output_tokens=settings.max_output_tokens,
            temperature=settings.temperature,
            reasoning_effort=settings.reasoning_effort,
            timeout_s=self.settings.llm.timeout_s,
            idle_timeout_s=self.settings.llm.idle_timeout_s,
        )

    def _messages(self) -> tuple[ChatMessage, ...]:
        images = self.calls.pictures.at_hand
        return messages_of(entries_of(self.state, self.run_id), self.run_id, system=self.system, images=images)

    async def _recall(self) -> None:
        """Brings back the pictures that the prompt shows."""
        await self.calls.pictures.recall(e for e in entries_of(self.state, self.run_id) if isinstance(e, ToolResulted))

    def _unique(self, calls: Sequence[ToolCall], turn: int) -> list[ToolCall]:
        """Some models number their calls afresh in every message, or all alike: the log needs them apart."""
        found: dict[str, ToolCall] = {}
        for place, call in enumerate(calls):
            while not call.id or call.id in self.state.call_ids or call.id in found:
                call = call.model_copy(update={"id": f"{call.id or 'call'}_{turn}_{place}"})
            found[call.id] = call
        return list(found.values())

    async def _compact(self) -> None:
        result = await compaction.compact(
            self.state,
            self.run_id,
            system=self.system,
            model=self.summaries,
            settings=self.settings.agent,
            ask=partial(self.account.ask, self.summaries),
            images=self.calls.pictures.at_hand,
        )
        turn = self.progress.turn
        events: list[EventBase] = [result.event(self.thread_id, self.run_id, turn)]
        if result.usage.tokens:
            events.append(self.account.event(result.usage, turn, self.summaries))
        if result.trouble:
            events.append(
                Notice(thread_id=self.thread_id, run_id=self.run_id, turn=turn, code="compaction", text=result.trouble)
            )
        await self.commit(*events)


def _pending(entries: list[Entry]) -> list[ToolCall]:
    """Calls of the newest assistant message that have no result yet."""
    done: set[str] = set()
    for entry in reversed(entries):
        if isinstance(entry, ToolResulted):
            done.add(entry.call_id)
        elif isinstance(entry, Message) and entry.role == "assistant":
            return [call for call in entry.tool_calls if call.id not in done]
    return []


def _whole(entries: list[Entry]) -> str:
    """The newest answer, with the pieces before it at whose ends the token limit cut it."""
    pieces: list[str] = []
    for entry in reversed(entries):
        if not isinstance(entry, Message) or (pieces and entry.finish_reason != "length" and entry.text != CUT):
            break
        if entry.role == "assistant":
            pieces.append(entry.text)
    return "".join(reversed(pieces))


def _is_reminder(entry: object) -> bool:
    return isinstance(entry, Message) and entry.origin == "agent"
