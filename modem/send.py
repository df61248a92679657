"""The sending side of the queue; imports no task."""

import asyncio
import logging

from celery import Celery
from kombu.exceptions import OperationalError

from modem.app import RUN_TASK
from modem.pool import translated
from modem.pulse import Pulse
from workflow.core.errors import Unavailable
from workflow.core.ids import RunId

log = logging.getLogger(__name__)


class Hints:
    """Tells some worker that a run is ready. A lost hint is repaired by the reaper, so failing is no error."""

    def __init__(self, celery: Celery, pulse: Pulse, *, timeout_s: float = 2.0) -> None:
        self._celery = celery
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
        self._celery.send_task(RUN_TASK, kwargs={"run_id": run_id}, retry=False, ignore_result=True)

    def close(self) -> None:
        self._celery.close()
