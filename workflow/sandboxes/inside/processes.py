"""Finding and ending processes: a command's descendants, and what carries its mark."""

from __future__ import annotations

import os
import time

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "DIALTONE_JOB"
"""The environment variable by which a command's processes are known after their supervisor is gone."""
PR_SET_CHILD_SUBREAPER = 36
# As on every Linux; the module `signal` imports much.
SIGKILL, SIGPIPE, SIGTERM, SIGCHLD, SIGCONT, SIGSTOP, SIGXFSZ = 9, 13, 15, 17, 18, 19, 25
HUNT_S = 1.0


def adopt_orphans() -> bool:
    """Makes this process the parent of its descendants' orphans, so that none escapes; whether that worked."""
    try:
        import ctypes  # missing in some small Pythons, costly, and only needed here

        return bool(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, dead ones that nobody has waited for left out."""
    children: dict[int, list[int]] = {}
    for found in pids():
        try:
            with open(f"/proc/{found}/stat", "rb") as file:
                # The name is in parentheses and may hold any byte; what follows the last one is fixed.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != b"Z":
            children.setdefault(int(parent), []).append(found)
    below, todo = [], [pid]
    while todo:
        todo = [child for parent in todo for child in children.get(parent, ())]
        below += todo
    return below


def marked(prefix: str) -> list[int]:
    """The processes whose mark begins with `prefix`."""
    wanted = f"{MARK}={prefix}".encode()
    found = []
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except OSError:
            continue
        if environ.startswith(wanted) or b"\0" + wanted in environ:
            found.append(pid)
    return found


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def end_all(look: Callable[[], list[int]]) -> None:
    """Kills what `look()` finds, frozen first so that a fork bomb cannot outrun us, until it finds nothing."""
    deadline = time.monotonic() + HUNT_S
    seen: set[int] = set()
    while found := set(look()):
        fresh = found - seen
        seen |= fresh
        for pid in fresh or found:
            send(pid, SIGSTOP if fresh else SIGKILL)
        reap()
        if not fresh:
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap() -> list[tuple[int, int]]:
    """(pid, status) of each child that has ended."""
    ended = []
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, status))
    except ChildProcessError:
        pass
    return ended


def resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
