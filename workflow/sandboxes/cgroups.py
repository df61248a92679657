"""Limits on a whole sandbox together: memory, processes, CPU. Control groups of version 1 and version 2.

A group is made beside or below our own, wherever we may write; nothing of the host's own groups is changed.
Sources: docs.kernel.org/admin-guide/cgroup-v1, docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time

FOLDER = "dialtone"
CPU_PERIOD_US = 100_000
LEFT_S = 60.0
NEEDED = ("memory", "pids")
"""Without these two a tier is T1b; `cpu` is taken where it is."""


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

    def remove(self) -> None:
        """Deletes the group once its processes are gone; blocks for up to a second."""
        deadline = monotonic() + 1.0
        for folder in self.folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if monotonic() > deadline:
                        return  # It is empty of limits' meaning; `clean` takes it at the next start.
                    sleep(0.01)


class Cgroups:
    """The places where groups can be made on this machine."""

    def __init__(self, parents: dict[str, Path], *, version: int) -> None:
        self._parents = parents
        self.version = version

    @classmethod
    def find(cls) -> "Cgroups | None":
        """None where memory and process limits cannot be had."""
        return _find_v2() or _find_v1()

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


def _find_v1() -> Cgroups | None:
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    parents: dict[str, Path] = {}
    for mount in _mounts("cgroup"):
        for controller in (*NEEDED, "cpu"):
            if controller in mount.options and controller in own:
                parent = _own_folder(mount, own[controller]) / FOLDER
                with contextlib.suppress(OSError):
                    parent.mkdir(exist_ok=True)
                    if os.access(parent, os.W_OK):
                        parents[controller] = parent
    return Cgroups(parents, version=1) if all(name in parents for name in NEEDED) else None


def _find_v2() -> Cgroups | None:
    path = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), None)
    mount = next(_mounts("cgroup2"), None)
    if path is None or mount is None:
        return None
    own = _own_folder(mount, path)
    for folder in (own, *own.parents):
        if not folder.is_relative_to(mount.point):
            break
        controllers = _usable_v2(folder / FOLDER)
        if all(name in controllers for name in NEEDED):
            return Cgroups(dict.fromkeys(controllers, folder / FOLDER), version=2)
    return None


def _usable_v2(parent: Path) -> list[str]:
    """The controllers that groups below `parent` can have; empty if it cannot be made or they are not passed down."""
    try:
        parent.mkdir(exist_ok=True)
        offered = (parent / "cgroup.controllers").read_text().split()
        usable = [name for name in (*NEEDED, "cpu") if name in offered]
        if all(name in usable for name in NEEDED):
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in usable))
            return usable
        parent.rmdir()
    except OSError:
        pass
    return []


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    point: Path
    options: list[str]


def _mounts(kind: str) -> Iterator[_Mount]:
    """The mounted hierarchies of a kind (`cgroup`, `cgroup2`)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        found, _, options = rest.split(" ", 2)
        if found == kind:
            _, _, _, root, point, *_ = fields.split(" ")
            yield _Mount(root, Path(point), options.split(","))


def _own_folder(mount: _Mount, path: str) -> Path:
    """Our own group's folder; the mount's top when our path is not visible there."""
    below = path.removeprefix(mount.root.rstrip("/")).strip("/")
    own = mount.point / below
    return own if own.is_dir() else mount.point


def _number(folder: Path, *names: str) -> int:
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / name).read_text())
    return -1
