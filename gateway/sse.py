"""One client's event stream over HTTP: where it starts, its frames, its heartbeat and its end.

Two tasks a stream: the request's own, which writes, and one that waits for the client to leave.
"""

import asyncio
import random
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.hub import Hub
from gateway.middleware import Later
from gateway.subscription import Subscription
from modem.stream import START, Log, StreamId, parse_cursor
from workflow.core.ids import RunId
from workflow.core.records import TERMINAL_STATUSES, RunRecord, ThreadRecord

WIRE = "dialtone.wire"
"""ASGI extension of our server: the connection itself (`subscription.Wire`). Other servers do without."""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream starts: after `cursor`; None means now. `is_resume`: the client named an event it has seen."""

    cursor: StreamId | None
    is_resume: bool

    def after(self, thread: ThreadRecord) -> StreamId:
        """The event after which the stream starts; `thread` as it was when the client asked."""
        if self.cursor is not None:
            return self.cursor
        return parse_cursor(thread.last_id) if thread.last_id else START


def read_start(*, header: str = "", last_id: str = "", origin: str = "") -> Start:
    """Where to start: `Last-Event-ID` wins over `last_id`, and that over `from` (`start`, `now` or an id).

    A reconnecting EventSource sends the header and repeats its old URL; so the header is the newer of the two.
    Raises: BadCursor.
    """
    given = header or last_id or (origin if origin not in {"", "start", "now"} else "")
    if given:
        return Start(parse_cursor(given), is_resume=True)
    return Start(None if origin == "now" else START, is_resume=False)


async def is_at_end(log: Log, thread: ThreadRecord, run: RunRecord | None, cursor: StreamId) -> bool:
    """True if nothing follows `cursor` and nothing will: the answer is 204, which stops an EventSource."""
    if not thread.last_id or cursor > parse_cursor(thread.last_id):
        return False
    if run is None:
        is_quiet = thread.active_run is None and thread.queued_runs == 0
        return is_quiet and cursor == parse_cursor(thread.last_id)
    return run.status in TERMINAL_STATUSES and not await _follows(log, run.run_id, thread, cursor)


async def _follows(log: Log, run_id: RunId, thread: ThreadRecord, after: StreamId) -> bool:
    """True if the log holds an event of the run after `after`."""
    mark = f'"{run_id}"'.encode()
    while page := await log.read(thread.thread_id, after=after):
        if any(mark in envelope for _, envelope in page):
            return True
        after = parse_cursor(page[-1][0])
    return False


def come_back(retry_ms: int) -> Response:
    """A stream that ends at once, for a client that comes while we stop: any status but 200 ends an EventSource."""
    return Response(b"retry: %d\n\n" % retry_ms, media_type="text/event-stream", headers={"connection": "close"})


class EventStream(Response):
    """The response that sends a subscription's frames until one side ends it."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, subscription: Subscription, start: Start, *, retry_ms: int) -> None:
        super().__init__()
        self._hub = hub
        self._subscription = subscription
        self._retry_ms = retry_ms
        # Without it an EventSource that asked for `now` and lost its connection before the first event would start
        # at another now. A block without data tells an id all the same; 0-0 is where an empty log stands.
        self._mark = b"id: %d-%d\n" % subscription.cursor if start.cursor != START else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._subscription.wire = wire = scope.get("extensions", {}).get(WIRE)
        self._subscription.abort = wire.abort if wire is not None else _own_task().cancel
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        except BaseException:
            self._hub.leave(self._subscription)
            raise
        later: list[Later] | None = scope.get("state", {}).get("later")
        if later is None:
            await self._serve(receive, send)
        else:
            later.append(self._serve)

    async def _serve(self, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await self._write(send)
        finally:
            watcher.cancel()
            self._hub.leave(self._subscription)

    async def _write(self, send: Send) -> None:
        subscription, now = self._subscription, asyncio.get_running_loop().time
        await send(_body(self._mark + self._retry()))
        async for batch in subscription.batches():
            body = batch[0].sse if len(batch) == 1 else b"".join([frame.sse for frame in batch])
            subscription.writing_since = now()
            await send(_body(body))
            subscription.writing_since = None
        if subscription.closed not in {"left", "slow"}:
            await send(_body(self._retry(), is_last=True))

    def _retry(self) -> bytes:
        """How long to wait before coming back; scattered, so that a restart is no stampede."""
        return b"retry: %d\n\n" % int(self._retry_ms * random.uniform(1, 1.5))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._subscription.close("left")


def _own_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _body(body: bytes, *, is_last: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": not is_last}
