"""How late this process's event loop wakes up: the first sign of work that should not be done on it."""

import asyncio
import logging
import time

log = logging.getLogger(__name__)

_LOOKS = 20
_EVERY_S = 0.05


class LoopLag:
    """Looks 20 times a second; `worst_ms` is the longest delay of the last whole second."""

    def __init__(self, *, alarm_ms: int) -> None:
        self._alarm_ms = alarm_ms
        self.worst_ms = 0.0

    async def serve(self) -> None:
        """Looks until cancelled; warns above `alarm_ms`."""
        while True:
            worst = 0.0
            for _ in range(_LOOKS):
                before = time.monotonic()
                await asyncio.sleep(_EVERY_S)
                worst = max(worst, (time.monotonic() - before - _EVERY_S) * 1000)
            self.worst_ms = worst
            if worst > self._alarm_ms:
                log.warning("the event loop was blocked for %d ms", worst)
