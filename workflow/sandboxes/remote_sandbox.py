"""One thread's sandbox at a vendor: the Sandbox protocol over a machine that can run a shell command."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from workflow.core.config import SandboxSettings
from workflow.core.errors import ToolError
from workflow.core.ports import OnOutput
from workflow.sandboxes.archive import members, most_packed, pack
from workflow.sandboxes.base import (
    Address,
    BackgroundProcess,
    ExecResult,
    FileDifference,
    FileStat,
    SandboxInfo,
    SandboxUsage,
)
from workflow.sandboxes.machines import Asleep
from workflow.sandboxes.paths import relative
from workflow.sandboxes.remote_answers import ELSEWHERE, ENDED, IDLE, NOTHING, NUMBER, PAIRS, ROW, ROWS, SNAPSHOT, USAGE
from workflow.sandboxes.remote_commands import Foreground, RemoteProcess, payload
from workflow.sandboxes.remote_line import Line
from workflow.sandboxes.remote_watch import changes
from workflow.sandboxes.tree import MAX_READ

FORGET_S = 3600.0
TOUCH_S = 60.0
BUSY_FACTOR = 12
"""A sandbox with background processes is kept this many times longer than an idle one."""


class RemoteSandbox:
    """Made by RemoteProvider. Its machine is found, woken or made when something is first asked of it."""

    def __init__(
        self, info: SandboxInfo, settings: SandboxSettings, line: Line, *, admit: Callable[[], Awaitable[None]]
    ) -> None:
        """admit: raises when no command may start now. Files are always in reach, so that some can be deleted."""
        self._admit = admit
        self.line = line
        self.info = info
        self._settings = settings
        self._has_background = False
        self._visitors = 0
        self._touched_at = -TOUCH_S
        """When a visitor of a port last made sure that the machine is awake."""
        self._finished: list[str] = []
        """Commands whose end was seen; the next call clears them away in there."""

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
        place, limit = self._relative(cwd), self._settings.output_bytes
        job = payload(command, env=env, stdin=stdin, timeout_s=timeout_s, limit=limit)
        await self._admit()
        run = Foreground(self.line, max_output=max_output, limit=limit, on_output=on_output)
        forget = list(self._finished)
        async with self.line.in_use():
            result = await run.run(job, cwd=place, timeout_s=timeout_s, forget=forget)
        self._finished = [*(key for key in self._finished if key not in forget), run.key]
        return result

    async def start(self, command: str, *, cwd: str = ".", env: Mapping[str, str] | None = None) -> BackgroundProcess:
        job = payload(command, env=env, stdin=b"", timeout_s=0, limit=0)
        key, place = secrets.token_hex(8), self._relative(cwd)
        await self._admit()
        pid = await self.line.ask("start", NUMBER, payload=job, key=key, cwd=place)
        self._has_background = True
        return RemoteProcess(self.line, pid)

    async def process(self, pid: int) -> BackgroundProcess:
        ended = await self.line.ask("wait", ENDED, name=str(pid), timeout_s=0)
        return RemoteProcess(self.line, pid, ended)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        return await self._bytes("read", path=self._relative(path), offset=offset, limit=limit)

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        await self.line.ask("write", NOTHING, payload=content, path=self._relative(path), mode=mode)

    async def list(self, path: str = ".", *, depth: int = 1, limit: int = 10_000) -> list[FileStat]:
        rows = await self.line.ask("list", ROWS, path=self._relative(path), depth=depth, limit=limit)
        return [FileStat(*row) for row in rows]

    async def stat(self, path: str) -> FileStat | None:
        row = await self.line.ask("stat", ROW, path=self._relative(path))
        return None if row is None else FileStat(*row)

    async def make_dir(self, path: str) -> None:
        await self.line.ask("make_dir", NOTHING, path=self._relative(path))

    async def move(self, source: str, target: str) -> None:
        await self.line.ask("move", NOTHING, source=self._relative(source), target=self._relative(target))

    async def remove(self, path: str) -> None:
        await self.line.ask("remove", NOTHING, path=self._relative(path))

    def watch(self, path: str = ".") -> AsyncIterator[FileStat]:
        return changes(self.line, self._relative(path), limit=self._settings.files)

    async def upload(self, archive: bytes, path: str = ".") -> int:
        # What goes in is checked here; the program inside then gets an archive of ours.
        checked = await asyncio.to_thread(lambda: pack(members(archive)))
        return await self.line.ask("unpack", NUMBER, payload=checked, path=self._relative(path))

    async def download(self, path: str = ".") -> bytes:
        most = self._most_packed
        return await self._bytes("pack", max_bytes=most, path=self._relative(path), most=most)

    async def address(self, port: int) -> Address:
        if not 1 <= port <= 65_535:
            raise ToolError(f"{port} is not a port", kind="port_closed", port=port)
        async with self.line.in_use():
            if monotonic() - self._touched_at > min(TOUCH_S, self._settings.idle_s / 3):
                # An address may be had without the machine: this wakes it, and tells other workers that it is used.
                await self.line.ask("stat", ROW, path=".")
                self._touched_at = monotonic()
            return await self.line.attempt(lambda machine: machine.address(port))

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        self._visitors += 1
        try:
            async with self.line.in_use():
                yield
        finally:
            self._visitors -= 1

    async def snapshot(self, label: str) -> str:
        return await self.line.ask("snapshot", SNAPSHOT, label=label)

    async def restore(self, snapshot_id: str) -> None:
        await self.line.ask("restore", NOTHING, snapshot=snapshot_id)

    async def list_at(
        self, snapshot_id: str, path: str = ".", *, depth: int = 1, limit: int = 10_000
    ) -> Sequence[FileStat]:
        place = self._relative(path)
        rows = await self.line.ask("list_at", ROWS, snapshot=snapshot_id, path=place, depth=depth, limit=limit)
        return [FileStat(*row) for row in rows]

    async def read_at(self, snapshot_id: str, path: str) -> bytes:
        return await self._bytes("read_at", snapshot=snapshot_id, path=self._relative(path))

    async def compare(self, old_id: str, new_id: str) -> Sequence[FileDifference]:
        rows = await self.line.ask("compare", PAIRS, old=old_id, new=new_id)
        return [FileDifference(path, *(row and FileStat(*row) for row in both)) for path, *both in rows]

    async def pack_at(self, snapshot_id: str) -> bytes:
        """A tar archive of a whole snapshot."""
        most = self._most_packed
        return await self._bytes("pack_at", max_bytes=most, snapshot=snapshot_id, most=most)

    async def disk_bytes(self) -> int:
        """What the workspace takes; asking is no use of the sandbox. Raises: SandboxError, Asleep."""
        return (await self.line.peek("usage", USAGE)).disk

    async def usage(self) -> SandboxUsage:
        used = await self.line.ask("usage", USAGE)
        return SandboxUsage(memory_bytes=used.memory, disk_bytes=used.disk, processes=used.processes)

    async def close(self) -> None:
        """Kills what this worker runs inside. The machine is left alone: another worker may have the thread by now."""
        with contextlib.suppress(Asleep):
            await self.line.peek("kill_all", NUMBER, reason="close")
        self._has_background = False

    @property
    def is_busy(self) -> bool:
        """True while a call is under way or background processes may run."""
        return self.line.users > 0 or self._has_background

    @property
    def is_forgotten(self) -> bool:
        """True if nobody has used it for so long that the provider need not remember it."""
        return self.line.machine is None and not self.line.users and monotonic() - self.line.used_at > FORGET_S

    async def put_away_if_idle(self) -> bool:
        """Pauses the machine if nobody, whichever worker, has used it for long enough; whether it sleeps now."""
        machine, idle_s = self.line.machine, self._settings.idle_s
        if machine is None or self.line.users or monotonic() - self.line.used_at < idle_s:
            if machine is not None and self._visitors:
                await self.line.ask("stat", ROW, path=".")  # in there, other workers see that it is used
            elif machine is not None and (self._has_background or self.line.users):
                await self.line.extend(machine)
            return False
        try:
            found = await self.line.peek("idle", IDLE)
        except Asleep:
            return True
        self._has_background = found.background > 0
        patience_s = idle_s * (BUSY_FACTOR if self._has_background else 1)
        self.line.used_at = monotonic() - found.idle_s
        if found.foreground or found.idle_s < patience_s:
            await self.line.extend(machine)
            return False
        await self.put_away()
        return True

    async def put_away(self) -> None:
        """Pauses the machine; the next call wakes it. Raises: SandboxError, and it puts itself away in time."""
        machine = self.line.machine
        if machine is not None:
            self._touched_at = -TOUCH_S
            self.line.leave(machine)
            with contextlib.suppress(Asleep):
                async with self.line.aside():
                    await machine.pause()

    @property
    def _most_packed(self) -> int:
        return most_packed(self._settings.disk_bytes)

    async def _bytes(self, op: str, *, max_bytes: int = MAX_READ, **args: Any) -> bytes:
        """Content that comes along with the answer, or in a file to be fetched when it is long."""
        content, elsewhere = await self.line.fetch(op, ELSEWHERE, **args)
        if elsewhere is None:
            return content
        try:
            return await self.line.get(elsewhere.at, max_bytes=max_bytes)
        finally:
            if elsewhere.staged:
                await self.line.discard(elsewhere.at)

    def _relative(self, path: str) -> str:
        return relative(path, workdir=self.info.workdir)
