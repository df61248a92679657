"""The process that stays with one command: keeps its output in files, holds it to its limits, leaves nothing behind.

It outlives the call that started it, so a dropped connection costs no output: the next call reads on.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from workflow.sandboxes.inside.jobfiles import BACKGROUND_KEPT, JobFolder, Printed
from workflow.sandboxes.inside.processes import (
    MARK,
    SIGCHLD,
    SIGPIPE,
    SIGTERM,
    SIGXFSZ,
    adopt_orphans,
    descendants,
    end_all,
    has_children,
    marked,
    reap,
)

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal  # what the module of that name is made of, without its imports

TIMED_OUT, KILLED, NOT_FOUND, NOT_STARTED = 124, 137, 127, 126
SCRIPT_FD = 9
SCRIPT_ARGV = ["bash", "--noprofile", "--norc", "/dev/fd/9"]
"""The script comes through a descriptor: of any length, and not where a `pkill -f` would find it."""
SCRIPT_HEAD = b"exec 9<&-; "
MAX_FD = 4096
"""Above any descriptor that this short program ever has."""
READ = 65_536
DRAINS = 64
"""Reads of what is left in a pipe when its command has ended; more than a pipe holds."""


def supervise(folder: JobFolder, job: dict[str, Any], *, ready: int) -> None:
    """Runs the job to its end, unless it has a supervisor. ready: a descriptor, closed once the command is started."""
    if not folder.hold():
        return
    signal.signal(SIGTERM, lambda *_: None)
    signal.signal(SIGCHLD, lambda *_: None)
    wake, wake_end = os.pipe()
    for fd in (wake, wake_end):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_end)
    is_parent_of_all = adopt_orphans()
    outputs: dict[int, Printed] = {}
    pid = _spawn(folder, job, outputs)
    os.close(ready)
    status, killed_by = _watch(folder, job, pid, outputs, wake)
    for fd, printed in outputs.items():
        for _ in range(DRAINS):
            if not _take(fd, printed):
                break
    me, mark = os.getpid(), folder.mark
    if has_children():
        end_all(lambda: descendants(me))
    if not is_parent_of_all:
        end_all(lambda: marked(mark))
    if killed_by:
        code = TIMED_OUT if killed_by == "timeout" else KILLED
    else:
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    folder.end(code, killed_by)


def _watch(folder: JobFolder, job: dict[str, Any], pid: int, outputs: dict[int, Printed], wake: int) -> tuple[int, str]:
    """The command's wait status, and why it is to be killed (empty: it ended by itself)."""
    deadline = time.monotonic() + job["timeout_s"] if job["timeout_s"] else None
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return 0, "timeout"
        ready, _, _ = select.select([wake, *outputs], [], [], left)
        for fd in ready:
            if fd != wake and not _take(fd, outputs[fd]):
                os.close(fd)
                del outputs[fd]
        if job["max_bytes"] and sum(printed.total for printed in outputs.values()) > job["max_bytes"]:
            return 0, "output"
        if wake in ready:
            os.read(wake, 512)
            reason = folder.kill_reason()
            if reason:
                return 0, reason
            for ended, status in reap():
                if ended == pid:
                    return status, ""


def _take(fd: int, printed: Printed) -> bool:
    """Moves what the pipe holds to its file; False when there is nothing (any more)."""
    try:
        chunk = os.read(fd, READ)
    except BlockingIOError:
        return False
    printed.add(chunk)
    return bool(chunk)


def _spawn(folder: JobFolder, job: dict[str, Any], outputs: dict[int, Printed]) -> int:
    """Starts the command; `outputs` gets the reading ends of its pipes."""
    ends: list[int] = []
    for stream in (1,) if job["background"] else (1, 2):
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        outputs[reading] = Printed(folder, stream, keep=BACKGROUND_KEPT if job["background"] else 0)
        ends.append(writing)
    stdin = folder.open_input() if job["background"] else _content(job["stdin"])
    script = _content(SCRIPT_HEAD + job["script"]) if job["script"] is not None else -1
    argv = SCRIPT_ARGV if job["script"] is not None else job["argv"]
    pid = os.fork()
    if pid == 0:
        try:
            _become(argv, job, placed=[(stdin, 0), (ends[0], 1), (ends[-1], 2), (script, SCRIPT_FD)], mark=folder.mark)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
            os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED)
        finally:
            os._exit(NOT_STARTED)
    for fd in {*ends, stdin, script} - {-1}:
        os.close(fd)
    return pid


def _become(argv: list[str], job: dict[str, Any], *, placed: list[tuple[int, int]], mark: str) -> None:
    """Turns this process into the command. Raises: OSError."""
    # A descriptor may sit where another one has to go: first move all of them above.
    moved = [(fcntl.fcntl(fd, fcntl.F_DUPFD, SCRIPT_FD + 1), target) for fd, target in placed if fd >= 0]
    os.closerange(3, SCRIPT_FD + 1)
    for fd, target in moved:
        os.dup2(fd, target, inheritable=True)
    os.closerange(SCRIPT_FD + 1, MAX_FD)
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (SIGTERM, SIGCHLD, SIGPIPE, SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    os.chdir(job["cwd"])
    os.execvpe(argv[0], argv, {**os.environ, **job["env"], MARK: mark})


def _content(content: bytes) -> int:
    """A descriptor that gives `content` and then the end."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY)
    fd = os.memfd_create("dialtone")
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
