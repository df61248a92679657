"""An incremental parser of `text/event-stream`, fed with whatever pieces the network gives.

Source: html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from dataclasses import dataclass

from dialtone.errors import ProtocolError

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseMessage:
    """One dispatched message. `id` is its own `id:` field, None when it had none."""

    event: str
    data: str
    id: str | None = None


class SseParser:
    """Turns bytes into messages; every split of the same bytes gives the same messages.

    last_id: the newest `id:` of a message that was dispatched or ended, as an EventSource would send it back.
    retry_ms: the newest `retry:`, None before the first.
    max_bytes: a message longer than this raises ProtocolError, so that a broken peer cannot fill the memory.
    """

    def __init__(self, *, max_bytes: int = 64_000_000) -> None:
        self.last_id = ""
        self.retry_ms: int | None = None
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._at_start = True
        self._skip_lf = False
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> list[SseMessage]:
        """The messages that `chunk` completes, oldest first. An unfinished one waits for the next call."""
        self._rest += chunk
        if self._at_start and not self._strip_bom():
            return []
        found: list[SseMessage] = []
        for line in self._lines():
            message = self._line(line)
            if message is not None:
                found.append(message)
        return found

    def _strip_bom(self) -> bool:
        """False while it cannot be told yet whether the stream starts with a byte order mark."""
        if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
            return False
        if self._rest.startswith(_BOM):
            del self._rest[: len(_BOM)]
        self._at_start = False
        return True

    def _lines(self) -> list[bytes]:
        """The complete lines so far, without their ends. A CR ends a line at once; an LF right after it is dropped."""
        if self._skip_lf and self._rest:
            if self._rest[0] == 0x0A:
                del self._rest[0]
            self._skip_lf = False
        if not self._rest:
            return []
        self._skip_lf = self._rest.endswith(b"\r")
        # bytes.splitlines knows CR, LF and CRLF only, unlike str.splitlines.
        lines = bytes(self._rest).splitlines(keepends=True)
        self._rest.clear()
        if not lines[-1].endswith((b"\r", b"\n")):
            self._rest += lines.pop()
            if self._size + len(self._rest) > self._max_bytes:
                raise ProtocolError(f"a stream message is longer than {self._max_bytes} bytes")
        return [line.rstrip(b"\r\n") for line in lines]

    def _line(self, line: bytes) -> SseMessage | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        if self._size > self._max_bytes:
            raise ProtocolError(f"a stream message is longer than {self._max_bytes} bytes")
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode(errors="replace")
        match name:
            case b"event":
                self._event = text
            case b"data":
                self._data.append(text)
            case b"id" if "\0" not in text:
                self._id = text
            case b"retry" if text.isascii() and text.isdigit():
                self.retry_ms = int(text[:9])
        return None

    def _dispatch(self) -> SseMessage | None:
        event, data, own_id = self._event, self._data, self._id
        self._clear()
        if own_id is not None:
            self.last_id = own_id
        if not data:
            return None
        return SseMessage(event or "message", "\n".join(data), own_id)

    def _clear(self) -> None:
        self._event, self._data, self._id, self._size = "", [], None, 0
