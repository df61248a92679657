"""This gateway process's figures: what it counts and shows of itself."""

import asyncio
import os
import secrets
import socket
from collections import Counter
from collections.abc import Mapping

from gateway.hub import Hub
from modem.figures import Reporter, memory_bytes
from modem.lag import LoopLag
from modem.meter import DELIVERED, REQUESTS, STREAMS_ENDED, Figure, Meter
from modem.pool import Connections

LAG_ALARM_MS = 100


class GatewayFigures:
    """Counts along with the hub and the middleware, and reports every second."""

    def __init__(
        self, connections: Connections, meter: Meter, hub: Hub, requests: Mapping[tuple[str, int], int]
    ) -> None:
        self.process = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        self._meter = meter
        self._hub = hub
        self._requests = requests
        self._counted: Counter[tuple[str, ...]] = Counter()
        """What of the hub's and the middleware's counts was put into the meter already."""
        self._lag = LoopLag(alarm_ms=LAG_ALARM_MS)
        self.reporter = Reporter(
            connections, meter, process=self.process, component="gateway", gauges=self._count_and_look
        )

    async def serve(self) -> None:
        """Reports until cancelled, and then once more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lag.serve())
                group.create_task(self.reporter.serve())
        finally:
            await self.reporter.leave()

    def gauges(self) -> dict[str, float]:
        """How the process stands now."""
        return {
            "dialtone_streams": self._hub.streams,
            "dialtone_feeds": self._hub.feeds,
            "dialtone_hub_lag_seconds": self._hub.lag.worst_ms(skew_ms=self.reporter.skew_ms) / 1000,
            "dialtone_loop_lag_seconds": self._lag.worst_ms / 1000,
            "dialtone_memory_bytes": memory_bytes(),
        }

    def _count_and_look(self) -> dict[str, float]:
        self._count_up(DELIVERED, self._hub.delivered)
        for reason, count in self._hub.closed.items():
            self._count_up(STREAMS_ENDED, count, reason)
        for (method, status), count in self._requests.items():
            self._count_up(REQUESTS, count, method, str(status))
        return self.gauges()

    def _count_up(self, figure: Figure, count: int, *labels: str) -> None:
        """Puts what came since the last time into the meter."""
        known = (figure.name, *labels)
        if count > self._counted[known]:
            self._meter.add(figure, *labels, amount=count - self._counted[known])
            self._counted[known] = count
