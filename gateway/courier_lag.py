"""How late events reach this process after they were appended."""

import re
import time

_AT = re.compile(rb'"at":(\d{1,15})')
_HEAD_BYTES = 128
"""The log puts `id` and `at` in front of every envelope."""
_EVERY_S = 0.1
_WINDOW_S = 15.0
"""The usual time between two looks of Prometheus: each sees the worst since its last one."""


class CourierLag:
    """Looks at ten events a second at most; remembers the worst of the last 15 to 30 seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._turned = 0.0
        self._before = self._now = float("-inf")

    def heard(self, payload: bytes) -> None:
        """An event has just arrived."""
        clock = time.monotonic()
        if clock < self._next:
            return
        self._next = clock + _EVERY_S
        found = _AT.search(payload, 0, _HEAD_BYTES)
        if found is not None:
            self._turn(clock)
            self._now = max(self._now, time.time() * 1000 - int(found[1]))

    def worst_ms(self, *, skew_ms: float) -> float:
        """0 when nothing came. skew_ms: the Redis server's clock minus ours."""
        self._turn(time.monotonic())
        worst = max(self._before, self._now)
        return max(0.0, worst + skew_ms) if worst > float("-inf") else 0.0

    def _turn(self, clock: float) -> None:
        if clock - self._turned > _WINDOW_S:
            is_recent = clock - self._turned < 2 * _WINDOW_S
            self._before, self._now = (self._now if is_recent else float("-inf")), float("-inf")
            self._turned = clock
