"""The provider that runs commands on this machine: one sandbox per thread, in the strongest tier that holds here."""

import asyncio
import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self, cast

from workflow.core.config import SandboxSettings
from workflow.core.errors import LimitExceeded, SandboxError, SandboxRefused
from workflow.core.ids import ThreadId
from workflow.sandboxes import lock, tiers
from workflow.sandboxes.advice import for_better_tier
from workflow.sandboxes.base import Probe, SandboxInfo, TierReport
from workflow.sandboxes.cell import Cell
from workflow.sandboxes.cgroups import Cgroups, Limits
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.places import Places
from workflow.sandboxes.probes import CHECK_MEMORY_BYTES, CHECK_PROCESSES, attack, canary_targets
from workflow.sandboxes.tiers import TIERS, Place, Tier

REFUSED = "T3"
BUSY_FACTOR = 12
"""A sandbox with background processes is kept this many times longer than an idle one."""


class LocalProvider:
    """One per worker process; everything it started dies with it."""

    name = "local"

    def __init__(self, settings: SandboxSettings, *, data_dir: Path, report: TierReport | None = None) -> None:
        """report: what an earlier `check` on this machine said; None checks before the first sandbox is opened."""
        self._settings = settings
        self._data_dir = data_dir.resolve()
        self._report = report
        self._checking = asyncio.Lock()
        # One thread for all starts: a sandbox is killed when the thread that spawned it ends.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="sandbox-spawner")
        self._places = Places(self._data_dir, own_uids=os.geteuid() == 0 and settings.mode != "unsafe_host")
        self._cgroups = Cgroups.find()
        self._sandboxes: dict[ThreadId, LocalSandbox] = {}

    async def check(self) -> TierReport:
        async with self._checking:
            if self._report is None:
                self._report = await self._examine()
            return self._report

    async def open(self, thread_id: ThreadId) -> LocalSandbox:
        report = await self.check()
        if report.tier == REFUSED:
            raise SandboxRefused(f"no sandbox tier holds on this machine: {'; '.join(report.advice)}")
        if thread_id not in self._sandboxes:
            place = await asyncio.to_thread(self._places.make, thread_id)
            tier = cast(Tier, report.tier)
            sandbox = self._sandbox(thread_id, place, tier, settings=self._settings, gaps=report.gaps)
            self._sandboxes.setdefault(thread_id, sandbox)
        return self._sandboxes[thread_id]

    async def remove(self, thread_id: ThreadId) -> None:
        sandbox = self._sandboxes.pop(thread_id, None)
        if sandbox is not None:
            await sandbox.dispose()
        await asyncio.to_thread(self._places.remove, thread_id)

    async def sweep(self) -> int:
        idle = [sandbox for sandbox in self._sandboxes.values() if self._is_idle(sandbox)]
        for sandbox in idle:
            await sandbox.close()
        return len(idle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in self._sandboxes.values():
            await sandbox.dispose()
        self._sandboxes.clear()
        self._spawner.shutdown()

    def _is_idle(self, sandbox: LocalSandbox) -> bool:
        if not sandbox.is_live or sandbox.runs_commands:
            return False
        patience = self._settings.idle_s * (BUSY_FACTOR if sandbox.has_background else 1)
        return monotonic() - sandbox.used_at > patience

    def _sandbox(
        self, thread_id: ThreadId, place: Place, tier: Tier, *, settings: SandboxSettings, gaps: tuple[str, ...]
    ) -> LocalSandbox:
        info = SandboxInfo(
            provider=self.name,
            tier=tier,
            network=settings.network,
            gaps=gaps,
            sandbox_id=thread_id,
            workdir=tiers.workdir(tier, place),
        )

        async def enter() -> Cell:
            await self._make_room()
            return await self._enter(tier, place, settings)

        return LocalSandbox(info, place, settings, environment=tiers.environment(tier, place), enter=enter)

    async def _make_room(self) -> None:
        """Closes the sandbox that was unused longest when there are too many. Raises: LimitExceeded if all work."""
        live = [sandbox for sandbox in self._sandboxes.values() if sandbox.is_live]
        if len(live) < self._settings.max_live:
            return
        free = [sandbox for sandbox in live if not sandbox.runs_commands and not sandbox.has_background]
        if not free:
            raise LimitExceeded("too many live sandboxes", limit=self._settings.max_live, retry_after_s=5)
        await min(free, key=lambda sandbox: sandbox.used_at).close()

    async def _enter(self, tier: Tier, place: Place, settings: SandboxSettings) -> Cell:
        """Starts the processes of a sandbox. Raises: SandboxError."""
        lock_file = place.state / "lock"
        held = await asyncio.to_thread(lock.take, lock_file)
        try:
            launch = tiers.launch(tier, place, settings, lock=held, hidden=(self._data_dir, Path.cwd()))
        except BaseException:
            os.close(held)
            raise
        cell = await Cell.start(launch, spawner=self._spawner)
        try:
            await asyncio.to_thread(lock.note, lock_file, cell.init_pid)
            if tier == "T1":
                await asyncio.to_thread(self._limit, cell, place, settings)
        except BaseException:
            await cell.stop()
            raise
        return cell

    def _limit(self, cell: Cell, place: Place, settings: SandboxSettings) -> None:
        if self._cgroups is None:
            raise SandboxError("no control group can be made here")
        limits = Limits(settings.memory_bytes, settings.processes, settings.cpus)
        try:
            group = self._cgroups.make(f"{place.state.name}.{secrets.token_hex(4)}", limits)
            group.add(cell.init_pid)
        except OSError as error:
            raise SandboxError(f"the control group was refused: {error}") from error
        cell.group = group

    async def _examine(self) -> TierReport:
        if not sys.platform.startswith("linux"):
            return TierReport(self.name, REFUSED, advice=("local sandboxes need Linux",))
        if self._settings.mode == "unsafe_host":
            return TierReport(self.name, "unsafe_host", gaps=tiers.GAPS["unsafe_host"])
        wanted: tuple[Tier, ...] = TIERS if self._settings.mode == "auto" else (self._settings.mode,)
        failed: list[Probe] = []
        for tier in wanted:
            probes = await self._attack(tier)
            if all(probe.held for probe in probes):
                advice = for_better_tier(tier, cgroups=self._cgroups is not None)
                return TierReport(self.name, tier, (*failed, *probes), tiers.GAPS[tier], advice)
            failed += [replace(probe, name=f"{tier}: {probe.name}") for probe in probes if not probe.held]
        advice = for_better_tier(REFUSED, cgroups=self._cgroups is not None)
        return TierReport(self.name, REFUSED, tuple(failed), advice=advice)

    async def _attack(self, tier: Tier) -> list[Probe]:
        """Opens a sandbox of `tier` with small limits, attacks it, and takes it away again."""
        thread_id = ThreadId(f"check-{secrets.token_hex(6)}")
        place = await asyncio.to_thread(self._places.make, thread_id)
        small = self._settings.model_copy(
            update={"memory_bytes": CHECK_MEMORY_BYTES, "processes": CHECK_PROCESSES, "network": "off"}
        )
        sandbox = self._sandbox(thread_id, place, tier, settings=small, gaps=())
        try:
            with canary_targets(self._data_dir) as targets:
                return await attack(sandbox, targets, caps=tier != "T2")
        finally:
            await sandbox.dispose()
            await asyncio.to_thread(self._places.remove, thread_id)
