"""One thread's workspace on this machine, and the live sandbox its commands run in."""

import asyncio
import contextlib
import os
import resource
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from workflow.core.config import SandboxSettings
from workflow.core.errors import DialtoneError, SandboxError, ToolError
from workflow.core.ports import OnOutput
from workflow.sandboxes.archive import most_packed
from workflow.sandboxes.base import (
    Address,
    BackgroundProcess,
    ExecResult,
    FileDifference,
    FileStat,
    SandboxInfo,
    SandboxUsage,
)
from workflow.sandboxes.cell import Cell, Spec
from workflow.sandboxes.commands import Background, Foreground, starting
from workflow.sandboxes.disk import Amount, DiskMeter, measure
from workflow.sandboxes.guard import Guard, usage
from workflow.sandboxes.held import deleted_files
from workflow.sandboxes.lock import is_used
from workflow.sandboxes.packing import packed, unpack
from workflow.sandboxes.paths import is_encodable, relative
from workflow.sandboxes.ports import Ports
from workflow.sandboxes.snapshots import Snapshots
from workflow.sandboxes.tiers import Place
from workflow.sandboxes.tree import Tree
from workflow.sandboxes.watching import changes

T = TypeVar("T")
AT_ONCE_BYTES = 16_384
"""So much of a file is read without a thread, which would take ten times as long."""
Command = str | list[str]
SNAPSHOTS = 4
"""All snapshots together may take this many times what the workspace may."""
AT_START_SHARE = 1000
"""See DiskMeter.may_be_over: a command waits for the scan, and its guard repeats that more often once it runs."""
MAX_PORT = 65_535
Enter = Callable[[], Awaitable[Cell]]
"""Gives a live cell of this thread, started when there was none."""


class LocalSandbox:
    """Made by LocalProvider. The processes may be reclaimed while nobody uses them; the next command starts them."""

    def __init__(
        self,
        info: SandboxInfo,
        place: Place,
        settings: SandboxSettings,
        *,
        environment: dict[str, str],
        admit: Callable[[], Awaitable[None]],
        enter: Enter,
    ) -> None:
        """admit: returns when `enter` may be called; may take long and be cancelled."""
        self.info = info
        self.place = place
        self.used_at = monotonic()
        """When it was last asked for something, by the monotonic clock."""
        self._settings = settings
        self._environment = environment
        self._admit, self._enter = admit, enter
        self._admitting = asyncio.Lock()
        self._starting: asyncio.Future[Cell] | None = None
        self._tree = Tree(place.workspace, owner=place.uid, workdir=info.workdir)
        self.snapshots = Snapshots(place.state / "snapshots", self._tree, max_bytes=SNAPSHOTS * settings.disk_bytes)
        """Blocking: comparing and reading of snapshots; call it from a thread."""
        self._ports = Ports(place.state, self._visited_cell)
        self._has_sockets = info.tier != "T2"
        self._visitors = 0
        self._foreground: set[Foreground] = set()
        self._background: dict[int, Background] = {}
        self._roots = _roots(self._tree.root_fd, place)
        # A handle that nobody holds any more gives its descriptors back; nothing else of it needs an end.
        weakref.finalize(self, _close, self._roots)
        self._disk = DiskMeter(
            self._roots, max_bytes=settings.disk_bytes, max_files=settings.files, held=self._deleted_files
        )
        self._guard = Guard(settings, self._disk, stop=self._stop_commands)

    async def exec(
        self,
        command: str | list[str],
        *,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float = 120.0,
        max_output: int = 1_000_000,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        spec = await self._spec(command, cwd, env)
        cell = await self.cell()
        run = Foreground(cell, max_output=max_output, output_limit=self._settings.output_bytes, on_output=on_output)
        with starting():
            source = _stdin(stdin)
        self._foreground.add(run)
        self._guard.begin(cell)
        try:
            return await run.run(spec, stdin=source, owner=self.place.uid, timeout_s=timeout_s)
        finally:
            os.close(source)
            self._guard.end()
            self._foreground.discard(run)
            self.used_at = monotonic()

    async def start(self, command: str, *, cwd: str = ".", env: Mapping[str, str] | None = None) -> BackgroundProcess:
        spec = await self._spec(command, cwd, env)
        cell = await self.cell()
        process = await Background.start(cell, spec, owner=self.place.uid)
        self._background[process.pid] = process
        self._guard.begin(cell)
        process.when_ended(self._guard.end)
        return process

    async def process(self, pid: int) -> BackgroundProcess:
        if pid not in self._background:
            raise ToolError(f"no background process {pid}", kind="no_such_process")
        return self._background[pid]

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        if limit is not None and limit <= AT_ONCE_BYTES:
            return self._tree.read(path, offset=offset, limit=limit)
        return await self._in_thread(lambda: self._tree.read(path, offset=offset, limit=limit))

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        await self._refuse_if_full()
        await self._in_thread(lambda: self._tree.write(path, content, mode=mode))

    async def list(self, path: str = ".", *, depth: int = 1, limit: int = 10_000) -> list[FileStat]:
        return await self._in_thread(lambda: self._tree.list(path, depth=depth, limit=limit))

    async def stat(self, path: str) -> FileStat | None:
        return await self._in_thread(lambda: self._tree.stat(path))

    async def make_dir(self, path: str) -> None:
        await self._in_thread(lambda: self._tree.make_dir(path))

    async def move(self, source: str, target: str) -> None:
        await self._in_thread(lambda: self._tree.move(source, target))

    async def remove(self, path: str) -> None:
        await self._in_thread(lambda: self._tree.remove(path))

    def watch(self, path: str = ".") -> AsyncIterator[FileStat]:
        async def scan() -> list[FileStat]:
            try:
                return await self.list(path, depth=100, limit=self._settings.files)
            except ToolError as error:
                if error.kind in ("file_missing", "not_a_directory"):
                    return []
                raise

        return changes(scan)

    async def upload(self, archive: bytes, path: str = ".") -> int:
        await self._refuse_if_full()
        return await self._in_thread(lambda: unpack(self._tree, archive, path, max_bytes=self._settings.disk_bytes))

    async def download(self, path: str = ".") -> bytes:
        most = most_packed(self._settings.disk_bytes)
        return await self._in_thread(lambda: packed(self._tree, path, workdir=self.info.workdir, max_bytes=most))

    async def address(self, port: int) -> Address:
        if not self._has_sockets:
            raise ToolError(f"commands in tier {self.info.tier} have no ports", kind="port_closed", port=port)
        if not 1 <= port <= MAX_PORT:
            raise ToolError(f"{port} is not a port", kind="port_closed", port=port)
        elsewhere = self._ports.path(port)
        if self._is_held_elsewhere():
            # Another worker runs the thread's sandbox; it alone can open a port in it.
            if not elsewhere.exists() or self._ports.is_ours(port):
                raise ToolError(f"port {port} was not exposed by the running sandbox", kind="held_elsewhere", port=port)
            return Address(f"unix:{elsewhere}", port)
        return Address(f"unix:{await self._ports.expose(port)}", port)

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        self._visitors += 1
        try:
            yield
        finally:
            self._visitors -= 1
            self.used_at = monotonic()

    async def snapshot(self, label: str) -> str:
        return (await self._in_history(lambda: self.snapshots.take(label))).id

    async def restore(self, snapshot_id: str) -> None:
        await self._in_history(lambda: self.snapshots.restore(snapshot_id))

    async def list_at(
        self, snapshot_id: str, path: str = ".", *, depth: int = 1, limit: int = 10_000
    ) -> Sequence[FileStat]:
        place = relative(path, workdir=self.info.workdir)
        return await self._in_history(lambda: self.snapshots.entries(snapshot_id, place, depth=depth, limit=limit))

    async def read_at(self, snapshot_id: str, path: str) -> bytes:
        place = relative(path, workdir=self.info.workdir)
        return await self._in_history(lambda: self.snapshots.read(snapshot_id, place))

    async def compare(self, old_id: str, new_id: str) -> Sequence[FileDifference]:
        def differ() -> Sequence[FileDifference]:
            return [change.difference for change in self.snapshots.diff(old_id, new_id)]

        return await self._in_history(differ)

    async def adopt(self, other: "LocalSandbox", snapshot_id: str) -> str:
        """Makes the workspace what another one was; a snapshot of it here."""
        return (await self._in_history(lambda: self.snapshots.adopt(other.snapshots, snapshot_id))).id

    async def disk_bytes(self) -> int:
        """What workspace and home folder take."""
        return (await self._measured(lambda: measure(self._roots))).bytes

    async def usage(self) -> SandboxUsage:
        disk_bytes = await self.disk_bytes()
        if self._cell is None or not self._cell.is_alive:
            return SandboxUsage(memory_bytes=0, disk_bytes=disk_bytes, processes=0)
        group, init_pid = self._cell.group, self._cell.init_pid
        if group is not None:
            return SandboxUsage(group.memory_bytes(), disk_bytes, group.processes())
        memory_bytes, processes = await self._measured(lambda: usage(init_pid))
        return SandboxUsage(memory_bytes, disk_bytes, processes)

    async def dispose(self) -> None:
        """Closes everything for good; the workspace stays."""
        await self._ports.close()
        await self.close()
        _turn_away(self._roots)

    async def close(self) -> None:
        """Kills everything inside; the workspace stays."""
        starting, self._starting = self._starting, None
        if starting is not None:
            with contextlib.suppress(DialtoneError):
                await (await starting).stop()
        self._background.clear()

    @property
    def is_current(self) -> bool:
        """False when the workspace was removed or put away behind this handle's back, by another worker."""
        try:
            return os.path.samestat(self.place.workspace.stat(), os.fstat(self._tree.root_fd))
        except FileNotFoundError:
            return False

    @property
    def is_live(self) -> bool:
        return self._cell is not None and self._cell.is_alive

    @property
    def runs_commands(self) -> bool:
        return bool(self._foreground) or self._visitors > 0 or self._ports.is_used

    @property
    def has_background(self) -> bool:
        return any(process.exit_code is None for process in self._background.values())

    async def cell(self) -> Cell:
        """The live cell, started when there is none. Raises: SandboxError, LimitExceeded."""
        self.used_at = monotonic()
        starting = self._starting
        if starting is None or self._is_over:
            async with self._admitting:
                starting = self._starting
                if starting is None or self._is_over:
                    await self._admit()
                    self._background.clear()
                    starting = self._starting = asyncio.ensure_future(self._enter())
        # A caller who is cancelled leaves the start to the next one; half of one would leave processes behind.
        return await asyncio.shield(starting)

    @property
    def _is_over(self) -> bool:
        """True if no cell is live or about to be."""
        return self._starting_is_over and not self.is_live

    async def _visited_cell(self) -> Cell:
        """The cell for somebody from outside, who must not end the one in which another worker runs commands."""
        if self._is_held_elsewhere():
            raise SandboxError("another worker runs this sandbox")
        return await self.cell()

    def _is_held_elsewhere(self) -> bool:
        return not self.is_live and self._starting_is_over and is_used(self.place.state / "lock")

    @property
    def _starting_is_over(self) -> bool:
        return self._starting is None or self._starting.done()

    @property
    def _cell(self) -> Cell | None:
        """The cell that was started last, dead or alive; None while there is none."""
        started = self._starting
        if started is None or not started.done() or started.cancelled() or started.exception() is not None:
            return None
        return started.result()

    def _deleted_files(self) -> Amount:
        return deleted_files(self._cell.init_pid, self._roots) if self._cell is not None and self.is_live else Amount()

    def _stop_commands(self, reason: str) -> None:
        for run in self._foreground:
            run.stop(reason)
        for process in self._background.values():
            process.stop()

    async def _spec(self, command: Command, cwd: str, env: Mapping[str, str] | None) -> Spec:
        if not command:
            raise ToolError("an empty command", kind="bad_command")
        if not all(map(is_encodable, [command] if isinstance(command, str) else command)):
            raise ToolError("a command cannot hold half of a surrogate pair", kind="bad_command")
        place = relative(cwd, workdir=self.info.workdir)
        if not self._tree.is_folder(place):  # One system call; a thread would take ten times as long.
            raise ToolError(f"{cwd} is not a folder", kind="not_a_directory", path=cwd)
        inside = self.info.workdir if place == "." else f"{self.info.workdir}/{place}"
        # In a full workspace a command may still delete, but no file grows; short ones would escape the guard.
        limits = {resource.RLIMIT_FSIZE: 0} if await self._is_full() else {}
        return Spec(command, {**self._environment, **(env or {})}, inside, limits)

    async def _is_full(self) -> bool:
        if self._disk.is_full or self._disk.may_be_over(share=AT_START_SHARE):
            await self._measured(self._disk.is_over, is_quick=self._disk.is_quick)
        return self._disk.is_full

    async def _refuse_if_full(self) -> None:
        if await self._is_full():
            raise ToolError("the workspace is full: delete something first", kind="disk_full")

    async def _measured(self, work: Callable[[], T], *, is_quick: bool = False) -> T:
        """is_quick: so much so that a thread would cost more."""
        try:
            return work() if is_quick else await asyncio.to_thread(work)
        except OSError as error:  # E.g. the worker has no descriptors left.
            raise SandboxError(f"the sandbox cannot be measured: {error}") from error

    async def _in_history(self, work: Callable[[], T]) -> T:
        """As `_in_thread`, for snapshots, which lie on the worker's own disk. Raises: SandboxError when that fails."""
        try:
            return await self._in_thread(work)
        except (OSError, ValueError, EOFError) as error:
            raise SandboxError(f"the snapshots of this workspace cannot be used: {error}") from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self.used_at = monotonic()
        return await asyncio.to_thread(work)


def _roots(workspace: int, place: Place) -> tuple[int, ...]:
    """The folders that count against the disk limit, opened; the workspace is closed if the others cannot be."""
    with contextlib.ExitStack() as undo:
        roots = [workspace]
        undo.callback(os.close, workspace)
        for name in ("home", "tmp"):
            roots.append(os.open(place.state / name, os.O_PATH | os.O_DIRECTORY))
            undo.callback(os.close, roots[-1])
        undo.pop_all()
    return tuple(roots)


def _turn_away(fds: tuple[int, ...]) -> None:
    """Lets who still works with these descriptors find nothing; once closed, a number may be the next thread's."""
    nowhere = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    try:
        for fd in fds:
            os.dup2(nowhere, fd, inheritable=False)
    finally:
        os.close(nowhere)


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _stdin(content: bytes) -> int:
    """A descriptor that gives `content` and then the end; `/dev/null` for nothing, so that `rg` does not read it."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
