"""A Celery pool that runs every task on one asyncio loop, so that a process holds thousands of waiting runs.

Celery's own tracer runs unmodified, in a greenlet per task. Where the task's body calls `await_(coroutine)`
the greenlet steps aside, the loop awaits the coroutine, and the greenlet goes on with its result. Signals,
acknowledgements and task events so stay Celery's own, and a waiting run costs some tens of kilobytes.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from celery.concurrency.base import BasePool, apply_target
from greenlet import getcurrent, greenlet

log = logging.getLogger(__name__)

T = TypeVar("T")


def await_(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of `coroutine`, awaited on the pool's loop; to be called from a task's body only.

    Raises: RuntimeError outside an AioPool (the prefork and thread pools have no loop to await on).
    """
    parent = getcurrent().parent
    if parent is None or not isinstance(getcurrent(), _TaskGreenlet):
        coroutine.close()
        raise RuntimeError("start the worker with `-P custom`: this task runs on modem.loop:AioPool only")
    result: T = parent.switch(coroutine)
    return result


class _TaskGreenlet(greenlet):  # type: ignore[misc]  # greenlet ships no types we can read
    """Marks a greenlet that may step aside."""


async def _drive(body: Callable[[], None]) -> None:
    """Runs `body` in a greenlet and awaits whatever it hands out."""
    task = _TaskGreenlet(body)
    handed: Awaitable[Any] | None = task.switch()
    while not task.dead:
        assert handed is not None
        try:
            result = await handed
        except BaseException as error:  # noqa: BLE001  # the body is where it belongs, whatever it is
            handed = task.throw(error)
        else:
            handed = task.switch(result)


class Job:
    """One task under way. Celery keeps only a weak reference to it and may terminate it."""

    def __init__(self, pool: "AioPool", pid: int) -> None:
        self._pool = pool
        self.pid = pid

    def terminate(self, signal: int | None = None) -> None:
        self._pool.terminate_job(self.pid, signal)


class AioPool(BasePool):  # type: ignore[misc]  # celery ships no types
    """`celery worker -P custom`: one loop in a thread, one asyncio task per job."""

    signal_safe = False
    body_can_be_buffer = True
    task_join_will_block = False

    def on_start(self) -> None:
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._last_pid = 0
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., None] | None = None,
        accept_callback: Callable[..., None] | None = None,
        **_: Any,
    ) -> Job:
        self._last_pid += 1
        job = Job(self, self._last_pid)

        def body() -> None:
            apply_target(target, args, kwargs, callback, accept_callback, pid=job.pid)

        self.loop.call_soon_threadsafe(self._begin, job.pid, body)
        return job

    def _begin(self, pid: int, body: Callable[[], None]) -> None:
        task = self.loop.create_task(_drive(body), name=f"job-{pid}")
        self._jobs[pid] = task
        task.add_done_callback(lambda done: self._end(pid, done))

    def _end(self, pid: int, task: asyncio.Task[None]) -> None:
        del self._jobs[pid]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job broke outside its task", exc_info=error)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancels the job's asyncio task; the run's own clean-up follows."""
        task = self._jobs.get(pid)
        if task is not None:
            self.loop.call_soon_threadsafe(task.cancel)

    def on_stop(self) -> None:
        self._drain(grace_s=10.0)

    def on_terminate(self) -> None:
        self._drain(grace_s=2.0)

    def _drain(self, *, grace_s: float) -> None:
        """Waits for the jobs to end, then cancels them, then stops the loop."""
        if not self._thread.is_alive():
            return
        self._wait_for_jobs(grace_s)
        for pid in list(self._jobs):
            self.terminate_job(pid)
        self._wait_for_jobs(2.0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=2.0)

    def _wait_for_jobs(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._jobs and time.monotonic() < deadline:
            time.sleep(0.02)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return info | {"jobs": len(self._jobs)}
