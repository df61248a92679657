"""Starting the processes of a sandbox: the lock first, then the tier's launch, then its limits."""

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workflow.core.config import SandboxSettings
from workflow.core.errors import SandboxError
from workflow.sandboxes import lock, tiers
from workflow.sandboxes.cell import Cell
from workflow.sandboxes.cgroups import Cgroups, Limits
from workflow.sandboxes.tiers import Means, Place, Tier


class Entrance:
    """Where all sandboxes of one worker process are started."""

    def __init__(self, means: Means, *, hidden: tuple[Path, ...]) -> None:
        """hidden: folders of ours that no sandbox may see."""
        self.cgroups = Cgroups.find()
        self._means = means
        self._hidden = hidden
        # One thread for all starts: a sandbox is killed when the thread that spawned it ends.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="sandbox-spawner")

    def close(self) -> None:
        """To be called when every cell is stopped."""
        self._spawner.shutdown()

    async def enter(self, tier: Tier, place: Place, settings: SandboxSettings) -> Cell:
        """A live cell of `tier`. Raises: SandboxError, also SandboxRefused."""
        lock_file = place.state / "lock"
        held = await asyncio.to_thread(lock.take, lock_file)
        try:
            launch = tiers.launch(tier, place, settings, means=self._means, lock=held, hidden=self._hidden)
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
        if self.cgroups is None:
            raise SandboxError("no control group can be made here")
        limits = Limits(settings.memory_bytes, settings.processes, settings.cpus)
        try:
            cell.group = self.cgroups.make(f"{place.state.name}.{secrets.token_hex(4)}", limits)
            cell.group.add(cell.init_pid)
        except OSError as error:
            raise SandboxError(f"the control group was refused: {error}") from error
