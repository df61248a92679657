"""What operators see of all tenants, and what they may do to them. Whoever calls has checked that they are one."""

import asyncio
import json
from collections.abc import Iterable

from pydantic import Field

from modem import keys, survey, workers
from modem.history import Cost, Point, costs, history
from modem.overview import Overview, overview
from modem.pool import Connections, translated
from modem.runs import Runs
from modem.sched import Scheduler
from modem.survey import OpenRun, Wanted
from modem.webhooks import DeadNotice, Webhooks
from workflow.core.errors import NotFound
from workflow.core.ids import RunId, TenantId
from workflow.core.records import ConfigState, Record

AT_ONCE = 16
"""Runs that are cancelled side by side."""
MOST_AT_ONCE = 500
"""Runs that are cancelled by one request."""
RELOAD_S = 4.0
"""So long a reload waits for the processes' answers: each looks once a second."""
LOOK_S = 0.1


class Block(Record):
    """A tenant that may start no runs."""

    tenant: TenantId
    by: str = Field(description="the operator")
    at: int = Field(description="milliseconds since 1970")
    reason: str


class CancelledMany(Record):
    """What came of the wish to end runs."""

    run_ids: tuple[RunId, ...] = Field((), description="those whose end was asked for; it comes within 3 s")
    ended: tuple[RunId, ...] = Field((), description="those that had ended already")
    unknown: tuple[RunId, ...] = Field((), description="those that there are not, or not any more")
    reason: str = Field("", description="stands in the last event of those that end")
    next_cursor: str | None = Field(
        None, description="more runs fit: the same request with this `cursor` goes on; null when these were all"
    )


class Reloaded(Record):
    """What a process made of the configuration."""

    process: str
    kind: str = Field(description="`gateway` or `worker`")
    answered: bool = Field(description="whether it has read the file again; false: it did not say so in time")
    config: ConfigState


class Desk:
    """The whole installation. Raises everywhere: Unavailable."""

    def __init__(self, connections: Connections, scheduler: Scheduler, runs: Runs) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._sched = scheduler
        self._runs = runs
        self.webhooks: Webhooks = runs.webhooks

    async def overview(self) -> Overview:
        return await overview(self._connections)

    async def history(self, *, hours: int) -> tuple[list[Point], int]:
        """The last hours, oldest first, and the length of a point in ms."""
        return await history(self._connections, hours=hours)

    async def costs(self, *, days: int) -> list[Cost]:
        """Per tenant and model, dearest first."""
        return await costs(self._connections, days=days)

    async def runs(self, wanted: Wanted, *, limit: int = 50, cursor: str = "") -> tuple[list[OpenRun], str]:
        """The wanted runs that have not ended, by id, and the cursor of the next page ('' at the end)."""
        return await survey.page(self._connections, self._sched.limits, wanted, limit=limit, cursor=cursor)

    async def requeue(self, run_id: RunId) -> OpenRun:
        """Lets a run go on elsewhere. Raises: NotFound, Conflict when it has ended or waits for somebody else."""
        await self._runs.requeue(run_id)
        found = await survey.one(self._connections, self._sched.limits, run_id)
        if found is None:
            raise NotFound(f"no run {run_id}")
        return found

    async def cancel(self, run_ids: Iterable[RunId], *, reason: str) -> CancelledMany:
        """Asks for the end of these runs."""
        places = asyncio.Semaphore(AT_ONCE)

        async def end(run_id: RunId) -> str:
            async with places:
                try:
                    return "asked" if await self._runs.cancel(run_id, reason=reason) else "ended"
                except NotFound:
                    return "unknown"

        wanted = list(dict.fromkeys(run_ids))
        outcomes = await asyncio.gather(*map(end, wanted))

        def those(outcome: str) -> tuple[RunId, ...]:
            return tuple(run_id for run_id, found in zip(wanted, outcomes, strict=True) if found == outcome)

        return CancelledMany(run_ids=those("asked"), ended=those("ended"), unknown=those("unknown"), reason=reason)

    async def cancel_wanted(
        self, wanted: Wanted, *, reason: str, limit: int = MOST_AT_ONCE, cursor: str = ""
    ) -> CancelledMany:
        """Asks for the end of at most `limit` of the wanted runs, by id, from `cursor` on."""
        found, next_cursor = await self.runs(wanted, limit=limit, cursor=cursor)
        done = await self.cancel([one.run.run_id for one in found], reason=reason)
        return done.model_copy(update={"next_cursor": next_cursor or None})

    async def block(self, tenant: TenantId, *, by: str, reason: str) -> Block:
        """From now on the tenant starts no runs; those it has go on."""
        block = Block(tenant=tenant, by=by, at=await self._connections.now_ms(), reason=reason)
        async with translated():
            await self._redis.hset(keys.SCHED_BLOCKED, tenant, block.model_dump_json())
        return block

    async def unblock(self, tenant: TenantId) -> None:
        """Raises: NotFound when the tenant is not blocked."""
        async with translated():
            if not await self._redis.hdel(keys.SCHED_BLOCKED, tenant):
                raise NotFound(f"tenant {tenant} is not blocked")

    async def blocked(self) -> list[Block]:
        """The blocked tenants, by name."""
        async with translated():
            found = await self._redis.hgetall(keys.SCHED_BLOCKED)
        return [Block(**json.loads(found[tenant])) for tenant in sorted(found)]

    async def drain(self, worker: str, *, by: str, hand_over: bool) -> None:
        """The worker takes no more runs; those it has end there, or go on elsewhere. Raises: NotFound."""
        await workers.drain(self._connections, worker, by=by, hand_over=hand_over)

    async def undrain(self, worker: str) -> None:
        """The worker takes runs again. Raises: NotFound."""
        await workers.undrain(self._connections, worker)

    async def reload(self) -> list[Reloaded]:
        """Every process reads its configuration again; what each made of it."""
        number = await workers.ask_reload(self._connections)
        for _ in range(int(RELOAD_S / LOOK_S)):
            answers = await self._reloaded(number)
            if all(one.answered for one in answers):
                return answers
            await asyncio.sleep(LOOK_S)
        return await self._reloaded(number)

    async def _reloaded(self, number: int) -> list[Reloaded]:
        gateways = [("gateway", one.gateway, one.config) for one in await workers.gateways(self._connections)]
        others = [("worker", one.worker, one.config) for one in await workers.workers(self._connections)]
        return [
            Reloaded(process=name, kind=kind, answered=config.answered >= number, config=config)
            for kind, name, config in (*gateways, *others)
        ]

    async def dead(self, *, limit: int = 50, cursor: str = "") -> tuple[list[DeadNotice], str]:
        """The dead notices of all tenants, newest first, and the cursor of the next page ('' at the end)."""
        return await self.webhooks.dead(None, limit=limit, cursor=cursor)

    async def replay(self, notice_id: str) -> TenantId:
        """Delivers a dead notice again; whose it is. Raises: NotFound, Conflict when it is not dead."""
        tenant = await self.webhooks.owner(notice_id)
        await self.webhooks.replay(tenant, notice_id)
        return tenant
