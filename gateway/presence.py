"""Says every second that this gateway process lives, and hears when its configuration is to be read again."""

import asyncio
import logging
import os
import socket
import time
from importlib.metadata import version

from gateway.figures import GatewayFigures
from modem import workers
from modem.pool import Connections
from workflow.core.config_reload import Follower
from workflow.core.errors import Unavailable
from workflow.core.records import GatewayRecord

log = logging.getLogger(__name__)


class Presence:
    """This process's record among the gateways."""

    def __init__(self, connections: Connections, figures: GatewayFigures, config: Follower) -> None:
        self._connections = connections
        self._figures = figures
        self._config = config
        self._host, self._version = socket.gethostname(), version("dialtone")
        self._started_ms = int(time.time() * 1000)

    async def serve(self) -> None:
        """Announces until cancelled, and then takes its leave."""
        try:
            while True:
                try:
                    wishes = await workers.announce(self._connections, self._record())
                    self._config.ask(wishes.reload)
                except Unavailable:
                    log.debug("announce: Redis is away")
                await asyncio.sleep(1)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        try:
            await workers.leave(self._connections, self._record())
        except Unavailable:
            log.debug("leave: Redis is away; the record expires by itself")

    def _record(self) -> GatewayRecord:
        seen = self._figures.gauges()
        return GatewayRecord(
            gateway=self._figures.process,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            streams=int(seen["dialtone_streams"]),
            loop_lag_ms=round(seen["dialtone_loop_lag_seconds"] * 1000, 1),
            memory_bytes=int(seen["dialtone_memory_bytes"]),
            started_at=self._started_ms,
            config=self._config.state,
        )
