"""Runs of all tenants that have not ended, with why they wait and what is wrong with them."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from modem import keys, workers
from modem.pool import Connections, to_ms, translated
from modem.runs import to_record
from workflow.core.config import LimitSettings
from workflow.core.ids import RunId, TenantId, thread_of
from workflow.core.records import Record, RunRecord, WorkerRecord

SILENT_MS = 300_000
"""A run that works without any event for this long is worth a look: no tool and no model call takes longer unseen."""
OVERDUE_MS = 30_000
"""A ready run that waits this long although there is room."""
CHUNK = 200

OpenStatus = Literal["queued", "running", "waiting"]
Trouble = Literal["lease_lost", "silent", "retried", "set_apart", "overdue", "not_cancelled"]


class OpenRun(Record):
    """A run that has not ended, as operators see it."""

    run: RunRecord
    why: str = Field("", description="why it does not work now, in words; empty while it works")
    trouble: tuple[Trouble, ...] = Field(
        (),
        description="`lease_lost`: its worker is silent; `silent`: at work without an event for 5 minutes; `retried`: "
        "its worker died, it is at a further attempt; `set_apart`: it may have killed its worker; `overdue`: it waits "
        "although there is room; `not_cancelled`: its worker does not obey a cancel",
    )
    last_event_at: int = Field(0, description="of its thread, milliseconds since 1970")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are looked for; an empty field lets all through."""

    tenant: TenantId | None = None
    status: OpenStatus | None = None
    in_trouble: bool = False
    older_than_ms: int = 0

    def has(self, found: OpenRun, now_ms: int) -> bool:
        run = found.run
        return (
            (self.tenant is None or run.tenant == self.tenant)
            and (self.status is None or run.status == self.status)
            and (not self.in_trouble or bool(found.trouble))
            and (now_ms - run.created_at >= self.older_than_ms)
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What the runs wait for, at one moment."""

    now_ms: int
    workers: list[WorkerRecord]
    suspects: frozenset[str]
    max_running: int
    flights: dict[str, int] = field(default_factory=dict)
    """Tenant → its runs that workers hold."""

    @property
    def has_room(self) -> bool:
        return any(not worker.draining and worker.running < worker.concurrency for worker in self.workers)

    def is_at_limit(self, tenant: str) -> bool:
        return 0 < self.max_running <= self.flights.get(tenant, 0)


async def open_ids(connections: Connections) -> list[RunId]:
    """All runs that have not ended, sorted. Raises: Unavailable."""
    async with translated():
        return sorted(RunId(run_id.decode()) for run_id in await connections.commands.zrange(keys.SCHED_ACTIVE, 0, -1))


async def page(
    connections: Connections, limits: LimitSettings, wanted: Wanted, *, limit: int, cursor: str
) -> tuple[list[OpenRun], str]:
    """At most `limit` of the wanted runs after the run id `cursor`, by id, and the next cursor ('' at the end)."""
    found: list[OpenRun] = []
    async for one in each(connections, limits, wanted, after=cursor):
        if len(found) == limit:
            return found, found[-1].run.run_id
        found.append(one)
    return found, ""


async def each(
    connections: Connections, limits: LimitSettings, wanted: Wanted, *, after: str = ""
) -> AsyncIterator[OpenRun]:
    """The wanted runs after the run id `after`, by id, read in chunks. Raises: Unavailable."""
    ids = await open_ids(connections)
    scene = await _scene(connections, limits)
    for start in range(bisect_right(ids, after), len(ids), CHUNK):
        for one in await _load(connections, ids[start : start + CHUNK], scene):
            if wanted.has(one, scene.now_ms):
                yield one
        await asyncio.sleep(0)


async def one(connections: Connections, limits: LimitSettings, run_id: RunId) -> OpenRun | None:
    """One run; None when it is unknown."""
    found = await _load(connections, [run_id], await _scene(connections, limits))
    return found[0] if found else None


async def _scene(connections: Connections, limits: LimitSettings) -> Scene:
    alive = await workers.workers(connections)
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.time()
        pipe.lrange(keys.SCHED_SUSPECTS, 0, -1)
        time, suspects = await pipe.execute()
    return Scene(
        now_ms=to_ms(time),
        workers=alive,
        suspects=frozenset(run_id.decode() for run_id in suspects),
        max_running=limits.max_running_per_tenant,
    )


async def _load(connections: Connections, ids: list[RunId], scene: Scene) -> list[OpenRun]:
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        for run_id in ids:
            pipe.hgetall(keys.run(run_id))
            pipe.hmget(keys.metadata(thread_of(run_id)), "updated_at", "active")
        answers = await pipe.execute()
    rows = [
        (to_record(run_id, fields), fields, metadata)
        for run_id, raw, metadata in zip(ids, answers[::2], answers[1::2], strict=True)
        if (fields := {name.decode(): value.decode() for name, value in raw.items()})
    ]
    await _count_flights(connections, scene, {record.tenant for record, _, _ in rows})
    found = []
    for record, fields, (updated_at, active) in rows:
        last = int(updated_at or 0)
        found.append(
            OpenRun(
                run=record,
                why=_why(record, scene, active=(active or b"").decode()),
                trouble=tuple(_troubles(record, fields, scene, last=last)),
                last_event_at=last,
            )
        )
    return found


async def _count_flights(connections: Connections, scene: Scene, tenants: set[TenantId]) -> None:
    unknown = [tenant for tenant in tenants if tenant not in scene.flights]
    if not scene.max_running or not unknown:
        return
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        for tenant in unknown:
            pipe.scard(keys.SCHED_FLIGHT + tenant)
        scene.flights.update(zip(unknown, await pipe.execute(), strict=True))


def _why(record: RunRecord, scene: Scene, *, active: str) -> str:
    if record.status == "waiting":
        return "a person has not answered its question"
    if record.status == "running" and record.waiting_for == "quota":
        return "its tenant has as many live sandboxes as it may"
    if record.status != "queued":
        return ""
    if record.waiting_for == "thread":
        return f"its thread works on {active}" if active else "its thread's turn comes"
    if record.run_id in scene.suspects:
        return "it may have killed its worker; such runs go on one at a time"
    if not scene.workers:
        return "no worker is alive"
    if all(worker.draining for worker in scene.workers):
        return "every worker is being drained or stops"
    if scene.is_at_limit(record.tenant):
        return f"its tenant has {scene.max_running} runs at work, which is limits.max_running_per_tenant"
    if not scene.has_room:
        return "every worker is full"
    return "a worker takes it in a moment"


def _troubles(record: RunRecord, fields: dict[str, str], scene: Scene, *, last: int) -> list[Trouble]:
    found: list[Trouble] = []
    if record.status == "running":
        if record.lease_until < scene.now_ms:
            found.append("lease_lost")
        if scene.now_ms - last > SILENT_MS:
            found.append("silent")
        if record.cancel_requested and scene.now_ms - int(fields.get("cancel_at", scene.now_ms)) > 5000:
            found.append("not_cancelled")
    if record.attempt > 1 or int(fields.get("failures", 0)) > 1:
        found.append("retried")
    if "suspect" in fields:
        found.append("set_apart")
    ready = record.status == "queued" and record.waiting_for == "worker"
    if ready and scene.now_ms - last > OVERDUE_MS and scene.has_room and not scene.is_at_limit(record.tenant):
        found.append("overdue")
    return found
