"""A live sandbox: the process tree that runs one thread's commands, and the line to its init.

The tree is the init (`init.py`) in whatever confines it. It dies with the line: the kernel closes our end when this
process ends, however it ends, and init then takes everything down with it.
"""

import array
import asyncio
import contextlib
import errno
import itertools
import marshal
import os
import secrets
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import IO, Any, Self

from workflow.core.errors import SandboxError
from workflow.sandboxes.cgroups import Group
from workflow.sandboxes.init import ANSWER, DIALED, ENDED, INT, LISTENING, READY, descendants, kill

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
SCRIPT_ARGV = ("bash", "--noprofile", "--norc", "/dev/fd/9")
"""The script comes through a descriptor: any length, and not in the command line, where a `pkill -f` would find it."""
SCRIPT_HEAD = b"exec 9<&-; "
"""Keeps the descriptor from the script's own children; on its first line, so that line numbers stay right."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a confined init."""

    argv: tuple[str, ...]
    """Ends with the interpreter and init; the number of the line's descriptor is appended."""
    fds: tuple[int, ...] = ()
    """Descriptors that argv speaks of; closed once the process is started."""
    limits: dict[int, int] = field(default_factory=dict)
    """RLIMIT_* → value, for every command."""
    seccomp: bytes = b""
    landlock: int = -1
    """A ruleset's descriptor, when commands confine themselves (T2)."""
    held: tuple[int, ...] = ()
    """Descriptors init keeps open as long as it lives: the workspace's lock."""

    own_pids: bool = True
    """Init is the first process of a PID namespace: when it dies, so does everything in there."""
    alone: bool = True
    """Init may signal nothing but what it started: a PID namespace or a user of its own."""

    def close(self) -> None:
        """Closes our copies of all descriptors."""
        for fd in (*self.fds, *self.held, *([self.landlock] if self.landlock >= 0 else [])):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Spec:
    """A command as init starts it; paths are those inside the sandbox."""

    command: str | list[str]
    env: dict[str, str]
    cwd: str
    limits: dict[int, int] = field(default_factory=dict)
    """RLIMIT_* of this command alone, below those of the sandbox."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command that was started."""

    id: int
    ended: asyncio.Future[int]
    """Its exit code, once nothing it left behind runs any more. Fails with SandboxError when the sandbox dies."""


class Cell:
    """One live process tree. Belongs to the event loop that started it."""

    def __init__(
        self, line: socket.socket, process: subprocess.Popen[bytes], stderr: IO[bytes], *, own_pids: bool
    ) -> None:
        self.init_pid = 0
        """Init's process id as the host sees it."""
        self.group: Group | None = None
        """The control group it is in; deleted with it."""
        self.at_end: list[Callable[[], None]] = []
        """Called when the sandbox is gone."""
        self._oom_kills = 0
        self._own_pids = own_pids
        self._line = line
        self._process = process
        self._stderr = stderr
        # Never the same again in a sandbox that is started anew: a stale number must find nothing.
        self._ids = itertools.count(secrets.randbelow(1 << 30))
        self._jobs: dict[int, asyncio.Future[int]] = {}
        self._sockets: dict[int, asyncio.Future[socket.socket]] = {}
        self._ready = asyncio.get_running_loop().create_future()
        self._dead = asyncio.Event()
        self._waiting: asyncio.Future[None] | None = None
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(line.fileno(), self._receive)

    @classmethod
    async def start(cls, launch: Launch, *, spawner: Executor) -> Self:
        """A cell whose init answers.

        spawner: an executor whose thread lives as long as the provider: `--die-with-parent` fires when the
        *thread* that spawned bubblewrap ends.
        Raises: SandboxError with what was printed when it does not come up.
        """
        try:
            line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            launch.close()  # The lock is among them.
            raise SandboxError(f"the sandbox did not start: {error}") from error
        line.setblocking(False)
        # The kernel then attaches the sender's process id, as we see it, to every answer.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            process, stderr = await asyncio.get_running_loop().run_in_executor(spawner, _spawn, launch, theirs)
            cell = cls(line, process, stderr, own_pids=launch.own_pids)
        except OSError as error:
            line.close()
            raise SandboxError(f"the sandbox did not start: {error}") from error
        else:
            theirs.close()
            await cell._begin(launch)
        finally:
            theirs.close()
            launch.close()
        return cell

    async def _begin(self, launch: Launch) -> None:
        """Waits for init; nothing is left if it does not come."""
        setup = {
            "limits": launch.limits,
            "seccomp": launch.seccomp,
            "landlock": launch.landlock >= 0,
            "alone": launch.alone,
        }
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._send("setup", fds=[launch.landlock] if launch.landlock >= 0 else [], **setup)
                self.init_pid = await self._ready
        except TimeoutError as error:
            await self.stop()
            raise SandboxError("the sandbox did not start in time") from error
        except BaseException:
            await self.stop()
            raise

    @property
    def host_pid(self) -> int:
        """What we started: bubblewrap, which waits for init, or init itself."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self._dead.is_set()

    @property
    def running(self) -> int:
        """How many commands are running."""
        return len(self._jobs)

    def ran_out_of_memory(self) -> bool:
        """True if the kernel killed for memory in here since this was last asked."""
        if self.group is None:
            return False
        before, self._oom_kills = self._oom_kills, self.group.out_of_memory()
        return self._oom_kills > before

    async def run(self, spec: Spec, *, stdin: int, stdout: int, stderr: int) -> Job:
        """Starts a command with these descriptors, which stay the caller's to close. Raises: SandboxError."""
        script = spec.command if isinstance(spec.command, str) else None
        argv = list(SCRIPT_ARGV) if isinstance(spec.command, str) else spec.command
        with contextlib.ExitStack() as stack:
            fds = [_memory_file(stack, _packed(argv, spec))]
            fds += [stdin, stdout, stderr]
            if script is not None:
                fds.append(_memory_file(stack, SCRIPT_HEAD + os.fsencode(script)))
            job = Job(next(self._ids), self._loop.create_future())
            self._jobs[job.id] = job.ended
            try:
                await self._send("run", fds=fds, id=job.id)
            except BaseException:
                self._jobs.pop(job.id, None)
                raise
            return job

    async def kill(self, job: Job) -> None:
        """Ends a command and all it started; takes the whole sandbox down if that fails within a second."""
        if job.ended.done():
            return
        with contextlib.suppress(SandboxError):
            await self._send("kill", id=job.id)
        await asyncio.wait([job.ended], timeout=1.0)
        if not job.ended.done():
            await self.stop()

    async def dial(self, host: str, port: int) -> socket.socket:
        """A socket connected to `host:port` in the sandbox's network. Raises: OSError if nothing listens."""
        connection = await self._fetch("dial", host=host, port=port)
        try:
            async with asyncio.timeout(5):
                await _writable(self._loop, connection.fileno())
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            connection.close()
            raise
        return connection

    async def listen(self, port: int) -> socket.socket:
        """A socket that listens on `port` of the sandbox's loopback; we accept what comes from inside."""
        return await self._fetch("listen", port=port)

    async def stop(self) -> None:
        """Kills everything; returns when nothing of it is left."""
        self.kill_now()
        self._bury("the sandbox was closed")
        if self._waiting is not None:
            await self._waiting

    def kill_now(self) -> None:
        """Sends the kill and returns; safe to call from any thread."""
        if not self._own_pids:
            # Init has to do it, and to live until it is done: it sees the end of its line.
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
            return
        if self._process.poll() is not None:
            return
        # Not its parent, bubblewrap: that one ends only after init and everything below it have ended.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init_pid or self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in (*descendants(self._process.pid), self._process.pid):
                kill(pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        if self.group is not None:
            self.group.remove()

    async def _fetch(self, op: str, **fields: Any) -> socket.socket:
        number = next(self._ids)
        future: asyncio.Future[socket.socket] = self._loop.create_future()
        self._sockets[number] = future
        await self._send(op, id=number, **fields)
        async with asyncio.timeout(5):
            return await future

    async def _send(self, op: str, *, fds: list[int] | None = None, **fields: Any) -> None:
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        content = marshal.dumps({"op": op, **fields})
        async with self._sending:
            while True:
                if not self.is_alive:
                    raise SandboxError("the sandbox is not running any more")
                try:
                    self._line.sendmsg([content], extra)
                    return
                except BlockingIOError:
                    await _writable(self._loop, self._line.fileno())
                except OSError as error:
                    raise SandboxError(f"the sandbox died: {self._complaint()}") from error

    def _receive(self) -> None:
        try:
            content, extra, _, _ = self._line.recvmsg(ANSWER.size, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            content, extra = b"", []
        if len(content) != ANSWER.size:
            self._bury(f"the sandbox died: {self._complaint()}")
            return
        kind, number, value = ANSWER.unpack(content)
        if kind == READY:
            sender = next(packed for _, of, packed in extra if of == socket.SCM_CREDENTIALS)
            _settle(self._ready, struct.unpack("=iII", sender)[0])
        elif kind == ENDED and number in self._jobs:
            _settle(self._jobs.pop(number), value)
        elif kind in (DIALED, LISTENING):
            packed = b"".join(packed for _, of, packed in extra if of == socket.SCM_RIGHTS)
            self._deliver(number, [fd for (fd,) in INT.iter_unpack(packed)], error=value)

    def _deliver(self, number: int, fds: list[int], *, error: int) -> None:
        future = self._sockets.pop(number, None)
        if len(fds) == 1 and future is not None and not future.done() and error in (0, errno.EINPROGRESS):
            received = socket.socket(fileno=fds[0])
            received.setblocking(False)
            future.set_result(received)
            return
        for fd in fds:
            os.close(fd)
        if future is not None and not future.done():
            future.set_exception(OSError(error, os.strerror(error)))

    def _bury(self, reason: str) -> None:
        """Forgets a dead sandbox; whoever waits for it learns why."""
        if self._dead.is_set():
            return
        self._dead.set()
        self._loop.remove_reader(self._line.fileno())
        self._line.close()
        self._stderr.close()
        # Takes in the exit status; a sandbox that died by itself has nobody else who would wait for it.
        self._waiting = self._loop.run_in_executor(None, self._wait)
        for call in self.at_end:
            call()
        waiting: list[asyncio.Future[Any]] = [*self._jobs.values(), *self._sockets.values()]
        self._jobs, self._sockets = {}, {}
        for future in waiting:
            if not future.done():
                future.set_exception(SandboxError(reason))
                future.exception()  # Nobody may be waiting any more; that is no warning.
        if not self._ready.done():
            self._ready.set_exception(SandboxError(reason))
            self._ready.exception()

    def _complaint(self) -> str:
        """The last of what the tree printed on its own standard error."""
        self._stderr.seek(0)
        return self._stderr.read()[-1000:].decode(errors="replace").strip() or "no message"


def _spawn(launch: Launch, line: socket.socket) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """The process and the file that holds what it prints to its standard error. Blocking: a file takes its time."""
    inherited = [line.fileno(), *launch.held]
    stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (lives as long as the cell)
    try:
        process = subprocess.Popen(
            [*launch.argv, *map(str, inherited)],
            env={"PATH": "/usr/bin:/bin"},  # Ours holds secrets, and bubblewrap's is readable inside.
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[*inherited, *launch.fds],
            start_new_session=True,
            cwd="/",
        )
    except BaseException:
        stderr.close()
        raise
    return process, stderr


def _packed(argv: list[str], spec: Spec) -> bytes:
    return marshal.dumps({"argv": argv, "env": spec.env, "cwd": spec.cwd, "limits": spec.limits})


def _memory_file(stack: contextlib.ExitStack, content: bytes) -> int:
    fd = os.memfd_create("request", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd


async def _writable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = loop.create_future()
    loop.add_writer(fd, _settle, ready, None)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
