"""The thread's workspace: list, read, write and remove files, and take all of them home."""

import mimetypes
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from gateway.bodies import event_query, is_one_line
from gateway.deps import Reader, ServicesDep, ThreadPath, Writer
from gateway.errors import documented
from modem.files import ArchiveFormat
from modem.moments import NOW
from workflow.core.errors import BadInput

router = APIRouter(prefix="/api/agent/{thread_id}", tags=["files"])

# Files come from agents: a page among them must neither run scripts nor reach our cookies.
_FOREIGN = {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'",
    "Cache-Control": "private, no-store",
}

FilePath = Annotated[str, Path(description="relative to the workspace", max_length=4096)]
Folder = Annotated[str, Query(max_length=4096, description="folder, relative to the workspace")]


def _bytes(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that answers with bytes of one of these media types."""
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}}}


_FILE = _bytes("*/*")
_PACKED = _bytes("application/x-tar", "application/zip")


class FileStat(BaseModel):
    """One entry of a workspace."""

    path: str = Field(description="relative to the workspace")
    kind: Literal["file", "dir", "symlink", "other"]
    size: int
    mode: int
    mtime_ns: int


class FileList(BaseModel):
    items: list[FileStat]
    truncated: bool = Field(False, description="there are more than these 10,000: ask for single folders")
    saved: str = Field("", description="with `at`: the `workspace.saved` event that the answer is taken from")


At = Annotated[str, event_query("id of an event: the files as they were then; empty: now")]


@router.get("/files", responses=documented(400, 401, 403, 404, 409, 422, 429, 503))
async def list_files(
    thread_id: ThreadPath,
    caller: Reader,
    held: ServicesDep,
    path: Folder = ".",
    depth: Annotated[int, Query(ge=1, le=20, description="folders below `path` that are looked into")] = 1,
    at: At = "",
) -> FileList:
    """What the workspace holds, or held at an event (then without times)."""
    moment = await held.versions.at(caller, thread_id, at) if at else NOW
    items, is_cut = await held.files.list(caller, thread_id, _checked(path), depth=depth, snapshot=moment.snapshot)
    return FileList(items=[FileStat.model_validate(item) for item in items], truncated=is_cut, saved=moment.saved_id)


@router.get(
    "/files/{path:path}",
    response_class=Response,
    responses=_FILE | documented(400, 401, 403, 404, 409, 422, 429, 503),
)
async def read_file(
    thread_id: ThreadPath,
    path: FilePath,
    caller: Reader,
    held: ServicesDep,
    download: Annotated[bool, Query(description="as an attachment, for a browser to save")] = False,
    at: At = "",
) -> Response:
    """A file's bytes, as they are or were at an event."""
    moment = await held.versions.at(caller, thread_id, at) if at else NOW
    size, chunks = await held.files.read(caller, thread_id, _checked(path), snapshot=moment.snapshot)
    name = path.rstrip("/").rpartition("/")[2]
    guessed, packing = mimetypes.guess_type(name)
    kind = guessed if guessed and not packing else "application/octet-stream"  # a .tar.gz is no tar
    disposition = f"{'attachment' if download else 'inline'}; filename*=UTF-8''{quote(name)}"
    headers = _FOREIGN | {"Content-Length": str(size), "Content-Disposition": disposition}
    return StreamingResponse(chunks, media_type=kind, headers=headers)


@router.put(
    "/files/{path:path}",
    responses=documented(400, 401, 403, 404, 409, 413, 422, 429, 503),
    openapi_extra={
        "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def write_file(
    thread_id: ThreadPath, path: FilePath, request: Request, caller: Writer, held: ServicesDep
) -> FileStat:
    """Replaces a file by the body, or makes it; missing folders are made."""
    checked = _checked(path)
    await held.threads.get(caller, thread_id)  # before the body is read, which may be long
    content = b"".join([piece async for piece in request.stream()])
    return FileStat.model_validate(await held.files.write(caller, thread_id, checked, content))


@router.delete("/files/{path:path}", status_code=204, responses=documented(400, 401, 403, 404, 409, 422, 429, 503))
async def remove_file(thread_id: ThreadPath, path: FilePath, caller: Writer, held: ServicesDep) -> Response:
    """Removes a file, or a folder with everything in it."""
    await held.files.remove(caller, thread_id, _checked(path))
    return Response(status_code=204)


@router.get("/archive", response_class=Response, responses=_PACKED | documented(400, 401, 403, 404, 409, 422, 429, 503))
async def archive(
    thread_id: ThreadPath,
    caller: Reader,
    held: ServicesDep,
    path: Folder = ".",
    format: Annotated[ArchiveFormat, Query(description="kind of archive")] = "tar",
) -> Response:
    """The workspace, or one folder of it, as one file."""
    chunks: AsyncIterator[bytes] = await held.files.archive(caller, thread_id, _checked(path), format=format)
    disposition = f"attachment; filename=workspace-{thread_id}.{format}"
    kind = "application/zip" if format == "zip" else "application/x-tar"
    return StreamingResponse(chunks, media_type=kind, headers=_FOREIGN | {"Content-Disposition": disposition})


def _checked(path: str) -> str:
    """`path`, if it can be one. Whether it leaves the workspace is the sandbox's to say, which knows the links."""
    if not is_one_line(path):
        raise BadInput("the path holds control characters", field="path")
    return path or "."
