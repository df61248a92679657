"""What is kept of a command's output: the head and the tail, the middle counted."""

from collections import deque


class Kept:
    """At most `limit` bytes of one stream: its first half of the limit, and the last half as the stream moves on."""

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._head = bytearray()
        self._head_limit = limit // 2
        self._tail: deque[bytes] = deque()
        self._tail_limit = limit - self._head_limit
        self._tail_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Takes the next bytes of the stream."""
        self.total += len(chunk)
        room = self._head_limit - len(self._head)
        self._head += chunk[:room]
        if len(chunk) > room:
            self._tail.append(chunk[room:])
            self._tail_bytes += len(self._tail[-1])
        while self._tail and self._tail_bytes - len(self._tail[0]) >= self._tail_limit:
            self._tail_bytes -= len(self._tail.popleft())

    @property
    def dropped(self) -> int:
        """Bytes of the middle that `value` leaves out."""
        return max(0, self.total - len(self._head) - self._tail_limit)

    def value(self) -> bytes:
        """Head and tail; the whole stream when nothing was dropped."""
        tail = b"".join(self._tail)
        return bytes(self._head) + tail[max(0, len(tail) - self._tail_limit) :]
