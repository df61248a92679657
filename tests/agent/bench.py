"""Everything a run needs but a server: a log in a list, a scripted model, a sandbox in memory."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from workflow.agent.agent import Parked
from workflow.core.config import AgentSettings, LlmSettings, ModelSettings, RunSettings, Settings
from workflow.core.errors import LeaseLost, RunCancelled
from workflow.core.events import (
    ApprovalResolved,
    Delta,
    DeltaKind,
    Event,
    EventBase,
    Message,
    RunQueued,
    decode,
    encode,
)
from workflow.core.ids import ItemId, RunId, TenantId, ThreadId, UserId
from workflow.core.ports import Purse, Spend
from workflow.core.records import RunOptions, RunRecord
from workflow.llm.base import LLM
from workflow.llm.models import Models, ResolvedModel
from workflow.llm.policy import Candidate, PolicyLLM
from workflow.llm.scripted import ScriptedLLM
from workflow.runner.build import Workshop
from workflow.runner.control import Control
from workflow.runner.run import Attempt, execute
from workflow.sandboxes.base import SandboxProvider
from workflow.sandboxes.memory import MemoryProvider
from workflow.tools.base import Tool
from workflow.tools.build import build_registry
from workflow.tools.registry import Registry

THREAD = ThreadId("t1")
RUN = RunId("t1.r1")


@dataclass
class ListJournal:
    """A log in memory; `commit` gives ids as the real one does."""

    events: list[Event] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    foreign: list[Event] = field(default_factory=list)
    cancelled: bool = False
    die_after: int | None = None
    """Raises LeaseLost, as if another worker had taken over, at the commit that would exceed this many events."""

    async def commit(self, *events: EventBase) -> list[str]:
        if self.cancelled and not any(event.terminal for event in events):
            raise RunCancelled("a cancel was asked for")
        if self.die_after is not None and len(self.events) + len(events) > self.die_after:
            raise LeaseLost("another worker owns the run")
        return [self._append(event) for event in events]

    def _append(self, event: EventBase) -> str:
        event_id = f"1-{len(self.events) + 1}"
        stored = decode(encode(event)).model_copy(update={"id": event_id, "at": 1_000 + len(self.events)})
        self.events.append(stored)
        return event_id

    async def news(self) -> list[Event]:
        news, self.foreign = self.foreign, []
        return [self.events[int(self._append(event).split("-")[1]) - 1] for event in news]

    def preview(self, turn: int, item: str, kind: DeltaKind, *, offset: int, text: str) -> None:
        self.deltas.append(Delta(run_id=RUN, turn=turn, item=item, kind=kind, offset=offset, text=text))

    def say(self, text: str) -> None:
        self.foreign.append(
            Message(thread_id=THREAD, run_id=RUN, role="user", origin="person", item=ItemId("p"), text=text)
        )

    def answer(self, question_id: str, answer: str) -> None:
        self._append(ApprovalResolved(thread_id=THREAD, run_id=RUN, question_id=question_id, answer=answer, by="alice"))

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]


class NoPurse:
    """Nobody shares money with this run."""

    async def reserve(self, need: Spend) -> None: ...

    async def settle(self, spent: Spend) -> dict[str, float]:
        return {}


@dataclass
class Bench:
    """Runs tasks; every `attempt` is a new worker that knows nothing but the log."""

    llm: LLM
    settings: Settings
    tools: list[Tool[Any]]
    sandboxes: SandboxProvider = field(default_factory=MemoryProvider)
    journal: ListJournal = field(default_factory=ListJournal)
    control: Control = field(default_factory=Control)
    context_tokens: int = 200_000
    models: Models | None = None
    """Real models in place of `llm`."""
    run_id: RunId = RUN
    purse: Purse = field(default_factory=NoPurse)
    attempts: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def attempt(
        self, task: str = "do it", reason: str = "fresh", options: RunOptions | None = None
    ) -> Parked | None:
        if not self.journal.events:
            await self.journal.commit(RunQueued(thread_id=THREAD, run_id=self.run_id, task=task))
        number = next(self.attempts)
        self.control = Control()
        record = RunRecord(
            run_id=self.run_id,
            thread_id=THREAD,
            tenant=TenantId("acme"),
            user=UserId("alice"),
            status="running",
            task=task,
            options=options or RunOptions(),
        )
        attempt = Attempt(
            record=record,
            number=number,
            reason=reason,
            worker=f"w{number}",
            history=list(self.journal.events),
            journal=self.journal,
            purse=self.purse,
            cancel_reason=_no_reason,
            now_ms=lambda: 1_000 + len(self.journal.events),
        )
        return await execute(attempt, self.shop(), self.control)

    def shop(self) -> Workshop:
        model = ModelSettings(
            model="scripted", driver="scripted", context_tokens=self.context_tokens, max_output_tokens=2000
        )
        policy = PolicyLLM(
            [Candidate("scripted", model, self.llm, lambda usage: usage.output_tokens / 1e5)], self.settings.llm
        )
        resolved = ResolvedModel("scripted", "scripted", model, policy, "test")
        registry, _ = build_registry(self.settings.tools)
        return Workshop(
            settings=self.settings,
            models=self.models or _OneModel(resolved),  # type: ignore[arg-type]  # the one model under test
            registry=Registry([*(registry.get(name) for name in registry.names), *self.tools]),
            sandboxes=self.sandboxes,
            report=None,  # type: ignore[arg-type]  # nothing here reads it
            config_hash="test",
        )


async def _no_reason() -> str:
    return ""


@dataclass
class _OneModel:
    model: ResolvedModel

    def get(self, name: str | None = None) -> ResolvedModel:
        return self.model


def bench(*turns: Any, tools: list[Tool[Any]] | None = None, **agent: Any) -> Bench:
    """A bench whose model plays `turns`; `agent` are fields of AgentSettings."""
    settings = Settings(
        agent=AgentSettings(**agent),
        llm=LlmSettings(max_retries=0, retry_base_s=0),
        runs=RunSettings(review_timeout_s=10),
    )
    return Bench(ScriptedLLM.of(list(turns)), settings, tools or [])


@asynccontextmanager
async def running(subject: Bench) -> AsyncIterator[asyncio.Task[Parked | None]]:
    """The bench's attempt as a task, cancelled at the end if it still runs."""
    task = asyncio.create_task(subject.attempt())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
