"""The provider that runs commands on this machine: one sandbox per thread, in the strongest tier that holds here."""

import asyncio
import logging
import os
import re
import secrets
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self, cast
from weakref import WeakValueDictionary

from workflow.core.config import SandboxSettings
from workflow.core.errors import ConfigError, DialtoneError, LimitExceeded, SandboxError, SandboxRefused, Unavailable
from workflow.core.ids import ThreadId
from workflow.core.ports import Busy, Quota
from workflow.sandboxes import tiers
from workflow.sandboxes.admission import Admission
from workflow.sandboxes.advice import for_better_tier
from workflow.sandboxes.base import Probe, SandboxInfo, TierReport
from workflow.sandboxes.cell import Cell
from workflow.sandboxes.egress import Policy
from workflow.sandboxes.entrance import Entrance
from workflow.sandboxes.keeping import Keeper, Tidied
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.places import Places
from workflow.sandboxes.probes import CHECK_MEMORY_BYTES, CHECK_PROCESSES, attack, canary_targets
from workflow.sandboxes.proxy import Proxy
from workflow.sandboxes.tiers import TIERS, Means, Tier

REFUSED = "T3"
BUSY_FACTOR = 12
"""A sandbox with background processes is kept this many times longer than an idle one."""


TIDY_S = 1800.0
ANSWER_S = 10.0

log = logging.getLogger(__name__)


class LocalProvider:
    """One per worker process; everything it started dies with it."""

    name = "local"

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        data_dir: Path,
        report: TierReport | None = None,
        means: Means = Means(),  # noqa: B008  (frozen)
        environ: Mapping[str, str] | None = None,
        proxy: Proxy | None = None,
        quota: Quota | None = None,
        busy: Busy | None = None,
        tidy_every_s: float = TIDY_S,
    ) -> None:
        """report: what an earlier `check` on this machine said; None checks before the first sandbox is opened.

        environ: holds the credentials that `settings.credentials` names; by default this process's own.
        proxy: the way out of sandboxes with a network; by default one made from the settings.
        quota: what tenants may use together with other workers; None for no limit.
        busy: names the threads whose files must stay though nobody works with them, as while a run waits for a person.
        Raises: ConfigError for a credential that is not there.
        """
        self._busy = busy
        self._admission = Admission(
            quota, wait_s=settings.tenant_wait_s, has_idle=lambda threads: bool(self._idle(threads)), free=self._free
        )
        self._settings = settings
        self._data_dir = data_dir.resolve()
        self._report = report
        self._checking = asyncio.Lock()
        self._opening: WeakValueDictionary[ThreadId, asyncio.Lock] = WeakValueDictionary()
        """One thread's folders may take minutes to unpack; the others do not wait for them."""
        self._places = Places(self._data_dir, own_uids=os.geteuid() == 0 and settings.mode != "unsafe_host")
        if proxy is None and settings.network != "off":
            proxy = Proxy(Policy.of(settings), credentials=_credentials(settings, environ or os.environ))
        self._entrance = Entrance(means, hidden=(self._data_dir, Path.cwd()), proxy=proxy)
        self._entering = 0
        """How many sandboxes are about to be live."""
        self._sandboxes: dict[ThreadId, LocalSandbox] = {}
        """Live, or asked for lately."""
        self._resting: WeakValueDictionary[ThreadId, LocalSandbox] = WeakValueDictionary()
        """Not live; kept only as long as somebody, e.g. a run that waits for an answer, holds them."""
        self._keeper = Keeper(self._places, settings, in_use=self._is_held)
        self._tidy_every_s = tidy_every_s
        self._tidied_at = self._swept_at = monotonic()
        self._tidying: asyncio.Task[Tidied] | None = None

    async def check(self) -> TierReport:
        async with self._checking:
            if self._report is None:
                self._report = await self._examine()
            return self._report

    async def open(self, thread_id: ThreadId) -> LocalSandbox:
        report = await self.check()
        if report.tier == REFUSED:
            raise SandboxRefused(f"no sandbox tier holds on this machine: {'; '.join(report.advice)}")
        async with self._opening.setdefault(thread_id, asyncio.Lock()):
            sandbox = self._sandboxes.get(thread_id) or self._resting.get(thread_id)
            if sandbox is not None and not sandbox.is_current:
                await sandbox.close()
                sandbox = None
            if sandbox is None:
                sandbox = await self._sandbox(thread_id, cast(Tier, report.tier), self._settings, gaps=report.gaps)
            sandbox.used_at = monotonic()
            self._sandboxes[thread_id] = sandbox
            return sandbox

    async def stop(self, thread_id: ThreadId) -> None:
        sandbox = self._sandboxes.get(thread_id) or self._resting.get(thread_id)
        if sandbox is not None:
            await sandbox.close()

    async def remove(self, thread_id: ThreadId) -> None:
        sandbox = self._sandboxes.pop(thread_id, None) or self._resting.pop(thread_id, None)
        if sandbox is not None:
            await sandbox.dispose()
        await asyncio.to_thread(self._places.remove, thread_id)

    async def fork(self, source: ThreadId, snapshot_id: str, target: ThreadId) -> str:
        """Makes the workspace of `target` what that of `source` was. Raises: ToolError `no_such_snapshot`."""
        theirs, ours = await self.open(source), await self.open(target)
        return await ours.adopt(theirs, snapshot_id)

    async def yield_place(self, thread_ids: Collection[ThreadId]) -> None:
        await self._admission.yield_place(thread_ids)

    @property
    def live(self) -> int:
        return sum(sandbox.is_live for sandbox in self._sandboxes.values())

    async def sweep(self) -> int:
        swept_at, self._swept_at = self._swept_at, monotonic()
        # First, and of what is live now: weighing and packing may take longer than a place is kept.
        await self._admission.keep([thread_id for thread_id, sandbox in self._all() if sandbox.is_live])
        await asyncio.to_thread(self._keeper.touch, [thread_id for thread_id, _ in self._all()])
        used = {
            thread_id: sandbox for thread_id, sandbox in self._all() if sandbox.is_live or sandbox.used_at > swept_at
        }
        closed = 0
        for thread_id, sandbox in list(self._sandboxes.items()):
            if self._is_idle(sandbox):
                closed += sandbox.is_live
                await sandbox.close()
                self._resting[thread_id] = self._sandboxes.pop(thread_id)
        for thread_id, sandbox in used.items():
            await self._admission.weigh(thread_id, sandbox.disk_bytes)
        if monotonic() - self._tidied_at > self._tidy_every_s and (self._tidying is None or self._tidying.done()):
            self._tidied_at = monotonic()
            self._tidying = asyncio.create_task(self.tidy())
        return closed

    async def tidy(self) -> Tidied:
        """Puts unused workspaces away, by age and disk budget; `sweep` does so every half hour."""
        loop = asyncio.get_running_loop()

        def is_busy(thread_id: ThreadId) -> bool:
            try:
                # The loop may be over before it answers: a thread that waited on would keep the process from its end.
                return bool(asyncio.run_coroutine_threadsafe(self._busy_ones(thread_id), loop).result(ANSWER_S))
            except TimeoutError as error:
                raise Unavailable("nobody said whether the thread has a run") from error

        tidied = await asyncio.to_thread(lambda: self._keeper.tidy(is_busy=is_busy))
        for thread_id in (*tidied.archived, *tidied.deleted):
            await self._admission.weigh(thread_id, partial(self._archive_bytes, thread_id))
        if tidied.archived or tidied.deleted:
            log.info("put away %d unused workspaces, deleted %d", len(tidied.archived), len(tidied.deleted))
        return tidied

    async def _busy_ones(self, thread_id: ThreadId) -> Collection[ThreadId]:
        return () if self._busy is None else await self._busy([thread_id])

    async def _archive_bytes(self, thread_id: ThreadId) -> int:
        return await asyncio.to_thread(self._places.archive_bytes, thread_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.stop()
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        for sandbox in (*self._sandboxes.values(), *self._resting.values()):
            await sandbox.dispose()
        self._sandboxes.clear()
        await self._admission.close()
        self._entrance.close()

    def _is_held(self, thread_id: ThreadId) -> bool:
        return thread_id in self._sandboxes or thread_id in self._resting

    def _is_idle(self, sandbox: LocalSandbox) -> bool:
        if sandbox.runs_commands:
            return False
        patience = self._settings.idle_s * (BUSY_FACTOR if sandbox.has_background else 1)
        return monotonic() - sandbox.used_at > patience

    async def _sandbox(
        self, thread_id: ThreadId, tier: Tier, settings: SandboxSettings, *, gaps: tuple[str, ...] = ()
    ) -> LocalSandbox:
        place = await asyncio.to_thread(self._places.make, thread_id)
        info = SandboxInfo(
            provider=self.name,
            tier=tier,
            network="open" if tier == "unsafe_host" else settings.network,
            gaps=gaps,
            sandbox_id=thread_id,
            workdir=tiers.workdir(tier, place),
        )

        async def admit() -> None:
            await self._admission.weigh(thread_id, sandbox.disk_bytes)
            await self._admission.check_disk(thread_id, sandbox.disk_bytes)
            try:
                await self._admission.enter(thread_id)
            except (asyncio.CancelledError, Unavailable):
                self._admission.leave(thread_id)  # It may have been counted in already.
                raise

        async def enter() -> Cell:
            try:
                await self._make_room()
                if thread_id in self._resting:  # Whoever held it uses it again.
                    self._sandboxes[thread_id] = self._resting.pop(thread_id)
                self._entering += 1
                try:
                    cell = await self._entrance.enter(tier, place, settings)
                finally:
                    self._entering -= 1
            except BaseException:
                self._admission.leave(thread_id)
                raise
            cell.at_end.append(lambda: self._admission.leave(thread_id))
            return cell

        environment = tiers.environment(tier, place, settings)
        try:
            sandbox = LocalSandbox(info, place, settings, environment=environment, admit=admit, enter=enter)
        except OSError as error:
            raise SandboxError(f"the thread's folders cannot be opened: {error}") from error
        return sandbox

    async def _make_room(self) -> None:
        """Closes the sandbox that was unused longest when there are too many. Raises: LimitExceeded if all work."""
        while True:
            live = [thread_id for thread_id, sandbox in self._all() if sandbox.is_live]
            if len(live) + self._entering < self._settings.max_live:
                return
            if not await self._free(live):
                raise LimitExceeded("too many live sandboxes", limit=self._settings.max_live, retry_after_s=5)

    async def _free(self, threads: Collection[ThreadId]) -> bool:
        """Closes the live sandbox of these threads that was unused longest and runs nothing; False if there is none."""
        idle = self._idle(threads)
        if not idle:
            return False
        await min(idle, key=lambda sandbox: sandbox.used_at).close()
        await self._admission.close()
        return True

    def _idle(self, threads: Collection[ThreadId]) -> list[LocalSandbox]:
        return [
            sandbox
            for thread_id, sandbox in self._all()
            if thread_id in threads and sandbox.is_live and not sandbox.runs_commands and not sandbox.has_background
        ]

    def _all(self) -> list[tuple[ThreadId, LocalSandbox]]:
        return [*self._sandboxes.items(), *self._resting.items()]

    async def _examine(self) -> TierReport:
        if not sys.platform.startswith("linux"):
            return TierReport(self.name, REFUSED, advice=("local sandboxes need Linux",))
        if self._settings.mode == "unsafe_host":
            return TierReport(self.name, "unsafe_host", gaps=tiers.gaps("unsafe_host", controllers=frozenset()))
        wanted: tuple[Tier, ...] = TIERS if self._settings.mode == "auto" else (self._settings.mode,)
        if self._settings.network != "off":
            wanted = tuple(tier for tier in wanted if tier != "T2")  # It has no sockets to reach anything with.
        controllers = self._entrance.controllers
        failed: list[Probe] = []
        for tier in wanted:
            probes = await self._attack(tier)
            if all(probe.held for probe in probes):
                gaps = tiers.gaps(tier, controllers=controllers)
                advice = for_better_tier(tier, controllers=controllers)
                return TierReport(self.name, tier, (*failed, *probes), gaps, advice)
            failed += [replace(probe, name=f"{tier}: {probe.name}") for probe in probes if not probe.held]
        return TierReport(self.name, REFUSED, tuple(failed), advice=for_better_tier(REFUSED, controllers=controllers))

    async def _attack(self, tier: Tier) -> list[Probe]:
        """Opens a sandbox of `tier` with small limits, attacks it, and takes it away again."""
        thread_id = ThreadId(f"check-{secrets.token_hex(6)}")
        small = self._settings.model_copy(
            update={"memory_bytes": CHECK_MEMORY_BYTES, "processes": CHECK_PROCESSES, "network": "off"}
        )
        try:
            sandbox = await self._sandbox(thread_id, tier, small)
        except (DialtoneError, OSError) as error:
            return [Probe("starts", False, str(error))]
        try:
            with canary_targets(self._data_dir) as targets:
                return await attack(sandbox, targets)
        finally:
            await sandbox.dispose()
            await asyncio.to_thread(self._places.remove, thread_id)


def _credentials(settings: SandboxSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Host → value of its Authorization header. Raises: ConfigError if a variable is not set, or cannot be a header."""
    found = {name: environ.get(name, "").strip() for name in settings.credentials.values()}
    missing = [name for name, value in found.items() if not re.fullmatch(r"[\x20-\x7e]+", value)]
    if missing:
        raise ConfigError(f"sandbox.credentials: the environment has no header value in {', '.join(missing)}")
    return {host: found[name] for host, name in settings.credentials.items()}
