"""Which run is next: tenants take turns, and none holds more workers than its limit."""

import json
from typing import cast

from modem import keys
from modem.pool import Connections, translated
from workflow.core.config import LimitSettings, RunSettings
from workflow.core.errors import LimitExceeded, TenantBlocked
from workflow.core.ids import RunId, TenantId

CLAIM_WITHIN_MS = 2000
"""How long after it was handed out a run may stay unclaimed before the reaper looks."""

SUSPECT_MS = 15_000
"""How long a run that was set apart keeps the others waiting at most: a model call without any finished step."""


class Scheduler:
    """The queue of ready runs and the index of all that have not ended."""

    def __init__(self, connections: Connections, *, limits: LimitSettings, runs: RunSettings) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._scripts = connections.scripts
        self.limits = limits
        """May be replaced while it works."""
        self._stale_ms = int(runs.stale_queued_s * 1000)

    async def admit(self, run_id: RunId, tenant: TenantId) -> None:
        """Counts a run in before it is recorded.

        Raises: LimitExceeded at the tenant's limit, TenantBlocked, Unavailable.
        """
        async with translated():
            admitted, why = await self._scripts.sched_admit(
                keys=[keys.SCHED_ACTIVE, keys.SCHED_OPEN + tenant, keys.SCHED_BLOCKED],
                args=[run_id, self.limits.max_queued_per_tenant, self._stale_ms, tenant],
            )
        if admitted == -1:
            reason = json.loads(why)["reason"]
            raise TenantBlocked(
                f"an operator has blocked this tenant: {reason}; runs can be started again when that is lifted",
                tenant=tenant,
            )
        if not admitted:
            limit = self.limits.max_queued_per_tenant
            raise LimitExceeded(
                f"{why} runs have not ended and {limit} is the limit; wait for some to end",
                retry_after_s=5,
                limit=limit,
            )

    async def is_at_limit(self, tenant: TenantId) -> bool:
        """Whether the tenant has as many runs at work as it may."""
        if not self.limits.max_running_per_tenant:
            return False
        async with translated():
            running = await self._redis.scard(keys.SCHED_FLIGHT + tenant)
        return bool(running >= self.limits.max_running_per_tenant)

    async def push(self, run_id: RunId, tenant: TenantId, *, front: bool = False) -> None:
        """Puts a ready run into its tenant's queue; nothing happens when it is there already."""
        async with translated():
            await self._scripts.sched_push(
                keys=[
                    keys.SCHED_TENANTS,
                    keys.SCHED_QUEUE + tenant,
                    keys.SCHED_QUEUED,
                    keys.SCHED_TURN,
                    keys.SCHED_ACTIVE,
                    keys.SCHED_FLIGHT + tenant,
                ],
                args=[run_id, tenant, self._stale_ms, int(front)],
            )

    async def again(self, run_id: RunId, tenant: TenantId) -> None:
        """Puts a ready run to the front of its tenant's queue, wherever it was before."""
        async with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.lrem(keys.SCHED_SUSPECTS, 0, run_id)
            pipe.lrem(keys.SCHED_QUEUE + tenant, 0, run_id)
            pipe.zrem(keys.SCHED_QUEUED, run_id)
            await pipe.execute()
        await self.push(run_id, tenant, front=True)

    async def next(self) -> RunId | None:
        """The run whose tenant's turn it is; None when nothing is ready or all tenants are at their limit."""
        async with translated():
            run_id = await self._scripts.sched_next(
                keys=[
                    keys.SCHED_TENANTS,
                    keys.SCHED_QUEUED,
                    keys.SCHED_TURN,
                    keys.SCHED_ACTIVE,
                    keys.SCHED_SUSPECTS,
                    keys.SCHED_SUSPECT,
                ],
                args=[
                    keys.SCHED_QUEUE,
                    keys.SCHED_FLIGHT,
                    self.limits.max_running_per_tenant,
                    CLAIM_WITHIN_MS,
                    SUSPECT_MS,
                ],
            )
        return RunId(run_id.decode()) if run_id else None

    async def look_again(self, run_id: RunId, *, at_ms: int) -> None:
        """Tells the reaper when this run is due."""
        async with translated():
            await self._redis.zadd(keys.SCHED_ACTIVE, {run_id: at_ms})

    async def look_soon(self, run_id: RunId) -> None:
        """Has the reaper look at a run that is about to change: whoever changes it may not live to say what follows."""
        await self.look_again(run_id, at_ms=await self._connections.now_ms() + self._stale_ms)

    async def set_apart(self, run_id: RunId, tenant: TenantId) -> None:
        """Queues a run that was lost with its worker and has one attempt left: such runs go on one at a time,
        so that the one that kills workers takes no neighbour with it."""
        async with translated():
            await self._scripts.sched_apart(
                keys=[keys.SCHED_SUSPECTS, keys.SCHED_SUSPECT, keys.SCHED_ACTIVE, keys.SCHED_FLIGHT + tenant],
                args=[run_id, self._stale_ms],
            )

    async def clear(self, run_id: RunId) -> bool:
        """A run set apart has finished a step or ended; True when the next one can go."""
        async with translated():
            return bool(await self._scripts.sched_clear(keys=[keys.SCHED_SUSPECTS, keys.SCHED_SUSPECT], args=[run_id]))

    async def park(self, run_id: RunId, tenant: TenantId, *, wake_ms: int) -> None:
        """A run waits for a person: it holds no worker and nobody looks before `wake_ms`."""
        async with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.srem(keys.SCHED_FLIGHT + tenant, run_id)
            pipe.zadd(keys.SCHED_ACTIVE, {run_id: wake_ms})
            await pipe.execute()

    async def forget(self, run_id: RunId, tenant: TenantId) -> None:
        """Counts an ended run out."""
        async with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.srem(keys.SCHED_FLIGHT + tenant, run_id)
            pipe.srem(keys.SCHED_OPEN + tenant, run_id)
            pipe.zrem(keys.SCHED_ACTIVE, run_id)
            pipe.zrem(keys.SCHED_QUEUED, run_id)
            pipe.lrem(keys.SCHED_QUEUE + tenant, 0, run_id)
            pipe.lrem(keys.SCHED_SUSPECTS, 0, run_id)
            await pipe.execute()

    async def position(self, run_id: RunId) -> int | None:
        """How many ready runs became ready before this one; None when it is not queued."""
        async with translated():
            return cast("int | None", await self._redis.zrank(keys.SCHED_QUEUED, run_id))

    async def due(self, *, limit: int = 200) -> list[RunId]:
        """Runs whose time to be looked at has come, by the server's clock."""
        now_ms = await self._connections.now_ms()
        async with translated():
            due = await self._redis.zrangebyscore(keys.SCHED_ACTIVE, "-inf", now_ms, start=0, num=limit)
        return [RunId(run_id.decode()) for run_id in due]

    async def lacks_hints(self) -> bool:
        """True if fewer hints wait for a worker than runs do."""
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.llen(keys.HINTS)
            pipe.zcard(keys.SCHED_QUEUED)
            pipe.llen(keys.SCHED_SUSPECTS)
            hints, queued, suspects = await pipe.execute()
        return bool(hints < queued + suspects)

    async def anything_ready(self) -> bool:
        """True if some run waits for a worker."""
        async with translated():
            return bool(await self._redis.zcard(keys.SCHED_QUEUED))
