"""Workspace files over Redis: the gateway asks, whichever worker is free answers from the sandbox.

A request is one JSON object on a list; the reply is a list of its own: a header, then chunks, then an empty
chunk. Nothing is kept: an unanswered request ends in Unavailable, and every key expires by itself.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Literal

from modem import keys
from modem.pool import Connections, translated
from modem.threads import Threads
from workflow.core.errors import (
    BadInput,
    Conflict,
    DialtoneError,
    LimitExceeded,
    NotFound,
    TooLarge,
    ToolError,
    Unavailable,
)
from workflow.core.ids import ThreadId
from workflow.core.ports import Quota
from workflow.core.records import Caller

log = logging.getLogger(__name__)

CHUNK = 262_144
WINDOW = 16
"""Chunks that may wait unread; the worker pauses beyond that."""
WAIT_S = 30
"""A worker begins within this or not at all, and is not silent for longer."""
SIGN_S = 5.0
WORKING = {"working": True}
"""What a worker says every `SIGN_S` until it has an answer."""
REPLY_TTL_S = 120
AGAIN_S = 5

ArchiveFormat = Literal["tar", "zip"]
Answer = AsyncIterator[bytes]
Handler = Callable[[ThreadId, dict[str, Any], bytes], Awaitable[tuple[dict[str, Any], Answer]]]
"""Gets thread, request and body; gives the header and the chunks."""

_KINDS: dict[str, type[DialtoneError]] = {
    "not_found": NotFound,
    "file_missing": NotFound,
    "is_directory": Conflict,
    "not_a_directory": Conflict,
    "not_regular": Conflict,
    "outside_workspace": BadInput,
    "bad_path": BadInput,
    "bad_input": BadInput,
    "no_such_snapshot": NotFound,
    "disk_full": Conflict,
    "workspace_damaged": Conflict,
    "too_large": TooLarge,
    "limit_exceeded": LimitExceeded,
    "internal": DialtoneError,
}


class Files:
    """The gateway's side. Raises everywhere: NotFound, BadInput, Conflict, Unavailable."""

    def __init__(
        self, connections: Connections, threads: Threads, *, quota: Quota | None = None, silence_s: float = WAIT_S
    ) -> None:
        """quota: of the tenants' disk; None for no limit."""
        self._quota = quota
        self._redis = connections.commands
        self._blocking: Any = connections.blocking_client(block_s=silence_s)
        self._silence_s = silence_s
        self._threads = threads

    async def list(
        self, caller: Caller, thread_id: ThreadId, path: str, *, depth: int = 1, snapshot: str = ""
    ) -> tuple[list[dict[str, Any]], bool]:
        """What is below `path`, now or in a snapshot, as FileStat fields; and whether there is more than that."""
        request = {"op": "list", "path": path, "depth": depth, "snapshot": snapshot}
        header, _ = await self.ask(caller, thread_id, request)
        return header["items"], bool(header.get("truncated"))

    async def stat(self, caller: Caller, thread_id: ThreadId, path: str) -> dict[str, Any]:
        """One file or folder."""
        header, _ = await self.ask(caller, thread_id, {"op": "stat", "path": path})
        item: dict[str, Any] = header["item"]
        return item

    async def read(
        self, caller: Caller, thread_id: ThreadId, path: str, *, snapshot: str = ""
    ) -> tuple[int, AsyncIterator[bytes]]:
        """A file's size and its bytes in chunks, as it is now or was in a snapshot."""
        header, chunks = await self.ask(caller, thread_id, {"op": "read", "path": path, "snapshot": snapshot})
        return header["size"], chunks

    async def archive(
        self, caller: Caller, thread_id: ThreadId, path: str, *, format: ArchiveFormat = "tar"
    ) -> AsyncIterator[bytes]:
        """An archive of what is below `path`, in chunks."""
        _, chunks = await self.ask(caller, thread_id, {"op": "archive", "path": path, "format": format})
        return chunks

    async def write(self, caller: Caller, thread_id: ThreadId, path: str, content: bytes) -> dict[str, Any]:
        """Replaces a file; its new stat. Raises: LimitExceeded."""
        await self.check_disk(caller, thread_id)
        header, _ = await self.ask(caller, thread_id, {"op": "write", "path": path}, content)
        item: dict[str, Any] = header["item"]
        return item

    async def remove(self, caller: Caller, thread_id: ThreadId, path: str) -> None:
        """Removes a file or folder."""
        await self.ask(caller, thread_id, {"op": "remove", "path": path})

    async def check_disk(self, caller: Caller, thread_id: ThreadId) -> None:
        """Raises: LimitExceeded while the files of the thread's tenant take more than they may."""
        if self._quota is None or not self._quota.limits_disk:
            return
        await self._threads.get(caller, thread_id)
        await self._quota.check_disk(thread_id)

    async def close(self) -> None:
        await self._blocking.aclose(close_connection_pool=True)

    async def ask(
        self,
        caller: Caller,
        thread_id: ThreadId,
        request: dict[str, Any],
        body: bytes | None = None,
        *,
        wait_s: float = WAIT_S,
    ) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """The header of a worker's answer to `request` and its chunks.

        wait_s: for the header, as long as the worker says that it is at it; one that falls silent is not waited for.
        """
        await self._threads.get(caller, thread_id)
        request_id = secrets.token_hex(8)
        async with translated():
            # The body's life is the request's: a worker that finds none knows that nobody waits any more.
            await self._redis.set(keys.file_body(request_id), body or b"", ex=WAIT_S)
            asked = json.dumps(request | {"id": request_id, "thread_id": thread_id, "tenant": caller.tenant})
            await self._redis.rpush(keys.FILE_REQUESTS, asked)
        header = await self._header(request_id, wait_s)
        if "error" in header:
            kind = _KINDS.get(header["kind"], Unavailable)
            raise kind(header["error"], retry_after_s=AGAIN_S if kind is LimitExceeded else None)
        return header, self._chunks(request_id)

    async def _header(self, request_id: str, wait_s: float) -> dict[str, Any]:
        deadline = monotonic() + wait_s
        while True:
            header: dict[str, Any] = json.loads(await self._next(request_id))
            if header != WORKING:
                return header
            if monotonic() > deadline:
                raise Unavailable(f"the workspace did not answer within {wait_s:g} s", retry_after_s=30)

    async def _next(self, request_id: str) -> bytes:
        async with translated():
            reply = await self._blocking.blpop([keys.file_reply(request_id)], timeout=self._silence_s)
        if reply is None:
            raise Unavailable("no worker answered for this workspace; is one running?", retry_after_s=5)
        chunk: bytes = reply[1]
        return chunk

    async def _chunks(self, request_id: str) -> AsyncIterator[bytes]:
        while chunk := await self._next(request_id):
            yield chunk


class FileServer:
    """The worker's side: takes requests and answers them with `handler`, a few at a time."""

    def __init__(self, connections: Connections, handler: Handler, *, at_once: int = 8, sign_s: float = SIGN_S) -> None:
        self._redis = connections.commands
        self._blocking: Any = connections.blocking_client(block_s=5)
        self._handler = handler
        self._sign_s = sign_s
        self._slots = asyncio.Semaphore(at_once)
        self._at_most = max(1, at_once // 2)
        """Of these, so many may be taken by one tenant with answers that have to wait for their reader."""
        self._long: Counter[str] = Counter()

    async def serve(self) -> None:
        """Answers until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._slots.acquire()
                request = await self._take()
                if request is None:
                    self._slots.release()
                else:
                    group.create_task(self._answer(request))

    async def close(self) -> None:
        await self._blocking.aclose(close_connection_pool=True)

    async def _take(self) -> dict[str, Any] | None:
        try:
            async with translated():
                reply = await self._blocking.blpop([keys.FILE_REQUESTS], timeout=5)
        except Unavailable:
            await asyncio.sleep(1)
            return None
        if reply is None:
            return None
        request: dict[str, Any] = json.loads(reply[1])
        return request

    async def _answer(self, request: dict[str, Any]) -> None:
        reply = keys.file_reply(request["id"])
        try:
            async with translated():
                body = await self._redis.getdel(keys.file_body(request["id"]))
            if body is None:
                return
            try:
                header, chunks = await self._handled(reply, request, body)
                first = [json.dumps(header).encode()]
                async for chunk in chunks:
                    first.append(chunk)
                    if len(first) == WINDOW:
                        break
            except DialtoneError as error:
                await self._refuse(reply, error.message, error.kind if isinstance(error, ToolError) else error.code)
                return
            except Exception:  # the edge of a request: a bug in one must not end the others
                log.exception("a file request broke", extra={"thread_id": request["thread_id"]})
                await self._refuse(reply, "a bug in the worker", "internal")
                return
            await self._send(reply, str(request.get("tenant", "")), first, chunks)
        except (Unavailable, TimeoutError) as error:
            log.warning("file reply given up: %s", error, extra={"thread_id": request["thread_id"]})
        except Exception:  # as above; whoever reads it misses its end
            log.exception("a file reply broke off", extra={"thread_id": request["thread_id"]})
        finally:
            self._slots.release()

    async def _send(self, reply: str, tenant: str, first: Sequence[bytes], rest: Answer) -> None:
        """Sends an answer whole, however slowly it is read; but few long ones at once of one tenant."""
        is_long = len(first) == WINDOW
        if is_long and self._long[tenant] >= self._at_most:
            text = f"{self._at_most} long answers to this tenant are still being read; read those first"
            await self._refuse(reply, text, LimitExceeded.code)
            return
        self._long[tenant] += is_long
        try:
            for chunk in first:
                await self._push(reply, chunk)
            async for chunk in rest:
                await self._push(reply, chunk)
            await self._push(reply, b"")
        finally:
            self._long[tenant] -= is_long
            if not self._long[tenant]:
                del self._long[tenant]

    async def _handled(self, reply: str, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        """The handler's answer; whoever waits hears meanwhile that somebody is at it."""
        signs = asyncio.create_task(self._sign(reply))
        try:
            return await self._handler(ThreadId(request["thread_id"]), request, body)
        finally:
            signs.cancel()
            await asyncio.gather(signs, return_exceptions=True)

    async def _sign(self, reply: str) -> None:
        while True:
            await asyncio.sleep(self._sign_s)
            with contextlib.suppress(Unavailable, TimeoutError):
                await self._push(reply, json.dumps(WORKING).encode())

    async def _refuse(self, reply: str, message: str, kind: str) -> None:
        await self._push(reply, json.dumps({"error": message, "kind": kind}).encode())

    async def _push(self, reply: str, chunk: bytes) -> None:
        """Appends a chunk; waits while the reader is behind. Raises: TimeoutError when it stays away."""
        async with translated(), asyncio.timeout(WAIT_S):
            waiting = await self._redis.rpush(reply, chunk)
            await self._redis.expire(reply, REPLY_TTL_S)
            while waiting > WINDOW:
                await asyncio.sleep(0.02)
                waiting = await self._redis.llen(reply)
