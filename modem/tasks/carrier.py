"""Carries runs: takes the next by turn, keeps its lease, runs it, and gives it back when the process goes."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from modem.journal import Previewer, RunJournal
from modem.leases import Heartbeat, Lease
from modem.meter import RUN_SECONDS, WAIT_SECONDS, Meter
from modem.pool import Connections
from modem.purse import RunPurse
from modem.retention import trim
from modem.runs import Claim, Runs
from modem.sched import Scheduler
from modem.stream import START, Log, parse_cursor
from workflow.core.config import Settings
from workflow.core.errors import LeaseLost, Unavailable
from workflow.core.ids import RunId, ThreadId, thread_of
from workflow.core.log import bind
from workflow.core.tracing import Tracing, continued
from workflow.runner.build import Workshop
from workflow.runner.control import Control, Reason
from workflow.runner.run import Attempt, execute

log = logging.getLogger(__name__)


class Carrier:
    """The runs of one worker process."""

    def __init__(
        self,
        connections: Connections,
        scheduler: Scheduler,
        runs: Runs,
        heartbeat: Heartbeat,
        shop: Workshop,
        settings: Settings,
        *,
        worker: str,
        meter: Meter | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._connections = connections
        self._log = Log(connections)
        self._sched, self._runs, self._heartbeat, self._shop = scheduler, runs, heartbeat, shop
        self._settings = settings
        self._worker = worker
        self._meter = meter or Meter()
        self._tracing = tracing
        self._previews = Previewer(connections, every_s=settings.worker.preview_ms / 1000)
        self._controls: dict[RunId, Control] = {}
        self.drained_by = ""
        """The operator who wants no more runs here; may be changed while it works."""
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """How many runs this process holds."""
        return len(self._controls)

    @property
    def draining(self) -> bool:
        """True while it takes no more runs."""
        return self._stopping or bool(self.drained_by)

    def on_signal(self, kind: str, run_id: RunId) -> None:
        control = self._controls.get(run_id)
        if control is None:
            return
        if kind == "cancel":
            control.stop("cancel")
        elif kind == "release":
            control.stop("release")

    def hand_over(self) -> None:
        """Gives back all runs it has; they go on elsewhere at once."""
        for control in self._controls.values():
            control.stop("release")

    async def drain(self) -> None:
        """Takes no more runs and gives back those it has, for good."""
        self._stopping = True
        self.hand_over()
        try:
            async with asyncio.timeout(self._settings.worker.soft_shutdown_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d runs did not stop in time; their leases will run out", len(self._controls))

    async def work(self) -> None:
        """What a hint asks for: carries the run whose turn it is, and the next one, until there is none.

        Nothing is raised when Redis is away: the run record is the truth, and the reaper repairs what was not said.
        """
        try:
            await self._work()
        except Unavailable as error:
            log.warning("a run is left to the reaper: %s", error)

    async def _work(self) -> None:
        while not self.draining:
            run_id = await self._sched.next()
            if run_id is None:
                return
            shop = self._shop.pinned()
            claim = await self._runs.claim(
                run_id,
                worker=self._worker,
                lease_s=self._settings.runs.lease_s,
                config_hash=shop.config_hash,
                sandbox=shop.report.label,
            )
            if claim is None:
                continue
            with bind(thread_id=claim.record.thread_id, run_id=run_id):
                if await self._carry(claim, shop) == "release":
                    return  # it is to go on elsewhere, and would be the first that comes

    async def _carry(self, claim: Claim, shop: Workshop) -> Reason:
        """One attempt at one run, from claim to hand-over; why it was stopped, empty if it was not."""
        run_id, started = claim.record.run_id, time.monotonic()
        control = Control()
        loop = asyncio.get_running_loop()

        def stop(reason: Reason) -> None:
            loop.call_soon_threadsafe(control.stop, reason)

        lease = self._heartbeat.hold(
            run_id, claim.fence, on_lost=partial(stop, "lost"), on_cancel=partial(stop, "cancel")
        )

        def leave() -> None:
            self._heartbeat.drop(lease)
            control.unbind()

        self._controls[run_id] = control
        self._idle.clear()
        if claim.reason == "fresh":
            self._meter.observe(WAIT_SECONDS, seconds=(claim.now_ms - claim.record.created_at) / 1000)
        try:
            history = await self._log.events(claim.record.thread_id)
            journal = self._journal(claim, lease, last=history[-1].id if history else "", on_end=leave)
            attempt = Attempt(
                record=claim.record,
                number=claim.attempt,
                reason=claim.reason,
                worker=self._worker,
                history=history,
                journal=journal,
                purse=RunPurse(
                    self._connections, shop.settings.agent, run_id, claim.record.tenant, now_ms=claim.now_ms
                ),
                cancel_reason=partial(self._cancel_reason, run_id),
                now_ms=lambda: claim.now_ms + int((time.monotonic() - started) * 1000),
            )
            await self._attempt(attempt, claim, shop=shop, journal=journal, control=control, leave=leave)
            return control.reason
        finally:
            self._heartbeat.drop(lease)
            del self._controls[run_id]
            if not self._controls:
                self._idle.set()

    def _journal(self, claim: Claim, lease: Lease, *, last: str, on_end: Callable[[], None]) -> RunJournal:
        """The run's side of its thread's log. last: id of the newest event that it knows."""
        run_id = claim.record.run_id
        return RunJournal(
            self._connections,
            self._previews,
            run_id=run_id,
            fence=claim.fence,
            run_seq=claim.run_seq,
            last=parse_cursor(last) if last else START,
            keep_events=self._settings.runs.keep_events,
            meter=self._meter,
            tenant=claim.record.tenant,
            still_ours=lambda: self._heartbeat.alive(lease),
            on_step=partial(self._runs.trusted, run_id) if claim.suspect else None,
            on_end=on_end,
        )

    async def _attempt(
        self,
        attempt: Attempt,
        claim: Claim,
        *,
        shop: Workshop,
        journal: RunJournal,
        control: Control,
        leave: Callable[[], None],
    ) -> None:
        """leave: to be called before the run is given up on purpose; what is then said of its lease is no news."""
        record = claim.record
        try:
            with continued(self._tracing, record.trace):
                parked = await execute(attempt, shop, control)
        except (LeaseLost, Unavailable) as error:
            log.warning("run given up: %s", error)
            await self._kill_sandbox(record.run_id)
        except asyncio.CancelledError:
            if control.reason == "lost":
                await self._kill_sandbox(record.run_id)
            elif control.reason == "release":
                leave()
                await self._runs.release(claim, waiting_until_ms=None)
            else:
                raise
        else:
            if parked is not None:
                leave()
                await self._runs.release(claim, waiting_until_ms=parked.wake_ms, reason="answered")
            else:
                self._meter.observe(RUN_SECONDS, seconds=(attempt.now_ms() - record.started_at) / 1000)
                await self._runs.ended(record.run_id, record.tenant, journal.promoted)
                await self._trim(record.thread_id, now_ms=attempt.now_ms())

    async def _trim(self, thread_id: ThreadId, *, now_ms: int) -> None:
        runs = self._settings.runs
        kept_ms = int(timedelta(days=runs.keep_event_days).total_seconds() * 1000)
        since_ms = now_ms - kept_ms if kept_ms else 0
        await trim(self._connections, thread_id, keep=runs.keep_events, since_ms=since_ms)

    async def _cancel_reason(self, run_id: RunId) -> str:
        return (await self._runs.load(run_id)).reason

    async def _kill_sandbox(self, run_id: RunId) -> None:
        """Another worker owns the run: nothing of ours may go on in its workspace."""
        await self._shop.sandboxes.stop(thread_of(run_id))
