"""A thread's files at earlier events: compare, restore, fork. Reading them is in `files.py`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.bodies import Body, Line, event_query
from gateway.deps import Reader, ServicesDep, ThreadPath, Writer
from gateway.errors import documented
from gateway.routes.files import FileStat
from workflow.core.records import ThreadRecord

router = APIRouter(prefix="/api/agent/{thread_id}", tags=["files"])

EventId = Annotated[
    str, Field(min_length=3, max_length=41, description="id of an event of the thread", examples=["1790000000000-42"])
]


class FileDiff(BaseModel):
    """One file, folder or link that is not the same."""

    path: str = Field(description="relative to the workspace")
    change: Literal["added", "removed", "modified"]
    old: FileStat | None
    new: FileStat | None
    diff: str = Field(description="unified diff of a text file, at most 20,000 characters of head and tail")
    binary: bool = Field(description="one of the two is not UTF-8 text, so there is no diff")
    too_large: bool = Field(description="one of the two is larger than 1 MB, so there is no diff")


class DiffPage(BaseModel):
    """What changed, sorted by path."""

    items: list[FileDiff]
    total: int = Field(description="how many changed altogether")
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


class RestoreBody(Body):
    event: EventId


class Restored(BaseModel):
    """The two events that tell of it."""

    before: str = Field(description="restoring to this event undoes the restore")
    restored: str


class ForkBody(Body):
    event: EventId
    title: Line = Field("", max_length=200, description="empty: that of the thread")


@router.get("/diff", responses=documented(400, 401, 403, 404, 409, 422, 429, 503))
async def diff_files(
    thread_id: ThreadPath,
    caller: Reader,
    held: ServicesDep,
    old: Annotated[str, event_query("id of the earlier event", alias="from")],
    new: Annotated[str, event_query("id of the later event; empty: now", alias="to")] = "",
    limit: Annotated[int, Query(ge=1, le=500, description="at most this many files")] = 100,
    cursor: Annotated[
        str,
        # A path of 4,096 bytes, quoted. Text of other scripts at that length would be more than a URL can hold.
        Query(max_length=12_288, pattern=r"^[A-Za-z0-9_.~/%-]*$", description="`next_cursor` of the page before"),
    ] = "",
) -> DiffPage:
    """How the files differ between two events, or between an event and now."""
    page = await held.versions.diff(caller, thread_id, old=old, new=new, after=cursor, limit=limit)
    items = [FileDiff.model_validate(item) for item in page["items"]]
    return DiffPage(items=items, total=page["total"], next_cursor=page["next"] or None)


@router.post("/restore", responses=documented(400, 401, 403, 404, 409, 413, 422, 429, 503))
async def restore_files(thread_id: ThreadPath, caller: Writer, held: ServicesDep, body: RestoreBody) -> Restored:
    """Makes the files what they were at an event; refused while a run has not ended. The conversation stays."""
    done = await held.versions.restore(caller, thread_id, body.event)
    return Restored(before=done.before_id, restored=done.restored_id)


@router.post("/fork", responses=documented(400, 401, 403, 404, 409, 413, 422, 429, 503))
async def fork_thread(thread_id: ThreadPath, caller: Writer, held: ServicesDep, body: ForkBody) -> ThreadRecord:
    """A new thread with the conversation and the files as they were at an event; this one is left alone."""
    return await held.versions.fork(caller, thread_id, body.event, title=body.title)
