"""What the gateway answers, besides the records that every part of Dialtone shares."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dialtone.items import AnyEvent
from workflow.core.ids import RunId, ThreadId
from workflow.core.records import Budgets, BusyPolicy, ModelChoice, RunRecord, ThreadRecord

__all__ = [
    "Accepted",
    "Budgets",
    "BusyPolicy",
    "DiffPage",
    "EventPage",
    "FileDiff",
    "FileStat",
    "ModelChoice",
    "Preview",
    "Restored",
    "RunPage",
    "RunRecord",
    "ThreadPage",
    "ThreadRecord",
]


class Result(BaseModel):
    """A newer gateway may say more than this client knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Accepted(Result):
    """A run was accepted, now or by an earlier request with the same key."""

    run_id: RunId
    thread_id: ThreadId
    status: str = "queued"
    position: int | None = None
    stream_url: str = ""


ArchiveFormat = Literal["tar", "zip"]


class FileStat(Result):
    """One entry of a thread's workspace. `path` is relative to its root."""

    path: str
    kind: Literal["file", "dir", "symlink", "other"] = "file"
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0


class FileList(Result):
    items: tuple[FileStat, ...] = ()


class FileDiff(Result):
    """One file that is not the same at two events."""

    path: str
    change: Literal["added", "removed", "modified"]
    old: FileStat | None = None
    new: FileStat | None = None
    diff: str = ""
    binary: bool = False
    too_large: bool = False


class DiffPage(Result):
    """Changed files, sorted by path. `next_cursor` is None on the last page."""

    items: tuple[FileDiff, ...] = ()
    total: int = 0
    next_cursor: str | None = None


class Restored(Result):
    """The events that a restore has put into the log; restoring to `before` undoes it."""

    before: str
    restored: str


class Preview(Result):
    """A link to a server in a thread's sandbox; whoever has its `url` can visit. Times are milliseconds since 1970."""

    id: str
    port: int
    url: str
    run_id: RunId
    created_at: int = 0
    expires_at: int = 0


class PreviewList(Result):
    items: tuple[Preview, ...] = ()


class ThreadPage(Result):
    """Threads, newest first. `next_cursor` is None on the last page."""

    items: tuple[ThreadRecord, ...] = ()
    next_cursor: str | None = None


class RunPage(Result):
    """Runs, newest first."""

    items: tuple[RunRecord, ...] = ()
    next_cursor: str | None = None


class EventPage(Result):
    """Events, oldest first. `raw` are the envelopes as they came."""

    items: tuple[AnyEvent, ...] = ()
    raw: tuple[dict[str, Any], ...] = ()
    next_after: str | None = None
