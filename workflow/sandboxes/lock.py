"""Who uses a workspace: a file lock that lives exactly as long as the sandbox's init, whoever dies first.

The worker opens and locks the file, hands the descriptor to init and closes its own. So the lock outlives no
sandbox, and a worker that was stopped (SIGSTOP) and then replaced still holds it, until its sandbox is killed.
"""

import contextlib
import fcntl
import os
import signal
from pathlib import Path
from time import monotonic, sleep

from workflow.core.errors import SandboxError

STEAL_S = 30.0
"""Time enough for a workspace that is just being put away."""


def take(path: Path) -> int:
    """A descriptor that holds the lock; a sandbox that an earlier worker left running is killed first.

    Only the worker that owns the thread's run starts commands, so whoever comes later is right. Blocking.
    Raises: SandboxError if the other sandbox does not go away.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = monotonic() + STEAL_S
    while not _try(fd):
        if monotonic() > deadline:
            os.close(fd)
            raise SandboxError("another sandbox of this thread does not end", holder=holder(path))
        pid = holder(path)
        if pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        sleep(0.02)
    return fd


def note(path: Path, pid: int) -> None:
    """Writes down init's process id (and when it started, because ids are used again)."""
    path.write_text(f"{pid} {started(pid)}")


def holder(path: Path) -> int:
    """The process id of the init that was noted; 0 when it does not run any more."""
    try:
        pid, start = path.read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if started(int(pid)) == start else 0


def is_used(path: Path) -> bool:
    """True while a sandbox holds the lock."""
    if not path.exists():
        return False
    fd = take_free(path)
    if fd is None:
        return True
    os.close(fd)
    return False


def take_free(path: Path) -> int | None:
    """A descriptor that holds the lock; None while another one does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _try(fd):
        return fd
    os.close(fd)
    return None


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
