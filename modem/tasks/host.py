"""The composition root of a worker process: opened once on its loop, shared by every run it carries."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version
from typing import Any

from celery import Celery

from modem import workers
from modem.deliveries import Deliveries
from modem.files import FileServer
from modem.journal import Previewer, RunJournal
from modem.leases import Heartbeat
from modem.pool import Connections
from modem.reaper import Reaper
from modem.runs import Claim, Runs
from modem.sched import Scheduler
from modem.send import Hints
from modem.signals import listen
from modem.stream import START, Log, parse_cursor
from modem.tasks.workspace import answer_file_request
from modem.threads import Threads
from workflow.core.config_load import Loaded, config_hash
from workflow.core.errors import LeaseLost, Unavailable
from workflow.core.ids import RunId, thread_of
from workflow.core.log import bind
from workflow.core.records import WorkerRecord
from workflow.runner.build import Workshop, open_workshop
from workflow.runner.control import Control, Reason
from workflow.runner.run import Attempt, execute

log = logging.getLogger(__name__)


class Host:
    """Carries runs: takes the next by turn, keeps its lease, runs it, and gives it back when the process goes."""

    def __init__(self, loaded: Loaded, celery: Celery) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._celery = celery
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        self._controls: dict[RunId, Control] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._lag_ms = 0.0
        self._stack = AsyncExitStack()
        self._started_ms = int(time.time() * 1000)

    async def open(self) -> None:
        """Connects, opens models and sandboxes, and starts what runs beside the runs."""
        settings = self._settings
        self._connections = Connections.open(settings.redis)
        self._stack.push_async_callback(self._connections.close)
        await self._connections.check()
        self._hints = Hints(self._celery)
        self._log = Log(self._connections)
        self._sched = Scheduler(self._connections, limits=settings.limits, runs=settings.runs)
        self._runs = Runs(self._connections, self._sched, self._hints.send)
        threads = Threads(self._connections, settings, self._runs, self._sched)
        reaper = Reaper(self._connections, self._sched, self._runs, threads, settings.runs)
        self._previews = Previewer(self._connections, every_s=settings.worker.preview_ms / 1000)
        self._shop: Workshop = await self._stack.enter_async_context(
            open_workshop(settings, config_hash=config_hash(settings))
        )
        self._model = await asyncio.to_thread(self._shop.models.describe)  # it may look for a local Ollama
        self._heartbeat = Heartbeat(self._connections, lease_s=settings.runs.lease_s)
        self._heartbeat.start()
        self._stack.callback(self._heartbeat.stop)
        files = FileServer(self._connections, lambda *request: answer_file_request(self._shop.sandboxes, *request))
        self._stack.push_async_callback(files.close)
        services: dict[str, Callable[[], Awaitable[Any]]] = {
            "reaper": reaper.serve,
            "signals": lambda: listen(self._connections, self._on_signal),
            "files": files.serve,
            "announce": self._announce,
            "lag": self._watch_lag,
            "sweep": self._sweep,
        }
        if settings.webhooks.enabled and settings.webhooks.secret is not None:
            services["webhooks"] = Deliveries(self._runs.webhooks, settings.webhooks).serve
        for name, serve in services.items():
            self._beside(name, serve)
        log.info("worker %s: model %s, sandbox %s", self.name, self._model, self._shop.report.tier)

    def _beside(self, name: str, serve: Callable[[], Awaitable[Any]]) -> None:
        """Runs `serve` until the host closes; a bug in it is logged and it starts again."""

        async def forever() -> None:
            while True:
                try:
                    await serve()
                except Exception:  # the edge of a service: the others must go on
                    log.exception("%s broke and starts again", name)
                    await asyncio.sleep(1)

        task = asyncio.create_task(forever(), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)

    async def close(self) -> None:
        """Gives all runs back, then closes everything."""
        await self.drain()
        with suppress(Unavailable):  # the record of a worker expires by itself
            await workers.leave(self._connections, self.name)
        await self._stack.aclose()

    async def drain(self) -> None:
        """Takes no more runs and gives back those it has; they go on elsewhere at once."""
        self._draining = True
        for control in self._controls.values():
            control.stop("release")
        async with asyncio.timeout(self._settings.worker.soft_shutdown_s):
            await self._idle.wait()

    async def work(self) -> None:
        """What a hint asks for: carries the run whose turn it is, if there is one.

        Nothing is raised when Redis is away: the run record is the truth, and the reaper repairs what was not said.
        """
        try:
            await self._work()
        except Unavailable as error:
            log.warning("a run is left to the reaper: %s", error)

    async def _work(self) -> None:
        while not self._draining:
            run_id = await self._sched.next()
            if run_id is None:
                return
            claim = await self._runs.claim(run_id, worker=self.name, lease_s=self._settings.runs.lease_s)
            if claim is not None:
                with bind(thread_id=claim.record.thread_id, run_id=run_id):
                    await self._carry(claim)
                return

    async def _carry(self, claim: Claim) -> None:
        """One attempt at one run, from claim to hand-over."""
        run_id, started = claim.record.run_id, time.monotonic()
        control = Control()
        loop = asyncio.get_running_loop()

        def stop(reason: Reason) -> None:
            loop.call_soon_threadsafe(control.stop, reason)

        lease = self._heartbeat.hold(
            run_id, claim.fence, on_lost=partial(stop, "lost"), on_cancel=partial(stop, "cancel")
        )
        self._controls[run_id] = control
        self._idle.clear()
        try:
            history = await self._log.events(claim.record.thread_id)
            journal = RunJournal(
                self._connections,
                self._previews,
                run_id=run_id,
                fence=claim.fence,
                run_seq=claim.run_seq,
                last=parse_cursor(history[-1].id) if history else START,
                keep_events=self._settings.runs.keep_events,
                still_ours=lambda: self._heartbeat.alive(lease),
                on_step=partial(self._runs.trusted, run_id) if claim.suspect else None,
            )
            attempt = Attempt(
                record=claim.record,
                number=claim.attempt,
                reason=claim.reason,
                worker=self.name,
                history=history,
                journal=journal,
                now_ms=lambda: claim.now_ms + int((time.monotonic() - started) * 1000),
            )
            await self._attempt(attempt, claim, journal, control)
        finally:
            self._heartbeat.drop(lease)
            del self._controls[run_id]
            if not self._controls:
                self._idle.set()

    async def _attempt(self, attempt: Attempt, claim: Claim, journal: RunJournal, control: Control) -> None:
        record = claim.record
        try:
            parked = await execute(attempt, self._shop, control)
        except LeaseLost as error:
            log.warning("run given up: %s", error)
            await self._kill_sandbox(record.run_id)
        except asyncio.CancelledError:
            if control.reason == "lost":
                await self._kill_sandbox(record.run_id)
            elif control.reason == "release":
                await self._runs.release(claim, waiting_until_ms=None)
            else:
                raise
        else:
            if parked is not None:
                await self._runs.release(claim, waiting_until_ms=parked.wake_ms, reason="answered")
            else:
                await self._runs.ended(record.run_id, record.tenant, journal.promoted)

    async def _kill_sandbox(self, run_id: RunId) -> None:
        """Another worker owns the run: nothing of ours may go on in its workspace."""
        sandbox = await self._shop.sandboxes.open(thread_of(run_id))
        await sandbox.close()

    def _on_signal(self, kind: str, run_id: RunId) -> None:
        control = self._controls.get(run_id)
        if control is not None and kind == "cancel":
            control.stop("cancel")

    async def _announce(self) -> None:
        while True:
            record = WorkerRecord(
                worker=self.name,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=version("dialtone"),
                model=self._model,
                sandbox=f"{self._shop.report.provider}/{self._shop.report.tier}",
                sandbox_gaps=self._shop.report.gaps,
                concurrency=self._settings.worker.concurrency,
                running=len(self._controls),
                draining=self._draining,
                loop_lag_ms=round(self._lag_ms, 1),
                started_at=self._started_ms,
            )
            try:
                await workers.announce(self._connections, record)
            except Unavailable:
                log.warning("announce: Redis is away")
            await asyncio.sleep(1)

    async def _watch_lag(self) -> None:
        """How late the loop wakes up: the longest delay of the last second, in milliseconds."""
        while True:
            worst = 0.0
            for _ in range(20):
                before = time.monotonic()
                await asyncio.sleep(0.05)
                worst = max(worst, (time.monotonic() - before - 0.05) * 1000)
            self._lag_ms = worst
            if worst > self._settings.worker.loop_lag_alarm_ms:
                log.warning("the event loop was blocked for %d ms", worst)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(30)
            closed = await self._shop.sandboxes.sweep()
            if closed:
                log.info("closed %d idle sandboxes", closed)
