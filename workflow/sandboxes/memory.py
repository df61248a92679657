"""The provider that keeps everything in memory: the twin that tests of tools and agents run on.

Files behave as on the real thing. There is no shell: `exec` knows the few commands of `memory_commands.py` and
those handed to the provider, and refuses anything else with SandboxError rather than guess.
"""

import itertools
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from workflow.core.errors import SandboxError, ToolError
from workflow.core.ids import ThreadId
from workflow.core.ports import OnOutput
from workflow.sandboxes.archive import Member, members, pack
from workflow.sandboxes.base import (
    FLEETING,
    Address,
    BackgroundProcess,
    ExecResult,
    FileDifference,
    FileStat,
    SandboxInfo,
    SandboxUsage,
    TierReport,
)
from workflow.sandboxes.memory_commands import BUILT_IN, Command, MemoryProcess, run
from workflow.sandboxes.memory_files import MemoryFiles
from workflow.sandboxes.watching import changes

GAPS = ("commands do not run: only a few built-in ones are imitated",)


class MemorySandbox:
    """A workspace that is a dictionary. Made by MemoryProvider, or alone for a test of one tool."""

    def __init__(
        self, files: Mapping[str, bytes | str] | None = None, *, commands: Mapping[str, Command] | None = None
    ) -> None:
        self.info = SandboxInfo(provider="memory", tier="memory", network="off", gaps=GAPS)
        self.files = MemoryFiles()
        for path, content in (files or {}).items():
            self.files.write(path, content.encode() if isinstance(content, str) else content)
        self._commands = {**BUILT_IN, **(commands or {})}
        self._processes: dict[int, MemoryProcess] = {}
        self._pids = itertools.count(1)
        self._snapshots: dict[str, MemoryFiles] = {}

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
        """Imitates `command`. Raises: SandboxError if it is not one of the known commands."""
        process = MemoryProcess(next(self._pids), on_output=on_output, max_output=max_output)
        return await run(
            process, self._commands, self.files, command, cwd=cwd, env=env or {}, stdin=stdin, timeout_s=timeout_s
        )

    async def start(self, command: str, *, cwd: str = ".", env: Mapping[str, str] | None = None) -> BackgroundProcess:
        process = MemoryProcess(next(self._pids))
        process.begin(
            run(process, self._commands, self.files, command, cwd=cwd, env=env or {}, stdin=b"", timeout_s=None)
        )
        self._processes[process.pid] = process
        return process

    async def process(self, pid: int) -> BackgroundProcess:
        if pid not in self._processes:
            raise ToolError(f"no background process {pid}", kind="no_such_process")
        return self._processes[pid]

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        content = self.files.read(path)
        return content[offset:] if limit is None else content[offset : offset + limit]

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        self.files.write(path, content, mode=mode)

    async def list(self, path: str = ".", *, depth: int = 1, limit: int = 10_000) -> list[FileStat]:
        return self.files.list(path, depth=depth, limit=limit)

    async def stat(self, path: str) -> FileStat | None:
        return self.files.stat(path)

    async def make_dir(self, path: str) -> None:
        self.files.make_dir(path)

    async def move(self, source: str, target: str) -> None:
        self.files.move(source, target)

    async def remove(self, path: str) -> None:
        self.files.remove(path)

    def watch(self, path: str = ".") -> AsyncIterator[FileStat]:
        async def scan() -> list[FileStat]:
            return self.files.list(path, depth=100) if self.files.stat(path) else []

        return changes(scan, interval_s=0.02)

    async def upload(self, archive: bytes, path: str = ".") -> int:
        count = 0
        for member in members(archive):
            target = f"{path}/{member.path}"
            if member.kind == "dir":
                self.files.make_dir(target)
            elif member.kind == "symlink":
                self.files.link(target, member.target)
            else:
                self.files.write(target, member.content, mode=member.mode)
                count += 1
        return count

    async def download(self, path: str = ".") -> bytes:
        root = self.files.resolve(path)
        prefix = "" if root == "." else f"{root}/"
        return pack(self._member(stat, prefix) for stat in self.files.list(path, depth=100))

    def _member(self, stat: FileStat, prefix: str) -> Member:
        path = stat.path.removeprefix(prefix)
        if stat.kind == "symlink":
            return Member(path, "symlink", target=self.files.target(stat.path))
        if stat.kind == "dir":
            return Member(path, "dir", stat.mode)
        return Member(path, "file", stat.mode, self.files.read(stat.path))

    async def address(self, port: int) -> Address:
        raise SandboxError("the memory sandbox has no ports", port=port)

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        yield

    async def snapshot(self, label: str) -> str:
        known = [name for name in self._snapshots if label == FLEETING or not name.startswith(FLEETING)]
        newest = next(reversed(known), None)
        if newest is not None and self._snapshots[newest].contents() == self.files.contents():
            return newest
        snapshot_id = f"{label}-{len(self._snapshots) + 1}"
        self._snapshots[snapshot_id] = self.files.copy()
        return snapshot_id

    async def restore(self, snapshot_id: str) -> None:
        self.files = self.at(snapshot_id).copy()

    async def list_at(
        self, snapshot_id: str, path: str = ".", *, depth: int = 1, limit: int = 10_000
    ) -> Sequence[FileStat]:
        return [_timeless(stat) for stat in self.at(snapshot_id).list(path, depth=depth, limit=limit)]

    async def read_at(self, snapshot_id: str, path: str) -> bytes:
        return self.at(snapshot_id).read(path)

    async def compare(self, old_id: str, new_id: str) -> Sequence[FileDifference]:
        old, new = (self.at(snapshot_id) for snapshot_id in (old_id, new_id))
        before, after = old.contents(), new.contents()
        return [
            FileDifference(path, _there(old, path), _there(new, path))
            for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)
        ]

    def at(self, snapshot_id: str) -> MemoryFiles:
        """The files of a snapshot. Raises: ToolError `no_such_snapshot`."""
        if snapshot_id not in self._snapshots:
            raise ToolError(f"no snapshot {snapshot_id}", kind="no_such_snapshot")
        return self._snapshots[snapshot_id]

    async def usage(self) -> SandboxUsage:
        running = sum(process.exit_code is None for process in self._processes.values())
        return SandboxUsage(disk_bytes=self.files.total_bytes, processes=running)

    async def close(self) -> None:
        for process in self._processes.values():
            await process.kill()


def _timeless(stat: FileStat) -> FileStat:
    return replace(stat, mtime_ns=0)


def _there(files: MemoryFiles, path: str) -> FileStat | None:
    stat = files.stat(path)
    return None if stat is None else _timeless(stat)


class MemoryProvider:
    """One MemorySandbox per thread, for as long as the process lives."""

    name = "memory"

    def __init__(self, *, commands: Mapping[str, Command] | None = None) -> None:
        self._commands = commands
        self._sandboxes: dict[ThreadId, MemorySandbox] = {}

    async def check(self) -> TierReport:
        return TierReport(provider=self.name, tier="memory", gaps=GAPS)

    async def open(self, thread_id: ThreadId) -> MemorySandbox:
        return self._sandboxes.setdefault(thread_id, MemorySandbox(commands=self._commands))

    async def stop(self, thread_id: ThreadId) -> None:
        if thread_id in self._sandboxes:
            await self._sandboxes[thread_id].close()

    async def fork(self, source: ThreadId, snapshot_id: str, target: ThreadId) -> str:
        theirs, ours = await self.open(source), await self.open(target)
        ours.files = theirs.at(snapshot_id).copy()
        return await ours.snapshot("forked")

    async def remove(self, thread_id: ThreadId) -> None:
        sandbox = self._sandboxes.pop(thread_id, None)
        if sandbox is not None:
            await sandbox.close()

    @property
    def live(self) -> int:
        return len(self._sandboxes)

    async def yield_place(self, thread_ids: Collection[ThreadId]) -> None:
        """Nobody counts its sandboxes."""

    async def sweep(self) -> int:
        return 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in self._sandboxes.values():
            await sandbox.close()
