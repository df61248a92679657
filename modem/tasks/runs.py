"""The one task of the queue: "a run is ready". Which run it is, the scheduler says."""

import asyncio
import logging
import sys
from functools import partial
from typing import Any

from celery import bootsteps

from modem.app import app
from modem.broker import RUN_TASK
from modem.loop import await_
from modem.tasks.host import Host
from workflow.core.config_load import load
from workflow.core.errors import ConfigError
from workflow.core.memory import keep_loaded

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 60
WRONG_CONFIG = 2
"""Exit status of a worker whose configuration is wrong."""


@app.task(name=RUN_TASK, bind=True)  # type: ignore[untyped-decorator]  # celery ships no types
def execute_run(task: Any, run_id: str) -> None:
    """Carries the next run by turn; `run_id` names the one that made the hint."""
    del run_id
    await_(task.app.host.carrier.work())


def _consume(worker: Any, is_wanted: bool) -> None:
    """Begins or ends taking hints, on the thread that speaks to the broker."""
    consumer, queue = worker.consumer, worker.app.conf.task_default_queue

    def switch() -> None:
        queues = worker.app.amqp.queues
        if consumer.task_consumer is None:  # away from the broker: what is selected counts when it is back
            queues.select_add(queues[queue]) if is_wanted else queues.deselect(queue)
        elif is_wanted:
            consumer.add_task_queue(queue)
        else:
            consumer.cancel_task_queue(queue)

    consumer.call_soon(switch)


class HostStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Opens the host on the pool's loop before the first message is taken, and closes it before the pool stops."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        self._loop = worker.pool.loop

        async def open_host() -> Host:
            host = Host(load(), consume=partial(_consume, worker))
            await host.open()
            keep_loaded()
            return host

        try:
            worker.app.host = asyncio.run_coroutine_threadsafe(open_host(), self._loop).result(OPEN_TIMEOUT_S)
        except ConfigError as error:  # of any other error Celery makes a traceback and exit status 1
            sys.stderr.write(f"{error.message}\n")
            raise SystemExit(WRONG_CONFIG) from error

    def stop(self, worker: Any) -> None:
        host = getattr(worker.app, "host", None)
        if host is not None:
            del worker.app.host
            asyncio.run_coroutine_threadsafe(host.close(), self._loop).result(OPEN_TIMEOUT_S)

    terminate = stop


app.steps["worker"].add(HostStep)
