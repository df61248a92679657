"""The first process of a live sandbox: it starts commands and leaves nothing of them behind.

It runs by itself (`python -I -S`, no import of ours) inside what confines it, and serves its worker over a
SOCK_SEQPACKET pair: requests are marshalled dictionaries with descriptors, answers are ANSWER structs.

Each command has a *supervisor*: a forked copy of this process that is a child subreaper, starts the command,
waits for it and ends with its status. Whatever the command left running then becomes a child of this process,
which kills every process that has no living supervisor above it, before it reports the end. Killing a command is
killing its supervisor, so a command that kills its own supervisor only ends itself.

`signal`, `socket`, `json`, `pathlib` and `contextlib` would double the start-up time, hence C modules and ctypes.
"""
# ruff: noqa: PTH123, PTH208

import _socket
import ctypes
import gc
import marshal
import os
import resource
import select
import sys
from struct import Struct
from time import monotonic

ANSWER = Struct("=BIi")
"""kind, id, value; a READY, DIALED or LISTENING answer may carry a descriptor."""
INT = Struct("=i")
READY, ENDED, DIALED, LISTENING = 1, 2, 3, 4
MAX_REQUEST = 4096
SCRIPT_FD = 9
NOT_FOUND, NOT_STARTED = 127, 126
STRAYS_S = 0.3
"""How long single processes are hunted before everything in the PID namespace is killed at once."""

RETRY_MS = 20

SIGINT, SIGKILL, SIGPIPE, SIGXFSZ = 2, 9, 13, 25
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
SECCOMP_MODE_FILTER = 2
SYS_LANDLOCK_RESTRICT_SELF = 446
CMSG_CLOEXEC = 0x40000000
OOM_SCORE = b"500"

libc = ctypes.CDLL(None, use_errno=True)


class Init:
    """Serves one worker until it goes away."""

    def __init__(self, control: _socket.socket) -> None:
        self._control = control
        self._jobs: dict[int, tuple[int, int]] = {}
        """Supervisor pid → (request id, pidfd)."""
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._landlock = -1
        self._is_alone = False
        self._is_clean = True
        """False while something that was killed has not died yet: it may take long to get its turn."""

    def serve(self) -> None:
        try:
            while True:
                for fd, _ in self._poll.poll(None if self._is_clean else RETRY_MS):
                    if fd == self._control.fileno() and not self._take():
                        return
                self._reap()
        finally:  # Also when it fails: where no PID namespace ends with it, nobody else would clear up.
            self._jobs = {}
            self._kill_strays()

    def _take(self) -> bool:
        """Does one request; False when the worker is gone."""
        content, extra, _, _ = self._control.recvmsg(MAX_REQUEST, _socket.CMSG_SPACE(4 * 8), CMSG_CLOEXEC)
        if not content:
            return False
        fds = [fd for _, _, packed in extra for (fd,) in INT.iter_unpack(packed)]
        request = marshal.loads(content)
        getattr(self, "do_" + request.pop("op"))(fds, **request)
        return True

    def do_setup(self, fds: list[int], limits: dict[int, int], seccomp: bytes, landlock: bool, alone: bool) -> None:
        """The first request: what every command inherits: limits and, in T2, the filter; and the Landlock ruleset.

        alone: every process that we may signal is one of this sandbox.
        """
        self._is_alone = alone
        for kind, value in limits.items():
            hard = resource.getrlimit(kind)[1]  # The worker's own, which only root may raise.
            least = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (least, least))
        if seccomp:
            confine(seccomp)
        self._landlock = fds[0] if landlock else -1
        self._answer(READY, 0, os.getpid())

    def do_run(self, fds: list[int], id: int) -> None:
        """Starts a command. fds: specification, stdin, stdout, stderr and, for a string, the script."""
        try:
            pid = os.fork()
        except OSError as error:  # The limit on processes is reached.
            os.write(fds[3], os.fsencode(f"the command cannot be started: {error.strerror}\n"))
            pid = -1
        if pid == 0:
            self._control.close()
            os._exit(supervise(fds, self._landlock))
        for fd in fds:
            os.close(fd)
        if pid < 0:
            self._answer(ENDED, id, NOT_STARTED)
            return
        pidfd = os.pidfd_open(pid)
        self._jobs[pid] = (id, pidfd)
        self._poll.register(pidfd, select.POLLIN)

    def do_kill(self, fds: list[int], id: int) -> None:
        for pid, (job, _) in self._jobs.items():
            if job == id:
                os.kill(pid, SIGKILL)

    def do_dial(self, fds: list[int], id: int, host: str, port: int) -> None:
        """A descriptor that is connecting to `port` of this network namespace."""
        try:
            connection = _socket.socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET, _socket.SOCK_STREAM)
        except OSError as error:
            self._answer(DIALED, id, error.errno or NOT_STARTED)
            return
        connection.setblocking(False)
        self._answer(DIALED, id, connection.connect_ex((host, port)), connection.fileno())
        connection.close()

    def do_listen(self, fds: list[int], id: int, port: int) -> None:
        """A descriptor that listens on `port` of this network namespace, for the worker's proxy to accept from."""
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        self._answer(LISTENING, id, 0, listener.fileno())
        listener.close()

    def _reap(self) -> None:
        """Reports the commands whose supervisors have ended, once nothing of them is left."""
        ended = self._wait()
        if ended or not self._is_clean:
            self._kill_strays()
        for id, code in ended:
            self._answer(ENDED, id, code)

    def _wait(self) -> list[tuple[int, int]]:
        """(request id, exit code) of the supervisors that ended by now; strays that ended are forgotten."""
        ended: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid in self._jobs:
                id, pidfd = self._jobs.pop(pid)
                self._poll.unregister(pidfd)
                os.close(pidfd)
                ended.append((id, exit_code(status)))

    def _kill_strays(self) -> None:
        """Kills whatever has no living supervisor above it; where everything is ours, everything if need be."""
        started = monotonic()
        self._is_clean = False
        while strays := [pid for pid in children(os.getpid()) if pid not in self._jobs]:
            waited_s = monotonic() - started
            if waited_s > 2 * STRAYS_S:
                return
            if waited_s > STRAYS_S and self._is_alone:
                os.kill(-1, SIGKILL)
            for pid in strays:
                for below in (pid, *descendants(pid)):
                    kill(below)
            for id, code in self._wait():
                self._answer(ENDED, id, code)
            select.select([], [], [], 0.001)
        self._is_clean = True

    def _answer(self, kind: int, id: int, value: int, fd: int = -1) -> None:
        extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, INT.pack(fd))] if fd >= 0 else []
        self._control.sendmsg([ANSWER.pack(kind, id, value)], extra)


def supervise(fds: list[int], landlock: int) -> int:
    """Starts the command, takes in its orphans, and gives its exit code."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    prefer_for_oom()
    spec = marshal.loads(read_all(fds[0]))
    for kind, value in spec["limits"].items():
        resource.setrlimit(kind, (value, value))
    placed = list(zip(fds[1:], (0, 1, 2, SCRIPT_FD), strict=False))
    try:
        os.chdir(spec["cwd"])
        program = find(spec["argv"][0], spec["env"].get("PATH", ""))
        if landlock < 0:
            pid = spawn(program, spec["argv"], spec["env"], placed)
        else:
            pid = fork_confined(program, spec["argv"], spec["env"], placed, landlock)
    except FileNotFoundError as error:
        os.write(fds[3], os.fsencode(f"{error.filename}: not found\n"))
        return NOT_FOUND
    except (OSError, ValueError) as error:
        os.write(fds[3], os.fsencode(f"{spec['argv'][0]}: {error}\n"))
        return NOT_STARTED
    for fd in fds:
        os.close(fd)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return exit_code(status)


def find(program: str, path: str) -> str:
    """The file to execute for a command's name. Raises: FileNotFoundError."""
    if "/" in program:
        return program
    for folder in path.split(":"):
        candidate = f"{folder}/{program}"
        if os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(2, "not found", program)


def spawn(program: str, argv: list[str], env: dict[str, str], placed: list[tuple[int, int]]) -> int:
    """Starts a command in a sandbox that is confined as a whole; half a millisecond faster than fork and exec."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in placed]
    return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigdef=(SIGPIPE, SIGXFSZ))


def fork_confined(
    program: str, argv: list[str], env: dict[str, str], placed: list[tuple[int, int]], landlock: int
) -> int:
    """Starts a command that closes the file system to itself (T2); this process stays outside, so it can kill it."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    # Nothing else takes the command down if this tier's init is killed from the host.
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    for number in (SIGPIPE, SIGXFSZ):
        libc.signal(number, None)
    if libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, landlock, 0):
        os._exit(NOT_STARTED)
    for fd, target in placed:
        os.dup2(fd, target)
        os.set_inheritable(target, True)  # dup2 leaves a descriptor that is already there as it was
    try:
        os.execve(program, argv, env)
    except OSError as error:
        os.write(2, os.fsencode(f"{program}: {error.strerror}\n"))
    os._exit(NOT_STARTED)


def confine(seccomp: bytes) -> None:
    """Puts T2's system call filter on this process and all it starts; ends it if that fails."""
    program = ctypes.create_string_buffer(seccomp)
    header = ctypes.create_string_buffer(Struct("@HP").pack(len(seccomp) // 8, ctypes.addressof(program)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        os.write(2, b"the system call filter was refused\n")
        os._exit(NOT_STARTED)


def prefer_for_oom() -> None:
    """Makes a command, not the sandbox's own process, the first to go when memory runs out.

    Only a dumpable process may write its score. No command runs below this one yet; once one does, it must not open
    the memory and the descriptors here, e.g. the lock.
    """
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, OOM_SCORE)
        os.close(score)
    except OSError:  # T2 with limits of the host's own on this
        pass
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`, whichever of its threads forked them."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):  # it ended in the meantime
        pass
    return found


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for below in found:
        found += children(below)
    return found


def kill(pid: int) -> None:
    """Kills a process and its group, which the kernel does at once: none of a group can fork on meanwhile."""
    try:
        group = os.getpgid(pid)
        if group not in (0, os.getpgrp()):  # Commands start with sessions of their own.
            os.killpg(group, SIGKILL)
        os.kill(pid, SIGKILL)
    except OSError:  # gone already
        pass


def exit_code(status: int) -> int:
    """0..255 as a shell has it: 128+n after signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def read_all(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def main() -> None:
    os.close(int(sys.argv[0].rpartition("/")[2]))  # this program, which commands would inherit
    control = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    for fd in map(int, sys.argv[2:]):
        os.set_inheritable(fd, False)
    os.umask(0o022)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Python's own handler would end us; without one, a PID namespace's first process hears no signal from inside.
    libc.signal(SIGINT, None)
    gc.disable()
    gc.freeze()
    Init(control).serve()


if __name__ == "__main__":
    main()
