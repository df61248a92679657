"""The protocol every sandbox provider fulfils: commands and files of one thread's workspace.

Paths are POSIX, relative to the workspace root unless they start with the sandbox's own `workdir`
(`/workspace`). A path that leaves the workspace is refused with `SandboxError`-free `ToolError(kind=
"outside_workspace")`. Text is never decoded here: bytes in, bytes out.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

from workflow.core.ids import ThreadId
from workflow.core.ports import OnOutput

WORKDIR = "/workspace"
FLEETING = "fleeting"
"""The label of a snapshot that is wanted for a moment only; a few of them are kept beside the lasting ones."""


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """What a sandbox is and what it does not promise."""

    provider: str
    """`local`, `e2b`, `daytona`, `memory`."""
    tier: str
    """`T0` remote microVM, `T1`, `T1b`, `T2`, `unsafe_host`, `memory`."""
    network: str
    """`off`, `allowlist`, `open`."""
    gaps: tuple[str, ...] = ()
    sandbox_id: str = ""
    workdir: str = WORKDIR

    @property
    def label(self) -> str:
        """E.g. `local/T1`."""
        return f"{self.provider}/{self.tier}"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. A non-zero status is a result, not an error."""

    exit_code: int
    """0..255; 128+n when killed by signal n; 124 when `timed_out`."""
    stdout: bytes
    """At most `max_output` bytes of head and tail; the middle is dropped and counted."""
    stderr: bytes
    timed_out: bool = False
    killed_by: str = ""
    """`timeout`, `cancel`, `memory`, `output`, `disk`, `processes`, or empty."""
    dropped_bytes: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FileStat:
    path: str
    """Relative to the workspace root."""
    kind: Literal["file", "dir", "symlink", "other"]
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FileDifference:
    """What is not the same in two snapshots. `mtime_ns` is 0: snapshots keep no times."""

    path: str
    old: FileStat | None
    """None: it was not there."""
    new: FileStat | None


@dataclass(frozen=True, slots=True)
class Address:
    """Where the worker's door reaches a port of a sandbox."""

    host: str
    """Or `unix:<path>`."""
    port: int
    """443: by TLS."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What every HTTP request must bring along; secret."""
    inner: str = ""
    """The server's own origin, if the vendor names it so to the server; empty: it is addressed as from outside."""


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """What a sandbox uses now; -1 where the provider cannot tell."""

    memory_bytes: int = -1
    disk_bytes: int = -1
    processes: int = -1


class BackgroundProcess(Protocol):
    """A command that goes on after the call that started it; dies with its sandbox."""

    pid: int
    """The provider's handle, unique within the sandbox."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        ...

    async def output(self, *, after: int = 0) -> tuple[bytes, int]:
        """What it printed (stdout and stderr as they came) after byte `after`, and the next `after`."""
        ...

    async def write(self, chunk: bytes) -> None: ...
    async def wait(self, *, timeout_s: float) -> int | None: ...
    async def kill(self) -> None: ...


class Sandbox(Protocol):
    """One live sandbox. Every method may raise SandboxError; ToolError is for the agent's own mistakes."""

    info: SandboxInfo

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
        """Runs `command` (a list as it is, a string by `bash --noprofile --norc`) to its end.

        Returns when the command itself ends, even while a child of it holds the output open; whatever it left
        behind is killed within 1 s. Cancelling this call kills the command's whole process tree first.
        """
        ...

    async def start(self, command: str, *, cwd: str = ".", env: Mapping[str, str] | None = None) -> BackgroundProcess:
        """Starts `command` in the background; it lives until it ends, is killed, or the sandbox closes."""
        ...

    async def process(self, pid: int) -> BackgroundProcess:
        """A background process started before. Raises: ToolError(kind="no_such_process")."""
        ...

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """A regular file's bytes. Raises: ToolError with kind `file_missing`, `is_directory`,
        `not_regular`, `outside_workspace`."""
        ...

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        """Replaces a file atomically (temporary file, fsync, rename), making parent folders.

        A symlink that stays inside is followed and kept. `mode` None keeps the old mode, or 0o644.
        """
        ...

    async def list(self, path: str = ".", *, depth: int = 1, limit: int = 10_000) -> list[FileStat]:
        """What is below `path`, sorted by path; symlinks are not followed."""
        ...

    async def stat(self, path: str) -> FileStat | None:
        """None when there is nothing. The last symlink is not followed."""
        ...

    async def make_dir(self, path: str) -> None: ...
    async def move(self, source: str, target: str) -> None: ...
    async def remove(self, path: str) -> None:
        """Removes a file or a whole folder; nothing there is no error."""
        ...

    def watch(self, path: str = ".") -> AsyncIterator[FileStat]:
        """Yields each file below `path` that was created or changed, or (size -1) removed."""
        ...

    async def upload(self, archive: bytes, path: str = ".") -> int:
        """Unpacks a tar archive inside the sandbox; the number of files. Nothing escapes `path`."""
        ...

    async def download(self, path: str = ".") -> bytes:
        """A tar archive of what is below `path`."""
        ...

    async def address(self, port: int) -> Address:
        """Where `port` of this sandbox is reached. Wakes it.

        Raises: ToolError `held_elsewhere` when only another worker can open it.
        """
        ...

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """While inside, the sandbox is not put away for being idle."""
        ...

    async def snapshot(self, label: str) -> str:
        """An id of the workspace as it is now; cheap, shares unchanged content with earlier ones."""
        ...

    async def restore(self, snapshot_id: str) -> None:
        """Makes the workspace what it was. This and all that follows raises: ToolError(kind="no_such_snapshot")."""
        ...

    async def list_at(
        self, snapshot_id: str, path: str = ".", *, depth: int = 1, limit: int = 10_000
    ) -> Sequence[FileStat]:
        """What was below `path`, as `list` tells it, without times."""
        ...

    async def read_at(self, snapshot_id: str, path: str) -> bytes:
        """A regular file's bytes as they were. Raises: ToolError as `read`."""
        ...

    async def compare(self, old_id: str, new_id: str) -> Sequence[FileDifference]:
        """What differs between two snapshots, sorted by path."""
        ...

    async def usage(self) -> SandboxUsage: ...
    async def close(self) -> None:
        """Kills everything inside; the workspace stays."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """One canary attack of the start-up check."""

    name: str
    held: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TierReport:
    """What a provider can promise on this machine."""

    provider: str
    tier: str
    """`T3` when nothing holds."""
    probes: tuple[Probe, ...] = ()
    gaps: tuple[str, ...] = ()
    advice: tuple[str, ...] = field(default=())
    """What to install or change for a better tier."""

    @property
    def label(self) -> str:
        """E.g. `local/T1`."""
        return f"{self.provider}/{self.tier}"


class SandboxProvider(Protocol):
    """Makes sandboxes; one per worker process."""

    name: str

    @property
    def live(self) -> int:
        """How many sandboxes are up now."""
        ...

    async def check(self) -> TierReport:
        """Runs the canary attacks once and remembers the strongest tier that held."""
        ...

    async def open(self, thread_id: ThreadId) -> Sandbox:
        """The thread's sandbox, created or reconnected. Raises: SandboxRefused when no tier holds."""
        ...

    async def stop(self, thread_id: ThreadId) -> None:
        """Kills what this worker runs for the thread, if anything; makes nothing, and the workspace stays."""
        ...

    async def fork(self, source: ThreadId, snapshot_id: str, target: ThreadId) -> str:
        """Makes the workspace of `target` what that of `source` was; a snapshot of it there.

        Raises: ToolError(kind="no_such_snapshot").
        """
        ...

    async def remove(self, thread_id: ThreadId) -> None:
        """Deletes the thread's sandbox and workspace for good."""
        ...

    async def yield_place(self, thread_ids: Collection[ThreadId]) -> None:
        """Another worker needs one of the places that these threads' sandboxes take: puts an idle one away, if any."""
        ...

    async def sweep(self) -> int:
        """Closes sandboxes that are idle or whose thread is gone; how many."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
