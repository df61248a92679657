"""Answers file requests from a thread's sandbox."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from modem.files import CHUNK
from modem.tasks.comparison import compared, told
from workflow.core.errors import BadInput, DialtoneError, NotFound, ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes.archive import zipped
from workflow.sandboxes.base import FileStat, Sandbox, SandboxProvider

MAX_DEPTH = 20
MOST_LISTED = 10_000

IsWanted = Callable[[ThreadId], Awaitable[bool]]
Reply = tuple[dict[str, Any], AsyncIterator[bytes]]


async def answer_file_request(
    sandboxes: SandboxProvider, is_wanted: IsWanted, thread_id: ThreadId, request: dict[str, Any], body: bytes
) -> Reply:
    """The header of the reply and its chunks.

    Raises: ToolError, BadInput, SandboxError; NotFound if the thread is deleted, before or meanwhile: then nothing of
    its files stays.
    """
    touched = [thread_id, *([ThreadId(request["target"])] if request["op"] == "fork" else [])]
    if not await is_wanted(thread_id):
        raise NotFound(f"no thread {thread_id}")
    outcome: Reply | DialtoneError | OSError
    try:
        outcome = await _answer(sandboxes, thread_id, request, body)
    except (DialtoneError, OSError) as error:
        outcome = error
    # Only now it is known what the request has put on disk after a deletion.
    deleted = [touched_id for touched_id in touched if not await is_wanted(touched_id)]
    for touched_id in deleted:
        await sandboxes.remove(touched_id)
    if deleted:
        raise NotFound(f"no thread {deleted[0]}")
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _answer(sandboxes: SandboxProvider, thread_id: ThreadId, request: dict[str, Any], body: bytes) -> Reply:
    sandbox = await sandboxes.open(thread_id)
    path, snapshot = str(request.get("path", "")) or ".", str(request.get("snapshot", ""))
    match request["op"]:
        case "list":
            depth = min(int(request["depth"]), MAX_DEPTH)
            reach = {"depth": depth, "limit": MOST_LISTED + 1}
            stats = await (sandbox.list_at(snapshot, path, **reach) if snapshot else sandbox.list(path, **reach))
            items = [told(stat) for stat in stats[:MOST_LISTED]]
            return {"items": items, "truncated": len(stats) > MOST_LISTED}, _chunks(b"")
        case "stat":
            return {"item": told(await _stat(sandbox, path))}, _chunks(b"")
        case "read":
            content = await (sandbox.read_at(snapshot, path) if snapshot else sandbox.read(path))
            return {"size": len(content)}, _chunks(content)
        case "write":
            await sandbox.write(path, body)
            return {"item": told(await _stat(sandbox, path))}, _chunks(b"")
        case "remove":
            await _stat(sandbox, path)
            await sandbox.remove(path)
            return {}, _chunks(b"")
        case "archive":
            content = await sandbox.download(path)
            return {}, _zip_chunks(zipped(content)) if request.get("format") == "zip" else _chunks(content)
        case "diff":
            return await compared(sandbox, request), _chunks(b"")
        case "snapshot":
            return {"snapshot": await sandbox.snapshot(str(request["label"]))}, _chunks(b"")
        case "restore":
            await sandbox.restore(snapshot)
            return {}, _chunks(b"")
        case "fork":
            wanted = snapshot or await sandbox.snapshot("before forking")
            target = ThreadId(request["target"])
            return {"snapshot": await sandboxes.fork(thread_id, wanted, target)}, _chunks(b"")
    raise BadInput(f"unknown file operation {request['op']!r}")


async def _stat(sandbox: Sandbox, path: str) -> FileStat:
    stat = await sandbox.stat(path)
    if stat is None:
        raise ToolError(f"there is no {path} in the workspace", kind="file_missing")
    return stat


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


async def _zip_chunks(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces in chunks; each is compressed beside the loop."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        async for chunk in _chunks(piece):
            yield chunk
