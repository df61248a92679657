"""What a stream carries, encoded once: facts, previews and the words of the stream itself.

Every subscriber of a process is handed the same `Frame`; its bytes are made the first time someone asks.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from modem.stream import StreamId
from workflow.core.events import TERMINAL_TYPES
from workflow.core.ids import RunId

BUSINESS = "task_agent_execute"
"""The SSE event name of every event of a log, and of the previews beside it."""

_OVERHEAD = 64
"""Bytes around the payload: field names, id, line ends."""


class Frame:
    """One message to subscribers.

    at: for a fact its place in the log; for `gap` and `reset` the place from which the stream goes on.
    run_id: whom it concerns, None for everybody.  type: the event's type, `delta`, or "".
    """

    __slots__ = ("_chunk", "_sse", "_ws", "at", "data", "name", "run_id", "type")

    def __init__(
        self, name: str, data: bytes, *, at: StreamId | None = None, run_id: RunId | None = None, type: str = ""
    ) -> None:
        self.name = name
        self.data = data
        self.at = at
        self.run_id = run_id
        self.type = type
        self._sse: bytes | None = None
        self._chunk: bytes | None = None
        self._ws: str | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes on the wire."""
        return len(self.data) + _OVERHEAD

    @property
    def is_fact(self) -> bool:
        """True for an event of the log."""
        return self.at is not None and self.name == BUSINESS

    @property
    def is_preview(self) -> bool:
        return self.type == "delta"

    @property
    def is_terminal(self) -> bool:
        """True for the event that ends its run."""
        return self.type in TERMINAL_TYPES

    @property
    def sse(self) -> bytes:
        """The frame as `text/event-stream`. Source: html.spec.whatwg.org/multipage/server-sent-events.html"""
        if self._sse is None:
            mark = b"" if self.at is None else b"id: %d-%d\n" % self.at
            self._sse = b"event: %b\n%bdata: %b\n\n" % (self.name.encode(), mark, self.data)
        return self._sse

    @property
    def chunk(self) -> bytes:
        """The same as one chunk of an HTTP/1.1 body."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.sse), self.sse)
        return self._chunk

    @property
    def ws(self) -> str:
        """The frame as one WebSocket text message `{"event", "id"?, "data"}`."""
        if self._ws is None:
            mark = "" if self.at is None else f'"id":"{self.at}",'
            self._ws = f'{{"event":"{self.name}",{mark}"data":{self.data.decode()}}}'
        return self._ws


def fact(at: StreamId, envelope: bytes) -> Frame:
    """An event of the log, its envelope unchanged."""
    fields = from_json(envelope)
    return Frame(BUSINESS, envelope, at=at, run_id=fields.get("run_id"), type=fields.get("type", ""))


def preview(delta: bytes) -> Frame:
    """A piece of something unfinished: no id, for it is no fact."""
    return Frame(BUSINESS, delta, run_id=from_json(delta).get("run_id"), type="delta")


def waiting(run_id: RunId, position: int | None, waiting_for: str) -> Frame:
    """A run waits: how many start before it, and what it waits for; empty when a run goes on that had started."""
    body = {"run_id": run_id, "position": position, "waiting_for": waiting_for}
    return Frame("waiting", to_json(body), run_id=run_id)


def gap(first: StreamId, last: StreamId, state: bytes) -> Frame:
    """The events `first`..`last` are gone for good; `state` (JSON) is the thread as of `last`."""
    return Frame("gap", b'{"from":"%d-%d","to":"%d-%d","state":%b}' % (*first, *last, state), at=last)


def reset(at: StreamId, state: bytes) -> Frame:
    """The cursor belongs to no event of this log; `state` (JSON) is the thread as of `at`, where the stream goes on."""
    return Frame("reset", b'{"epoch":%d,"state":%b}' % (at.epoch, state), at=at)


def error(problem: Mapping[str, Any]) -> Frame:
    """Why the stream ends: a problem body."""
    return Frame("error", to_json(problem))


KEEP_ALIVE = Frame("keep_alive", b"{}")
