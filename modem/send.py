"""The sending side of the queue: kombu without Celery, whose rest would take 4 MB of every gateway for nothing."""

import asyncio
import logging
import uuid
from typing import Any

from kombu.connection import Connection
from kombu.exceptions import OperationalError

from modem import keys
from modem.broker import RUN_TASK, Broker
from modem.pool import translated
from modem.pulse import Pulse
from workflow.core.errors import Unavailable
from workflow.core.ids import RunId

log = logging.getLogger(__name__)

CONNECTIONS = 10
"""At most; one that is free is used again."""


class Hints:
    """Tells some worker that a run is ready. A lost hint is repaired by the reaper, so failing is no error."""

    def __init__(self, broker: Broker, pulse: Pulse, *, timeout_s: float = 2.0) -> None:
        # Nobody can end a thread that writes to a server which takes nothing: it has to give up by itself.
        options = broker.options | {"socket_timeout": timeout_s}
        connection = Connection(broker.url, transport_options=options)  # type: ignore[no-untyped-call]  # kombu
        self._pool: Any = connection.Pool(CONNECTIONS)  # type: ignore[no-untyped-call]  # has few types
        self._pulse = pulse
        self._timeout_s = timeout_s

    async def send(self, run_id: RunId) -> None:
        """Publishes the hint from a thread, for at most `timeout_s`."""
        try:
            async with translated(), self._pulse.guard(), asyncio.timeout(self._timeout_s):
                await asyncio.to_thread(self._publish, run_id)
        except (Unavailable, OperationalError) as error:
            log.warning("hint not sent, the reaper will: %s", error, extra={"run_id": run_id})

    def _publish(self, run_id: RunId) -> None:
        """Source: docs.celeryq.dev, internals/protocol, version 2: the body is (args, kwargs, what to do next)."""
        arguments = {"run_id": run_id}
        hint = str(uuid.uuid4())
        headers = {"lang": "py", "task": RUN_TASK, "id": hint, "root_id": hint, "kwargsrepr": repr(arguments)}
        with self._pool.acquire(block=True) as connection:
            connection.Producer().publish(
                ((), arguments, {}), routing_key=keys.HINTS, headers=headers, correlation_id=hint
            )

    def close(self) -> None:
        self._pool.force_close_all()
