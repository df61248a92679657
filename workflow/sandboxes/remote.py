"""The provider over any vendor's fleet: one machine per thread, found again by its label, put away when idle."""

import asyncio
import contextlib
import logging
import secrets
import shlex
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Self

from workflow.core.config import SandboxSettings
from workflow.core.errors import LimitExceeded, SandboxError, SandboxRefused, Unavailable
from workflow.core.ids import THREAD_ID, ThreadId
from workflow.core.ports import Quota
from workflow.sandboxes.admission import Admission
from workflow.sandboxes.base import Probe, SandboxInfo, TierReport
from workflow.sandboxes.machines import Fleet, Found, Machine, Pace, Vanished
from workflow.sandboxes.remote_call import Home
from workflow.sandboxes.remote_line import Line
from workflow.sandboxes.remote_sandbox import RemoteSandbox

log = logging.getLogger(__name__)

Exists = Callable[[ThreadId], Awaitable[bool]]
"""Whether this deployment knows the thread."""
TIER, REFUSED = "T0", "T3"
LEAK_EVERY_S = 600.0
"""How often a sweep also looks for machines that nobody knows any more."""
AT_ONCE = 8
"""Machines that a sweep looks after at the same time."""


class RemoteProvider:
    """One per worker process. What the vendor keeps outlives it; the next worker finds it by its label."""

    def __init__(
        self,
        fleet: Fleet,
        settings: SandboxSettings,
        *,
        home: str,
        exists: Exists | None = None,
        pace: Pace,
        quota: Quota | None = None,
    ) -> None:
        """home: the folder of the sandbox's user. exists: lets `sweep` end machines whose thread is gone."""
        self.name = fleet.name
        self._fleet = fleet
        self._settings = settings
        self._home = Home(f"{home}/workspace", f"{home}/.dialtone")
        self._exists = exists
        self._pace = pace
        self._sandboxes: dict[ThreadId, RemoteSandbox] = {}
        self._looked_for_leaks_at = monotonic()
        self._admission = Admission(
            quota, wait_s=settings.tenant_wait_s, has_idle=lambda threads: bool(self._idle(threads)), free=self._free
        )

    @property
    def live(self) -> int:
        """How many machines this worker has awake."""
        return sum(sandbox.line.machine is not None for sandbox in self._sandboxes.values())

    async def check(self) -> TierReport:
        """Asks the service once. A key that does not hold is T3; a service out of reach now may be back at the first
        use, so that is only told."""
        name = f"{self.name}: the service takes the key"
        try:
            async with self._bounded():
                await self._fleet.check()
        except SandboxRefused as error:
            advice = (f"set the key of {self.name} (docs/remote-sandboxes.md)",)
            return TierReport(self.name, REFUSED, (Probe(name, False, error.message),), advice=advice)
        except SandboxError as error:
            log.warning("%s is out of reach: %s", self.name, error)
            return TierReport(self.name, TIER, (Probe(name, False, error.message),), self._fleet.gaps)
        return TierReport(self.name, TIER, (Probe(name, True),), self._fleet.gaps)

    async def open(self, thread_id: ThreadId) -> RemoteSandbox:
        """The thread's sandbox; its machine comes with the first call of it."""
        if THREAD_ID.fullmatch(thread_id) is None:
            raise SandboxError("not a thread id", thread_id=thread_id)
        if thread_id not in self._sandboxes:
            self._sandboxes[thread_id] = self._make(thread_id)
        return self._sandboxes[thread_id]

    async def stop(self, thread_id: ThreadId) -> None:
        if thread_id in self._sandboxes:
            await self._sandboxes[thread_id].close()

    async def fork(self, source: ThreadId, snapshot_id: str, target: ThreadId) -> str:
        """Copies a snapshot from one thread's machine into the other's."""
        theirs, ours = await self.open(source), await self.open(target)
        await ours.upload(await theirs.pack_at(snapshot_id))
        return await ours.snapshot("forked")

    async def remove(self, thread_id: ThreadId) -> None:
        sandbox = self._sandboxes.pop(thread_id, None)
        if sandbox is not None:
            sandbox.line.close()
            self._admission.leave(thread_id)
        async with self._bounded():
            for found in await self._fleet.find(thread_id):
                await self._fleet.kill(found.id)

    async def yield_place(self, thread_ids: Collection[ThreadId]) -> None:
        await self._admission.yield_place(thread_ids)

    async def sweep(self) -> int:
        """Puts idle machines away and ends those whose thread is gone; how many."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def look_after(thread_id: ThreadId, sandbox: RemoteSandbox) -> bool:
            async with gate:
                try:
                    async with self._bounded():
                        is_away = await sandbox.put_away_if_idle()
                    if is_away:
                        self._admission.leave(thread_id)
                    elif sandbox.line.machine is not None:
                        await self._admission.weigh(thread_id, sandbox.disk_bytes)
                    return is_away
                except SandboxError as error:
                    log.warning("a sandbox of %s was not looked after: %s", self.name, error)
                    return False

        count = sum(await asyncio.gather(*(look_after(*held) for held in list(self._sandboxes.items()))))
        await self._admission.keep([name for name, box in self._sandboxes.items() if box.line.machine is not None])
        self._sandboxes = {name: sandbox for name, sandbox in self._sandboxes.items() if not sandbox.is_forgotten}
        if monotonic() - self._looked_for_leaks_at > LEAK_EVERY_S:
            count += await self.end_leaks()
        return count

    async def end_leaks(self) -> int:
        """Ends machines of ours that are a thread's second, or whose thread does not exist; how many."""
        self._looked_for_leaks_at = monotonic()
        ended = 0
        try:
            async with self._bounded():
                for leak in await self._leaks():
                    ended += await self._end_leak(leak)
        except (SandboxError, Unavailable) as error:
            log.warning("%s was not searched for leaks to the end: %s", self.name, error)
        return ended

    async def _end_leak(self, leak: Found) -> bool:
        """Whether that worked; one that cannot be ended keeps none of the others."""
        log.warning("ending sandbox %s of %s: thread %s does not use it", leak.id, self.name, leak.thread_id)
        try:
            await self._fleet.kill(leak.id)
        except SandboxError as error:
            log.warning("sandbox %s of %s was not ended: %s", leak.id, self.name, error)
            return False
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the machines alone: another worker may use them next. Unused, they put themselves away."""
        self._sandboxes.clear()
        await self._admission.close()
        await self._fleet.close()

    def _make(self, thread_id: ThreadId) -> RemoteSandbox:
        async def enter(last_id: str) -> tuple[Machine, bool]:
            await self._make_room()
            await self._admission.enter(thread_id)
            try:
                async with self._bounded():
                    return await self._enter(thread_id, last_id)
            except BaseException:
                self._admission.leave(thread_id)
                raise

        info = SandboxInfo(
            provider=self.name,
            tier=TIER,
            network=self._settings.network,
            gaps=self._fleet.gaps,
            sandbox_id=thread_id,
            workdir=self._home.workdir,
        )
        line = Line(
            self._home,
            pace=self._pace,
            timeout_s=self._settings.remote_timeout_s,
            lease_s=self._fleet.lease_s,
            enter=enter,
        )

        async def admit() -> None:
            await self._admission.check_disk(thread_id, sandbox.disk_bytes)

        sandbox = RemoteSandbox(info, self._settings, line, admit=admit)
        return sandbox

    async def _enter(self, thread_id: ThreadId, last_id: str) -> tuple[Machine, bool]:
        """The thread's machine and whether it is new."""
        if last_id:
            try:
                return await self._fleet.connect(last_id), False
            except Vanished:
                log.warning("sandbox %s of %s is gone", last_id, self.name)
        for found in await self._in_order(await self._fleet.find(thread_id)):
            try:
                return await self._fleet.connect(found.id), False
            except Vanished:  # the list was older than its end
                continue
        machine = await self._fleet.create(thread_id)
        # Another worker may have made one at the same time: all keep the one that comes first in the same order.
        first = next(iter(await self._in_order(await self._fleet.find(thread_id))), None)
        if first is None or first.id == machine.id:
            return machine, True
        await self._fleet.kill(machine.id)
        return await self._fleet.connect(first.id), False

    async def _in_order(self, machines: list[Found]) -> list[Found]:
        """Machines of one thread, the one to be used first: the oldest that somebody has worked in, else the oldest.

        Age alone does not tell: a service may show a machine late, and count its age anew when it wakes.
        """
        ordered = sorted(machines, key=lambda found: found.age_key)
        if len(ordered) < 2:
            return ordered
        used = [found for found in ordered if await self._is_used(found)]
        return used + [found for found in ordered if found not in used]

    async def _is_used(self, found: Found) -> bool:
        word = secrets.token_hex(6)  # in two parts, for shells that show their commands
        question = f"test -e {shlex.quote(self._home.state)}/used && echo {word[:6]}''{word[6:]}"
        try:
            return word in await (await self._fleet.connect(found.id)).call(question)
        except Vanished:
            return False

    async def _make_room(self) -> None:
        """Puts the machine away that was unused longest when there are too many. Raises: LimitExceeded if all work."""
        if self.live < self._settings.max_live:
            return
        if not await self._free(self._sandboxes):
            raise LimitExceeded("too many live sandboxes", limit=self._settings.max_live, retry_after_s=5)

    async def _free(self, threads: Collection[ThreadId]) -> bool:
        """Puts the machine of these threads away that was unused longest and is idle; False if there is none."""
        idle = self._idle(threads)
        if not idle:
            return False
        thread_id, oldest = min(idle, key=lambda held: held[1].line.used_at)
        try:
            await oldest.put_away()
        except SandboxError as error:  # whoever needs the place has no part in this
            log.warning("a sandbox of %s was not put away: %s", self.name, error)
        self._admission.leave(thread_id)
        await self._admission.close()
        return True

    def _idle(self, threads: Collection[ThreadId]) -> list[tuple[ThreadId, RemoteSandbox]]:
        return [
            (thread_id, sandbox)
            for thread_id, sandbox in self._sandboxes.items()
            if thread_id in threads and sandbox.line.machine is not None and not sandbox.is_busy
        ]

    @contextlib.asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        timeout_s = self._settings.remote_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            raise SandboxError(f"{self.name} did not answer within {timeout_s:g} s") from error

    async def _leaks(self) -> list[Found]:
        by_thread: defaultdict[ThreadId, list[Found]] = defaultdict(list)
        for found in await self._fleet.find():
            by_thread[found.thread_id].append(found)
        leaks: list[Found] = []
        for thread_id, machines in by_thread.items():
            try:
                first, *others = await self._in_order(machines)
            except SandboxError as error:
                log.warning("it is not known which sandbox of thread %s is used: %s", thread_id, error)
                continue
            leaks += others
            if thread_id not in self._sandboxes and self._exists is not None and not await self._exists(thread_id):
                leaks.append(first)
        now = datetime.now(UTC)
        return [leak for leak in leaks if (now - leak.created_at).total_seconds() > self._pace.leak_s]
