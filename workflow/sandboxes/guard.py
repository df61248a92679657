"""Limits that the kernel does not keep for us, kept by looking: disk always, memory and processes without cgroups."""

import asyncio
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from workflow.core.config import SandboxSettings
from workflow.sandboxes.cell import Cell
from workflow.sandboxes.disk import RESCAN_S, DiskMeter
from workflow.sandboxes.held import shared_bytes
from workflow.sandboxes.init import children

log = logging.getLogger(__name__)

INTERVAL_S = 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")


class Guard:
    """Looks after one sandbox while commands run in it."""

    def __init__(self, settings: SandboxSettings, disk: DiskMeter, *, stop: Callable[[str], None]) -> None:
        """stop: called with `disk`, `memory` or `processes` when that limit is passed."""
        self._settings = settings
        self._disk = disk
        self._stop = stop
        self._running = 0
        self._cell: Cell | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, cell: Cell) -> None:
        """A command starts."""
        self._running += 1
        self._disk.allow_present()
        if cell is not self._cell:  # A command of the one before may still be handing on its output.
            self._rest()
        if self._task is None:
            self._cell, self._task = cell, asyncio.create_task(self._watch(cell))

    def end(self) -> None:
        """A command that had begun is over."""
        self._running -= 1
        if self._running == 0:
            self._rest()

    def _rest(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self, cell: Cell) -> None:
        shared = SharedMemory(cell.init_pid)
        while cell.is_alive:
            await asyncio.sleep(INTERVAL_S)
            try:
                reason = await self._passed(cell, shared)
            except OSError as error:  # E.g. no descriptors left; there may be some again next time.
                log.warning("the limits of a sandbox cannot be looked after: %s", error)
                continue
            if reason:
                self._stop(reason)

    async def _passed(self, cell: Cell, shared: "SharedMemory") -> str:
        """The limit that is passed, or empty."""
        if self._disk.may_be_over() and await asyncio.to_thread(self._disk.is_over):
            return "disk"
        if cell.group is None:
            private, processes = await asyncio.to_thread(usage, cell.init_pid)
            if processes > self._settings.processes:
                return "processes"
            if await asyncio.to_thread(shared.exceeds, self._settings.memory_bytes - private):
                return "memory"
        return ""


class SharedMemory:
    """What the processes of a sandbox share, looked at as seldom as the host's own sum of such memory allows."""

    def __init__(self, init_pid: int) -> None:
        self._init_pid = init_pid
        self._known = 0
        self._of_host = 0
        self._looked_at = -math.inf
        self._look_s = 0.0

    def exceeds(self, room_bytes: int) -> bool:
        """Whether it takes more than `room_bytes`. Blocking."""
        if room_bytes < 0:
            return True
        grown = _shared_of_host() - self._of_host
        age = monotonic() - self._looked_at
        if age < 5 * self._look_s or (self._known + grown <= room_bytes and age < RESCAN_S):
            return False
        started = monotonic()
        self._of_host = _shared_of_host()
        self._known = shared_bytes(self._init_pid)
        self._looked_at = monotonic()
        self._look_s = self._looked_at - started
        return self._known > room_bytes


def _shared_of_host() -> int:
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))
    return int(line.split()[1]) * 1024


def usage(init_pid: int) -> tuple[int, int]:
    """Private memory in bytes and number of the processes below a sandbox's init."""
    found = children(init_pid)
    memory = 0
    for pid in found:
        found += children(pid)
        try:
            _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
        except (OSError, ValueError):  # it ended in the meantime
            continue
        memory += (resident - shared) * PAGE
    return memory, len(found)
