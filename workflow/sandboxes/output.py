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


class Rolling:
    """The last bytes of a stream that never ends, addressed by their place in the whole stream."""

    LIMIT = 1_000_000

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        """Takes the next bytes; drops the oldest half when there are too many."""
        self._kept += chunk
        if len(self._kept) > self.LIMIT:
            surplus = len(self._kept) - self.LIMIT // 2
            del self._kept[:surplus]
            self._dropped += surplus

    def after(self, place: int) -> tuple[bytes, int]:
        """What came after byte `place`, as far as it is still kept, and the place to ask from next time."""
        return bytes(self._kept[max(0, place - self._dropped) :]), self._dropped + len(self._kept)
