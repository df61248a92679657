"""Cuts a byte stream of server-sent events into their data."""

from workflow.core.errors import ModelOverloaded


class SseData:
    """Feed it chunks as they come from the socket; it gives back the `data` of each finished event.

    Event names, ids and comments are passed over: both wires repeat the name within the data.
    """

    def __init__(self, *, max_event_bytes: int = 32_000_000) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes. Raises: ModelOverloaded when one outgrows its bound."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._max_event_bytes:
            raise ModelOverloaded("the provider sent an event without end")
        events: list[bytes] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                if event := b"\n".join(self._data).strip():  # one without data is none: some servers keep awake so
                    events.append(event)
                self._data.clear()
        return events

    def end(self) -> list[bytes]:
        """What is left when the stream ended without the last blank line."""
        return self.feed(b"\n\n")
