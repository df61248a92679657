"""What processes hold that has no name any more: deleted files, and memory they share. No scan of folders finds it.

Blocking; call it from a thread. Not seen is, unless the worker is root, what a process holds that forbids to look at it
(PR_SET_DUMPABLE).
"""

import os
import stat as modes
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from workflow.sandboxes.disk import BLOCK, Amount
from workflow.sandboxes.init import descendants

Found = tuple[int, int, int]
"""Device, inode, bytes."""


def deleted_files(init_pid: int, roots: Sequence[int]) -> Amount:
    """What the processes below a sandbox's init still hold of files deleted from the disks of these folders."""
    disks = {os.fstat(root).st_dev for root in roots}
    pids = descendants(init_pid)
    sizes = {(device, inode): size for pid in pids for device, inode, size in (*_open(pid), *_mapped(pid, disks))}
    on_disk = [size for (device, _), size in sizes.items() if device in disks]
    return Amount(sum(on_disk), len(on_disk), unseen=any(map(_has_files_waiting, pids)))


def shared_bytes(init_pid: int) -> int:
    """Memory that the processes share, or hold in files in memory; each page once."""
    pids = descendants(init_pid)
    mapped = sum(_shared(pid) for pid in pids)
    # Both may be the same pages; adding them up would end programs that do nothing wrong.
    in_files = sum({(device, inode): size for pid in pids for device, inode, size in _open(pid)}.values())
    return max(mapped, in_files)


def _open(pid: int) -> Iterator[Found]:
    """Deleted files that are open."""
    for task, fd in _descriptors(pid):
        yield from _deleted(f"{task}/fd/{fd}")


def _has_files_waiting(pid: int) -> bool:
    """True if files sent through a socket have not been received: they are in nobody's hands. Needs Linux 5.6."""
    for task, fd in _descriptors(pid):
        try:
            if modes.S_ISSOCK(os.stat(f"{task}/fd/{fd}").st_mode):  # noqa: PTH116
                lines = Path(f"{task}/fdinfo/{fd}").read_text().splitlines()
                if any(line.startswith("scm_fds:") and line.split()[1] != "0" for line in lines):
                    return True
        except OSError:
            continue
    return False


def _mapped(pid: int, disks: Set[int]) -> Iterator[Found]:
    """Deleted files of these disks that are mapped, though no descriptor may be left of them."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_bytes().splitlines()
    except OSError:  # it ended in the meantime, or does not let us look
        return
    for line in lines:
        if not line.endswith(b" (deleted)"):
            continue
        place, _, _, device, inode, _ = line.split(maxsplit=5)
        major, minor = (int(part, 16) for part in device.split(b":"))
        if os.makedev(major, minor) not in disks:
            continue
        known = list(_deleted(f"/proc/{pid}/map_files/{place.decode()}"))
        start, end = (int(part, 16) for part in place.split(b"-"))
        # Only root may look at the file; what is mapped of it is at least some of it.
        yield from known or [(os.makedev(major, minor), int(inode), end - start)]


def _deleted(path: str) -> Iterator[Found]:
    try:
        found = os.stat(path)  # noqa: PTH116  (thousands of them)
    except OSError:
        return
    if modes.S_ISREG(found.st_mode) and found.st_nlink == 0:
        yield found.st_dev, found.st_ino, found.st_blocks * BLOCK


def _shared(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Shmem:"))


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """Of every thread, which may have some of its own: its folder in /proc, and the number."""
    for thread in _names(f"/proc/{pid}/task"):
        task = f"/proc/{pid}/task/{thread}"
        for fd in _names(f"{task}/fd"):
            yield task, fd


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
