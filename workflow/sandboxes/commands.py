"""Commands in a live sandbox: their output as it comes, their time, their end."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic

from workflow.core.errors import SandboxError
from workflow.core.ports import OnOutput
from workflow.sandboxes.base import ExecResult
from workflow.sandboxes.cell import Cell, Job, Spec
from workflow.sandboxes.output import Kept, Rolling

CHUNK = 65_536
BURST_BYTES, BURST_S = 1_000_000, 0.1
"""So much of a background command is read, then nothing for this long: it waits meanwhile."""
TIMED_OUT = 124
KILLED = 128 + 9
TOO_BIG = 128 + 25
"""SIGXFSZ: a file grew beyond RLIMIT_FSIZE."""


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While a command is made ready. Raises: SandboxError where the worker has no descriptors left, or no memory."""
    try:
        yield
    except OSError as error:
        raise SandboxError(f"the command cannot be started: {error.strerror}") from error


class Pump:
    """Reads one pipe as it fills and hands on each chunk; while the receiver is busy, nothing more is read.

    owner: the user inside, who can then also open `/dev/stdout`.
    """

    def __init__(self, show: Callable[[bytes], Awaitable[None] | None], *, owner: int) -> None:
        self._show = show
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        if os.geteuid() == 0:
            os.fchown(self.write_fd, owner, owner)
        self._busy: asyncio.Future[None] | None = None
        self._finishing = False
        self._loop.add_reader(self._read_fd, self._on_readable)

    def started(self) -> None:
        """To be called when the command has its own copy of the writing end."""
        os.close(self.write_fd)
        self.write_fd = -1

    def pause(self) -> None:
        """Reads nothing more until `finish`; the command waits as soon as its pipe is full."""
        self._finishing = True
        self._loop.remove_reader(self._read_fd)

    async def finish(self) -> None:
        """Hands on what is left in the pipe, without waiting for its end: somebody may hold it open."""
        self.pause()
        if self._busy is not None:
            await self._busy
        while chunk := self._next():
            shown = self._show(chunk)
            if shown is not None:
                await shown

    def close(self) -> None:
        """Also ends a receiver that is still busy: the number of the descriptor is soon another command's."""
        self.pause()
        if self._busy is not None:
            self._busy.cancel()
        os.close(self._read_fd)
        if self.write_fd >= 0:
            self.started()

    def _next(self) -> bytes | None:
        """The next bytes; none at the end, None when there are none yet."""
        try:
            return os.read(self._read_fd, CHUNK)
        except BlockingIOError:
            return None

    def _on_readable(self) -> None:
        chunk = self._next()
        if chunk is None:
            return
        if not chunk:
            self._loop.remove_reader(self._read_fd)
            return
        shown = self._show(chunk)
        if shown is not None:
            self._loop.remove_reader(self._read_fd)
            self._busy = asyncio.ensure_future(self._resume(shown))

    async def _resume(self, shown: Awaitable[None]) -> None:
        await shown
        if not self._finishing:
            self._loop.add_reader(self._read_fd, self._on_readable)


class Foreground:
    """One `exec`: collects the output, enforces time and output limits, always leaves nothing behind."""

    def __init__(self, cell: Cell, *, max_output: int, output_limit: int, on_output: OnOutput | None) -> None:
        self._cell = cell
        self._kept = {"stdout": Kept(max_output), "stderr": Kept(max_output)}
        self._output_limit = output_limit
        self._on_output = on_output
        self._pumps: list[Pump] = []
        self._verdict: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def stop(self, reason: str) -> None:
        """Ends the command for `reason` (`output`, `disk`, `memory`); the first reason stands."""
        if not self._verdict.done():
            self._verdict.set_result(reason)

    async def run(self, spec: Spec, *, stdin: int, owner: int, timeout_s: float) -> ExecResult:
        started = monotonic()
        pumps = self._pumps
        try:
            with starting():
                for name in self._kept:
                    pumps.append(Pump(self._shower(name), owner=owner))
                job = await self._cell.run(spec, stdin=stdin, stdout=pumps[0].write_fd, stderr=pumps[1].write_fd)
            for pump in pumps:
                pump.started()
            killed_by = await self._wait(job, timeout_s)
            for pump in pumps:
                await pump.finish()
        finally:
            for pump in pumps:
                pump.close()
        stdout, stderr = self._kept.values()
        return ExecResult(
            exit_code=TIMED_OUT if killed_by == "timeout" else self._exit_code(job, killed_by),
            stdout=stdout.value(),
            stderr=stderr.value(),
            timed_out=killed_by == "timeout",
            killed_by=killed_by,
            dropped_bytes=stdout.dropped + stderr.dropped,
            duration_s=monotonic() - started,
        )

    async def _wait(self, job: Job, timeout_s: float) -> str:
        """Why the command was killed, or empty when it ended by itself."""
        try:
            await asyncio.wait((job.ended, self._verdict), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await asyncio.shield(self._cell.kill(job))
            raise
        if job.ended.done():
            return self._killed_by_limit(job)
        await self._cell.kill(job)
        return self._verdict.result() if self._verdict.done() else "timeout"

    def _killed_by_limit(self, job: Job) -> str:
        """The limit that the kernel itself enforced, as far as the command's status tells."""
        code = 0 if job.ended.exception() is not None else job.ended.result()
        if code == TOO_BIG:
            return "disk"
        return "memory" if code == KILLED and self._cell.ran_out_of_memory() else ""

    def _exit_code(self, job: Job, killed_by: str) -> int:
        if killed_by and job.ended.exception() is not None:  # The sandbox had to go down with it.
            return KILLED
        return job.ended.result()

    def _shower(self, name: str) -> Callable[[bytes], Awaitable[None] | None]:
        kept = self._kept[name]

        def show(chunk: bytes) -> Awaitable[None] | None:
            kept.add(chunk)
            if sum(stream.total for stream in self._kept.values()) > self._output_limit:
                self.stop("output")
                for pump in self._pumps:
                    pump.pause()
            shown = self._on_output(name, chunk) if self._on_output is not None else None
            return None if shown is None else self._hand_on(shown)

        return show

    async def _hand_on(self, shown: Awaitable[None]) -> None:
        try:
            await shown
        except BaseException:  # `finish` raises it again; until then nobody would read on.
            self.stop("cancel")
            raise


class Background:
    """A command that goes on by itself. Its output is kept as far as `Rolling` reaches back."""

    def __init__(self, cell: Cell, job: Job, *, pump: Pump, printed: Rolling, stdin: int) -> None:
        self.pid = job.id
        self._cell, self._job, self._pump, self._printed, self._stdin = cell, job, pump, printed, stdin
        self._closing = asyncio.ensure_future(self._close_at_end())

    @classmethod
    async def start(cls, cell: Cell, spec: Spec, *, owner: int) -> "Background":
        printed = Rolling()
        with starting(), contextlib.ExitStack() as always, contextlib.ExitStack() as undo:
            stdin, ours = os.pipe2(os.O_CLOEXEC)
            always.callback(os.close, stdin)
            undo.callback(os.close, ours)
            os.set_blocking(ours, False)
            pump = Pump(_paced(printed), owner=owner)
            undo.callback(pump.close)
            job = await cell.run(spec, stdin=stdin, stdout=pump.write_fd, stderr=pump.write_fd)
            pump.started()
            undo.pop_all()
        return cls(cell, job, pump=pump, printed=printed, stdin=ours)

    @property
    def exit_code(self) -> int | None:
        if not self._job.ended.done():
            return None
        return KILLED if self._job.ended.exception() else self._job.ended.result()

    async def output(self, *, after: int = 0) -> tuple[bytes, int]:
        return self._printed.after(after)

    async def write(self, chunk: bytes) -> None:
        """Sends to its standard input. Raises: SandboxError if it does not read."""
        try:
            view = memoryview(chunk)
            async with asyncio.timeout(5):
                while view:
                    try:
                        view = view[os.write(self._stdin, view) :]
                    except BlockingIOError:
                        await _writable(self._stdin)
        except (OSError, TimeoutError) as error:
            raise SandboxError(f"process {self.pid} does not read its input: {error}") from error

    async def wait(self, *, timeout_s: float) -> int | None:
        await asyncio.wait([self._closing], timeout=timeout_s)
        return self.exit_code

    async def kill(self) -> None:
        await self._cell.kill(self._job)
        await asyncio.wait([self._closing])

    def stop(self) -> None:
        """Begins to kill it."""
        self._stopping = asyncio.ensure_future(self._cell.kill(self._job))

    def when_ended(self, call: Callable[[], None]) -> None:
        """Has `call` called once nothing of it runs any more."""
        self._closing.add_done_callback(lambda _: call())

    async def _close_at_end(self) -> None:
        with contextlib.suppress(SandboxError):
            await asyncio.shield(self._job.ended)
        await self._pump.finish()
        self._pump.close()
        os.close(self._stdin)
        self._stdin = -1


def _paced(printed: Rolling) -> Callable[[bytes], Awaitable[None] | None]:
    """Takes what a background command prints, which no limit ends: a flood would cost the worker a whole core."""
    left = BURST_BYTES

    def take(chunk: bytes) -> Awaitable[None] | None:
        nonlocal left
        printed.add(chunk)
        left -= len(chunk)
        if left > 0:
            return None
        left = BURST_BYTES
        return asyncio.sleep(BURST_S)

    return take


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)
