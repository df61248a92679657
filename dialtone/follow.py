"""How a stream is followed across cuts: the cursor, the pauses and the end. Does no I/O itself.

`client.py` and `sync.py` open the connection and hand every piece of news to one `Follow`:
opened → feed … → lost or closed → pause_s → opened → … until `done`.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from dialtone.errors import ApiError, Unreachable, api_error
from dialtone.items import Gap, Reset, StreamItem, Waiting, read_message
from dialtone.retry import RETRY_STATUSES, backoff_s, read_retry_after
from dialtone.sse import SseMessage, SseParser
from workflow.core.events import TERMINAL_TYPES, Delta


class Follow:
    """One reader of one thread's stream.

    last_id: the cursor: the id of the last event that was handed out.
    done: nothing more will come, do not connect again.  connected: keep reading this connection.
    """

    def __init__(
        self,
        *,
        run_id: str | None = None,
        last_id: str = "",
        start: str = "start",
        deltas: bool = True,
        patience_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.last_id = last_id
        self.done = False
        self.connected = False
        self._run_id = run_id
        self._start = start
        self._deltas = deltas
        self._patience_s = patience_s
        self._clock = clock
        self._jitter = jitter
        self._parser = SseParser()
        self._retry_s = 1.0
        self._failures = 0
        self._retry_after_s: float | None = None
        self._lost_at: float | None = None

    def params(self) -> dict[str, str]:
        """The query of the next connection."""
        params = {"deltas": "true" if self._deltas else "false"}
        if self._run_id:
            params["run_id"] = self._run_id
        if not self.last_id:
            params["from"] = self._start
        return params

    def headers(self) -> dict[str, str]:
        """The headers of the next connection."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        return headers

    def opened(self) -> None:
        """The gateway answered 200."""
        self._parser = SseParser()
        self._retry_after_s = None
        self.connected = True

    def answered(self, status: int, body: bytes, *, retry_after: str | None = None) -> None:
        """The gateway answered something else than 200. Raises: ApiError when trying again cannot help."""
        self.connected = False
        if status == 204:
            self.done = True
            return
        error = api_error(status, body, retry_after_s=read_retry_after(retry_after))
        if status not in RETRY_STATUSES:
            raise error
        self._retry_after_s = error.retry_after_s
        self.lost(error)

    def feed(self, chunk: bytes) -> Iterator[StreamItem]:
        """The items that `chunk` completes. The cursor moves as they are taken. Raises: ApiError, ProtocolError."""
        for message in self._parser.feed(chunk):
            self._lost_at, self._failures = None, 0
            try:
                item = read_message(message)
            except ApiError as error:
                if error.status not in RETRY_STATUSES:
                    raise
                self.lost(error)
                return
            if item is not None and self._is_new(item, message):
                yield item
            if self.done:
                self.connected = False
                return
        if self._parser.retry_ms is not None:
            self._retry_s = self._parser.retry_ms / 1000

    def lost(self, error: Exception) -> None:
        """The connection could not be made, or broke. Raises: Unreachable after `patience_s` without a word."""
        self.connected = False
        now = self._clock()
        self._lost_at = now if self._lost_at is None else self._lost_at
        if now - self._lost_at > self._patience_s:
            raise Unreachable(
                f"the stream stayed away for {self._patience_s:g} s: {str(error) or type(error).__name__}"
            )
        self._failures += 1

    def closed(self) -> None:
        """The gateway ended the connection (its maximal age, a restart); raises as `lost` does."""
        if self.connected:
            self.lost(ConnectionError("the gateway closes every connection"))

    def pause_s(self) -> float:
        """Seconds to wait before the next connection."""
        if self.done:
            return 0.0
        attempt = max(0, self._failures - 1)
        pause_s = backoff_s(attempt, base_s=self._retry_s, retry_after_s=self._retry_after_s, jitter=self._jitter)
        self._retry_after_s = None
        return pause_s

    def _is_new(self, item: StreamItem, message: SseMessage) -> bool:
        """Moves the cursor; False for an event that was handed out before."""
        match item:
            case Delta() | Waiting():
                return True
            case Gap():
                self.last_id = message.id or item.last or self.last_id
                self.done = self._ended_in(item.state)
                return True
            case Reset():
                self.last_id = message.id or ""
                self._start = "start"
                self.done = self._ended_in(item.state)
                return True
        if not is_after(item.id, self.last_id):
            return False
        self.last_id = item.id
        self.done = item.type in TERMINAL_TYPES and self._run_id is not None and item.run_id == self._run_id
        return True

    def _ended_in(self, state: dict[str, Any] | None) -> bool:
        """True if a snapshot says that the followed run is over."""
        runs = (state or {}).get("runs")
        run = runs.get(self._run_id) if isinstance(runs, dict) and self._run_id else None
        return isinstance(run, dict) and f"run.{run.get('status')}" in TERMINAL_TYPES


def is_after(event_id: str, cursor: str) -> bool:
    """True if `event_id` comes later than `cursor` in the same log, or if the two cannot be compared."""
    epoch, _, seq = event_id.partition("-")
    cursor_epoch, _, cursor_seq = cursor.partition("-")
    if epoch != cursor_epoch or not (seq.isdigit() and cursor_seq.isdigit()):
        return True
    return int(seq) > int(cursor_seq)
