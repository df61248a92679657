"""Limits on a whole sandbox together: memory, processes, CPU. Control groups of version 1 and version 2.

Sources: docs.kernel.org/admin-guide/cgroup-v1, docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
import os
import re
import signal
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time

from workflow.sandboxes import cgroup_parents

CPU_PERIOD_US = 100_000
LEFT_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    memory_bytes: int
    processes: int
    cpus: float


class Group:
    """One sandbox's group; on version 1 a folder per controller, on version 2 one folder."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    @property
    def folders(self) -> set[Path]:
        return set(self._folders.values())

    def add(self, pid: int) -> None:
        """Moves a process in; what it forks from now on is in as well. Raises: OSError."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def memory_bytes(self) -> int:
        memory = self._folders["memory"]
        return _number(memory, "memory.current", "memory.usage_in_bytes")

    def processes(self) -> int:
        return _number(self._folders["pids"], "pids.current")

    def out_of_memory(self) -> int:
        """How many processes the kernel has killed here because the memory was used up."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                found = re.search(r"^oom_kill (\d+)$", (self._folders["memory"] / name).read_text(), re.MULTILINE)
                if found:
                    return int(found[1])
        return 0

    def kill(self) -> None:
        """Kills all processes in it; on version 2 (Linux 5.14) at once, so that none can fork away."""
        for folder in self.folders:
            try:
                (folder / "cgroup.kill").write_text("1")
            except OSError:
                with contextlib.suppress(OSError):  # One that has ended meanwhile, or the whole group.
                    for pid in map(int, (folder / "cgroup.procs").read_text().split()):
                        if pid:  # 0 stands for one that we cannot see, and for our own process group.
                            os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Kills what is still in the group and deletes it; blocks for up to a second."""
        deadline = monotonic() + 1.0
        for folder in self.folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if monotonic() > deadline:
                        return  # Its processes are slow to die; `clean` takes it at the next start.
                    self.kill()
                    sleep(0.01)


class Cgroups:
    """The places where groups can be made on this machine."""

    def __init__(self, parents: dict[str, Path], *, version: int) -> None:
        self._parents = parents
        self.version = version

    @classmethod
    def find(cls) -> "Cgroups | None":
        """None where memory and process limits cannot be had."""
        if parents := cgroup_parents.on_version_2():
            return cls(parents, version=2)
        parents = cgroup_parents.on_version_1()
        return cls(parents, version=1) if parents else None

    @property
    def controllers(self) -> Set[str]:
        """What can be limited: `memory`, `pids` and maybe `cpu`."""
        return self._parents.keys()

    def make(self, name: str, limits: Limits) -> Group:
        """A new group with these limits. Raises: OSError."""
        folders = {controller: parent / name for controller, parent in self._parents.items()}
        for folder in set(folders.values()):
            folder.mkdir(exist_ok=True)
        group = Group(folders)
        try:
            for controller, settings in _settings(limits, version=self.version).items():
                if controller in folders:
                    _write(folders[controller], settings)
        except OSError:
            group.remove()
            raise
        return group

    def clean(self) -> None:
        """Deletes groups that a killed worker left; those with processes stay, and those just made by another one."""
        for parent in set(self._parents.values()):
            for folder in parent.iterdir():
                with contextlib.suppress(OSError):
                    if folder.is_dir() and time() - folder.stat().st_ctime > LEFT_S:
                        folder.rmdir()


def _settings(limits: Limits, *, version: int) -> dict[str, dict[str, str]]:
    """Controller → file → value. Files that this kernel lacks (swap) are left out when writing."""
    quota_us = int(limits.cpus * CPU_PERIOD_US)
    pids = {"pids.max": str(limits.processes)}
    if version == 2:
        memory = {"memory.max": str(limits.memory_bytes), "memory.swap.max": "0"}
        return {"memory": memory, "pids": pids, "cpu": {"cpu.max": f"{quota_us} {CPU_PERIOD_US}"}}
    memory = {
        "memory.limit_in_bytes": str(limits.memory_bytes),
        "memory.memsw.limit_in_bytes": str(limits.memory_bytes),
    }
    cpu = {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
    return {"memory": memory, "pids": pids, "cpu": cpu}


def _write(folder: Path, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        file = folder / name
        if file.exists() or "sw" not in name:
            file.write_text(value)


def _number(folder: Path, *names: str) -> int:
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / name).read_text())
    return -1
