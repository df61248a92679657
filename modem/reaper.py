"""Looks after runs from outside: lost hints, lost workers, unanswered questions. Runs in every process."""

import asyncio
import logging
import secrets

from modem import keys
from modem.pool import Connections, translated
from modem.runs import Runs
from modem.sched import Scheduler
from modem.stream import Log
from modem.threads import Threads
from workflow.core.config import RunSettings
from workflow.core.errors import Conflict, Unavailable
from workflow.core.ids import RunId, thread_of
from workflow.core.state import fold

log = logging.getLogger(__name__)


class Reaper:
    """One pass every `reap_every_s` by one process at a time; after an outage it lets workers renew first."""

    def __init__(
        self, connections: Connections, scheduler: Scheduler, runs: Runs, threads: Threads, settings: RunSettings
    ) -> None:
        self._connections = connections
        self._sched = scheduler
        self._runs = runs
        self._threads = threads
        self._settings = settings
        self._me = secrets.token_hex(4)

    async def serve(self) -> None:
        """Goes round until cancelled."""
        while True:
            try:
                if await self._my_turn():
                    await self.once()
            except Unavailable:
                log.warning("reaper: Redis is away")
                await self._wait_for_redis()
            await asyncio.sleep(self._settings.reap_every_s)

    async def once(self) -> int:
        """One pass; how many runs were looked at."""
        due = await self._sched.due()
        for run_id in due:
            outcome = await self._runs.reap(run_id)
            if outcome == "expired":
                await self._expire(run_id)
            if outcome not in {"live", "later", "gone"}:
                log.info("reaped: %s", outcome, extra={"run_id": run_id})
        return len(due)

    async def _my_turn(self) -> bool:
        async with translated():
            period_ms = int(self._settings.reap_every_s * 900)
            return bool(await self._connections.commands.set(keys.REAPER_LOCK, self._me, nx=True, px=period_ms))

    async def _wait_for_redis(self) -> None:
        """Workers that lived through the outage renew within a third of a lease; nobody is reaped before that."""
        while True:
            try:
                await self._connections.check()
            except Unavailable:
                await asyncio.sleep(0.5)
            else:
                await asyncio.sleep(self._settings.lease_s * 0.5)
                return

    async def _expire(self, run_id: RunId) -> None:
        """Nobody answered in time: the question's own policy does."""
        state = fold(await Log(self._connections).events(thread_of(run_id)))
        for question in [q for q in state.questions.values() if q.run_id == run_id]:
            try:
                await self._threads.resolve(run_id, question.question_id, answer=question.on_expiry, by="policy")
            except Conflict:
                log.debug("answered meanwhile: %s", question.question_id)
