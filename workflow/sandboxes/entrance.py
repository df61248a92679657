"""Starting the processes of a sandbox: the lock first, then the tier's launch, then its limits."""

import asyncio
import os
import secrets
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workflow.core.config import SandboxSettings
from workflow.core.errors import SandboxError
from workflow.sandboxes import lock, tiers
from workflow.sandboxes.cell import Cell
from workflow.sandboxes.cgroups import Cgroups, Limits
from workflow.sandboxes.proxy import PORT, Proxy
from workflow.sandboxes.tiers import Means, Place, Tier


class Entrance:
    """Where all sandboxes of one worker process are started."""

    def __init__(self, means: Means, *, hidden: tuple[Path, ...], proxy: Proxy | None) -> None:
        """hidden: folders of ours that no sandbox may see. proxy: the way out, if there is one."""
        self._proxy = proxy
        self._cgroups = Cgroups.find()
        if self._cgroups is not None:
            self._cgroups.clean()
        self._means = means
        self._hidden = hidden
        # One thread for all starts: a sandbox is killed when the thread that spawned it ends.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="sandbox-spawner")

    @property
    def controllers(self) -> Set[str]:
        """What control groups limit here; empty where none can be made."""
        return frozenset() if self._cgroups is None else self._cgroups.controllers

    def close(self) -> None:
        """To be called when every cell is stopped."""
        self._spawner.shutdown()

    async def enter(self, tier: Tier, place: Place, settings: SandboxSettings) -> Cell:
        """A live cell of `tier`. Raises: SandboxError, also SandboxRefused."""
        lock_file = place.state / "lock"
        try:
            held = await asyncio.to_thread(lock.take, lock_file)
        except OSError as error:
            raise SandboxError(f"the sandbox's folder cannot be used: {error}") from error
        try:
            trusted = self._proxy.authority.bundle() if self._proxy and self._proxy.authority else b""
            launch = await asyncio.to_thread(
                tiers.launch,
                *(tier, place, settings),
                means=self._means,
                lock=held,
                hidden=self._hidden,
                trusted=trusted,
            )
        except BaseException as error:
            os.close(held)
            if isinstance(error, OSError):
                raise SandboxError(f"the sandbox cannot be started: {error}") from error
            raise
        cell = await Cell.start(launch, spawner=self._spawner)
        try:
            await asyncio.to_thread(lock.note, lock_file, cell.init_pid)
            if tier == "T1" or (tier == "T2" and self._cgroups is not None):
                await asyncio.to_thread(self._limit, cell, place, settings)
            if self._proxy is not None and settings.network != "off" and tier in ("T1", "T1b"):
                server = await self._proxy.serve(await cell.listen(PORT))
                cell.at_end.append(server.close)
        except BaseException:
            await cell.stop()
            raise
        return cell

    def _limit(self, cell: Cell, place: Place, settings: SandboxSettings) -> None:
        if self._cgroups is None:
            raise SandboxError("no control group can be made here")
        limits = Limits(settings.memory_bytes, settings.processes, settings.cpus)
        try:
            cell.group = self._cgroups.make(f"{place.state.name}.{secrets.token_hex(4)}", limits)
            cell.group.add(cell.init_pid)
        except OSError as error:
            raise SandboxError(f"the control group was refused: {error}") from error
