"""Plays a cassette through the same agent: with the recorded answers, or against another model, prompt or config.

The run happens in memory: its log in a list, recorded tools that touch nothing. With `tools="sandbox"` commands really
run, in a workspace of their own that is deleted afterwards.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workflow.agent.agent import Parked
from workflow.core.config import ModelSettings, Settings
from workflow.core.config_load import config_hash
from workflow.core.errors import BadInput, DialtoneError
from workflow.core.events import DeltaKind, Event, EventBase, decode, encode
from workflow.core.ids import TenantId, UserId
from workflow.core.ports import Spend
from workflow.core.records import RunOptions, RunRecord
from workflow.llm.cassette import Cassette, is_counted
from workflow.llm.cassette_llm import CassetteLLM
from workflow.llm.models import Models, ResolvedModel, build_llm
from workflow.llm.policy import Candidate, PolicyLLM
from workflow.runner.build import Workshop, open_workshop
from workflow.runner.control import Control
from workflow.runner.outcome import Outcome
from workflow.runner.run import Attempt, execute
from workflow.runner.tape import Tape, TapeRegistry
from workflow.sandboxes.memory import MemoryProvider
from workflow.tools.build import build_registry

ToolSource = Literal["recorded", "sandbox"]
MAX_ATTEMPTS = 1000
"""Pauses for a person in one run; more of them go round in a circle."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to."""

    then: Outcome
    now: Outcome
    mismatches: tuple[str, ...]
    """Where the agent asked for something else than the recording holds."""
    events: tuple[Event, ...]
    """The replayed run's own log."""

    @property
    def is_same(self) -> bool:
        return not self.mismatches and not self.now.differs_from(self.then)


async def replay(
    cassette: Cassette,
    settings: Settings,
    *,
    environ: Mapping[str, str],
    model: str | None = None,
    tools: ToolSource = "recorded",
    workspace: Path | None = None,
) -> Replayed:
    """Plays the run again.

    model: a model of `settings` that answers in place of the recording. tools: `recorded` gives back what the same
    call gave then, `sandbox` runs it. workspace: a folder whose files the sandbox begins with.
    Raises: BadInput, ConfigError, SandboxError, ModelRefused for an unknown `model`.
    """
    then = Outcome.of_cassette(cassette)
    mismatches: list[str] = []
    llm = CassetteLLM(cassette, mismatches)
    tape = Tape(cassette, mismatches)
    models = _RecordedModels(settings, environ, llm) if model is None else build_llm(settings.llm, environ=environ)
    if tools == "sandbox" and settings.sandbox.provider != "local":
        raise BadInput("a replay runs in local sandboxes only: a remote one is the thread's own")
    async with _workshop(settings, environ, models, tools) as shop:
        if tools == "recorded":
            shop.registry = TapeRegistry(shop.registry, tape)
        if workspace is not None:
            await _fill(shop, cassette, workspace)
        journal = ReplayJournal(cassette)
        options = cassette.header.options.model_copy(update={"model": model})
        waits = await _to_the_end(cassette, options, shop, journal)
    now = Outcome.of_events(journal.own, waits=waits)
    if model is None:
        mismatches += llm.rest()
    return Replayed(then, now, tuple(mismatches), tuple(journal.own))


async def _to_the_end(cassette: Cassette, options: RunOptions, shop: Workshop, journal: "ReplayJournal") -> bool:
    """Attempt after attempt, as workers make them; True when the run waits for somebody who does not come."""
    header = cassette.header
    record = RunRecord(
        run_id=header.run_id,
        thread_id=header.thread_id,
        tenant=TenantId("replay"),
        user=UserId("replay"),
        status="running",
        task=header.task,
        options=options,
        reason=cassette.end.reason,
    )

    async def why_cancelled() -> str:
        return cassette.end.reason

    for number in range(1, MAX_ATTEMPTS):
        attempt = Attempt(
            record=record,
            number=number,
            reason="fresh" if number == 1 else "answered",
            worker="replay",
            history=list(journal.events),
            journal=journal,
            purse=_NoPurse(),
            cancel_reason=why_cancelled,
            now_ms=lambda: journal.now_ms,
        )
        parked: Parked | None = await execute(attempt, shop, Control())
        if parked is None:
            return False
        if not journal.has_answers:
            return True
    return True


class ReplayJournal:
    """A log in memory that begins with what was there before, and hands over what people said where they said it."""

    def __init__(self, cassette: Cassette) -> None:
        self.events = list(cassette.before)
        self.own: list[Event] = []
        """What the replayed run wrote."""
        self._people = list(cassette.people)
        self._entries = 0
        last = self.events[-1].id if self.events else "1-0"
        self._epoch, self._seq = (int(part) for part in last.split("-"))
        self.now_ms = self.events[-1].at if self.events else 0

    async def commit(self, *events: EventBase) -> list[str]:
        stored = [self._append(event) for event in events]
        self.own += stored
        self._entries += sum(map(is_counted, stored))
        return [event.id for event in stored]

    async def news(self) -> list[Event]:
        heard = [person for person in self._people if person.after <= self._entries]
        self._people = self._people[len(heard) :]
        return [self._append(person.event) for person in heard]

    def preview(self, turn: int, item: str, kind: DeltaKind, *, offset: int, text: str) -> None:
        """Nobody watches."""

    @property
    def has_answers(self) -> bool:
        """Whether somebody says something at this point."""
        return bool(self._people) and self._people[0].after <= self._entries

    def _append(self, event: EventBase) -> Event:
        self._seq += 1
        self.now_ms += 1
        stored = decode(encode(event)).model_copy(update={"id": f"{self._epoch}-{self._seq}", "at": self.now_ms})
        self.events.append(stored)
        return stored


class _RecordedModels(Models):
    """One model, whatever is asked for."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], llm: CassetteLLM) -> None:
        super().__init__(settings.llm, environ)
        name = llm.cassette.header.model
        self._limits = self._settings_of(name)
        candidate = Candidate(name, self._limits, llm, lambda usage: usage.cost_usd)
        policy = PolicyLLM([candidate], settings.llm.model_copy(update={"max_retries": 0}))
        self._one = ResolvedModel(name, name, self._limits, policy, "recorded")

    def get(self, name: str | None = None) -> ResolvedModel:
        return self._one

    def _settings_of(self, name: str) -> ModelSettings:
        """The window that the configuration gives this model, for it decides when room is made."""
        configured = next((model for model in self._settings.models.values() if model.model == name), None)
        if configured is not None:
            return configured
        try:
            return super().get(name).settings
        except DialtoneError:
            return ModelSettings(model=name)


class _NoPurse:
    """Nobody shares money with a replay."""

    async def reserve(self, need: Spend) -> None:
        """Nothing is set aside."""

    async def settle(self, spent: Spend) -> dict[str, float]:
        """Nothing is booked."""
        return {}


@asynccontextmanager
async def _workshop(
    settings: Settings, environ: Mapping[str, str], models: Models, tools: ToolSource
) -> AsyncIterator[Workshop]:
    """What the replay needs; its workspace is deleted afterwards."""
    try:
        if tools == "recorded":
            registry, _ = build_registry(settings.tools, network=settings.sandbox.network, environ=environ)
            async with MemoryProvider() as sandboxes:
                report = await sandboxes.check()
                yield Workshop(settings, models, registry, sandboxes, report, config_hash(settings))
        else:
            with tempfile.TemporaryDirectory(prefix="dialtone-replay-") as folder:
                there = settings.model_copy(update={"data_dir": folder})
                async with open_workshop(there, config_hash=config_hash(settings), environ=environ) as shop:
                    shop.models = models
                    yield shop
    finally:
        await models.close()


async def _fill(shop: Workshop, cassette: Cassette, folder: Path) -> None:
    """Copies a folder's files into the run's workspace."""
    sandbox = await shop.sandboxes.open(cassette.header.thread_id)
    for path, content in await asyncio.to_thread(_files_below, folder):
        await sandbox.write(path, content)


def _files_below(folder: Path) -> list[tuple[str, bytes]]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink())
    return [(file.relative_to(folder).as_posix(), file.read_bytes()) for file in files]
