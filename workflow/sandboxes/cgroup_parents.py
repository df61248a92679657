"""Where on this machine control groups for sandboxes can be made.

On version 2, in this order:

1. The group that systemd has delegated to us (`Delegate=`): ours to arrange, and within the limits of the service.
2. The nearest group above us that we may write to and that hands the most down, as it is. Nothing of it is changed.
3. Our own group, if it can hand down more: a delegated one without systemd's mark (before 251 only root sees it), or
   the top of what we can see, as in a container.

A group with processes in it hands nothing down ("no internal processes"), so in the first and third case those of ours
move into one of their own below it.
Sources: docs.kernel.org/admin-guide/cgroup-v2.html, systemd.io/CGROUP_DELEGATION
"""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "dialtone"
OWN = "dialtone-worker"
"""Where our own processes are moved, beside `FOLDER`."""
NEEDED = frozenset({"memory", "pids"})
"""Without these two a tier is T1b; `cpu` is taken where it is."""
WANTED = ("memory", "pids", "cpu")
MARKS = ("trusted.delegate", "user.delegate")
"""Extended attributes that systemd puts on groups it has delegated; the first is for root only."""
TRIES = 10

log = logging.getLogger(__name__)


def on_version_1() -> dict[str, Path]:
    """Controller → the folder below which groups can be made; empty if one that is needed cannot be had."""
    own = {}
    for line in _memberships():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    parents: dict[str, Path] = {}
    for mount in _mounts("cgroup"):
        for controller in WANTED:
            if controller in mount.options and controller in own:
                parent = _own_folder(mount, own[controller]) / FOLDER
                with contextlib.suppress(OSError):
                    parent.mkdir(exist_ok=True)
                    if os.access(parent, os.W_OK):
                        parents[controller] = parent
    return parents if parents.keys() >= NEEDED else {}


def on_version_2() -> dict[str, Path]:
    """The same for version 2, where it is one folder for all."""
    path = next((line[3:] for line in _memberships() if line.startswith("0::")), None)
    mount = next(_mounts("cgroup2"), None)
    if path is None or mount is None:
        return {}
    own = _own_folder(mount, path)
    if own.name == OWN:  # A worker that started before us, or our parent, has made room already.
        own = own.parent
    above = [folder for folder in (own, *own.parents) if folder.is_relative_to(mount.point)]
    for folder in above[:2]:  # systemd may start us in a group below the one it delegates (`DelegateSubgroup=`).
        if _is_delegated(folder) and _make_room(folder):
            return _parents(folder)
    best = max(above, key=lambda folder: len(_handed_down(folder)))
    is_ours = os.geteuid() != 0 or own == mount.point
    if is_ours and len(_available(own)) > len(_handed_down(best)) and _make_room(own):
        return _parents(own)
    return _parents(best)


def _parents(folder: Path) -> dict[str, Path]:
    """Makes our folder there, which hands down what it gets."""
    parent = folder / FOLDER
    with contextlib.suppress(OSError):
        controllers = _handed_down(folder)
        if controllers:
            parent.mkdir(exist_ok=True)
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        return dict.fromkeys(controllers, parent)
    return {}


def _handed_down(folder: Path) -> list[str]:
    """The controllers that a group made in `folder` has; empty if we may not make one, or if one we need is missing."""
    return _named_in(folder / "cgroup.subtree_control") if _is_writable(folder) else []


def _available(folder: Path) -> list[str]:
    """The controllers that `folder` could hand down; empty like `_handed_down`."""
    return _named_in(folder / "cgroup.controllers") if _is_writable(folder) else []


def _named_in(file: Path) -> list[str]:
    found = file.read_text().split()
    return [name for name in WANTED if name in found] if NEEDED.issubset(found) else []


def _is_writable(folder: Path) -> bool:
    """True if groups can be made there and processes of groups below moved into them."""
    return all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs"))


def _is_delegated(folder: Path) -> bool:
    for mark in MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, mark) == b"1":
                return True
    return False


def _make_room(folder: Path) -> bool:
    """Lets `folder` hand down all it can; False if what is needed is not among that."""
    for controller in _available(folder):
        for _ in range(TRIES):  # Others may be starting processes in it at the same moment.
            try:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    log.warning("%s cannot hand down the controller %s: %s", folder, controller, error)
                    break
                _move_processes(folder, folder / OWN)
    return bool(_handed_down(folder))


def _move_processes(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # The next try to hand controllers down says whether it has worked.
        target.mkdir(exist_ok=True)
        pids = (source / "cgroup.procs").read_text().split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (target / "cgroup.procs").write_text(pid)
        log.info("moved %d processes from %s to %s, to make room for limits of sandboxes", len(pids), source, target)


def _memberships() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()


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
