"""How the installation stands now, in one answer: processes, queues, webhooks, Redis."""

from collections import Counter
from typing import Any

from pydantic import Field

from modem import keys, workers
from modem.pool import Connections, to_ms, translated
from modem.survey import CHUNK, open_ids
from workflow.core.ids import TenantId
from workflow.core.records import GatewayRecord, Record, WorkerRecord

MOST_TENANTS = 100
MOST_COUNTED = 20_000
"""Runs that are looked at one by one; beyond, only their number is known."""
_MISSING = b"missing"


class TenantQueue(Record):
    """A tenant's runs that have not ended."""

    tenant: TenantId
    queued: int = 0
    running: int = 0
    waiting: int = Field(0, description="for a person")


class RunCounts(Record):
    """Runs that have not ended."""

    open: int = 0
    ready: int = Field(0, description="wait for a worker")
    oldest_ready_s: float = 0.0
    queued: int = Field(0, description="wait for a worker or for their thread")
    running: int = 0
    waiting: int = Field(0, description="wait for a person")
    set_apart: int = Field(0, description="may have killed their worker and go on one at a time")


class RedisState(Record):
    version: str = ""
    memory_bytes: int = 0
    peak_bytes: int = 0
    limit_bytes: int = Field(0, description="0: none but the machine's")
    clients: int = 0
    commands_per_s: int = 0
    keys: int = 0
    persists: bool = Field(True, description="whether the append-only file is on and its last write succeeded")
    uptime_s: int = 0


class Overview(Record):
    at: int = Field(description="milliseconds since 1970, by Redis's clock")
    runs: RunCounts
    tenants: tuple[TenantQueue, ...] = Field((), description="the 100 with most runs that have not ended")
    hints: int = Field(0, description="messages to workers that none has taken yet")
    webhooks_due: int = 0
    webhooks_dead: int = 0
    blocked_tenants: int = 0
    workers: tuple[WorkerRecord, ...] = ()
    gateways: tuple[GatewayRecord, ...] = ()
    redis: RedisState = RedisState()


async def overview(connections: Connections) -> Overview:
    """Everything at one glance. Raises: Unavailable."""
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.time()
        pipe.zcard(keys.SCHED_QUEUED)
        pipe.zrange(keys.SCHED_QUEUED, 0, 0, withscores=True)
        pipe.llen(keys.SCHED_SUSPECTS)
        pipe.llen(keys.HINTS)
        pipe.zcard(keys.HOOKS_DUE)
        pipe.zcard(keys.HOOKS_DEAD)
        pipe.hlen(keys.SCHED_BLOCKED)
        pipe.dbsize()
        pipe.info()
        time, ready, oldest, apart, hints, due, dead, blocked, size, info = await pipe.execute()
    now_ms = to_ms(time)
    total, by_tenant = await _by_tenant(connections)
    return Overview(
        at=now_ms,
        runs=RunCounts(
            open=total,
            ready=ready,
            oldest_ready_s=max(0.0, (now_ms - oldest[0][1]) / 1000) if oldest else 0.0,
            queued=sum(one.queued for one in by_tenant),
            running=sum(one.running for one in by_tenant),
            waiting=sum(one.waiting for one in by_tenant),
            set_apart=apart,
        ),
        tenants=tuple(by_tenant[:MOST_TENANTS]),
        hints=hints,
        webhooks_due=due,
        webhooks_dead=dead,
        blocked_tenants=blocked,
        workers=tuple(await workers.workers(connections)),
        gateways=tuple(await workers.gateways(connections)),
        redis=_redis(info, size),
    )


async def _by_tenant(connections: Connections) -> tuple[int, list[TenantQueue]]:
    """How many runs have not ended, and per tenant, most first, how they stand."""
    ids = await open_ids(connections)
    counts: Counter[tuple[str, str]] = Counter()
    for start in range(0, min(len(ids), MOST_COUNTED), CHUNK):
        async with translated():
            pipe = connections.commands.pipeline(transaction=False)
            for run_id in ids[start : start + CHUNK]:
                pipe.hmget(keys.run(run_id), "tenant", "status")
            for tenant, status in await pipe.execute():
                counts[(tenant or _MISSING).decode(), (status or _MISSING).decode()] += 1
    tenants = {tenant for tenant, status in counts if status != _MISSING.decode()}
    queues = [
        TenantQueue(
            tenant=TenantId(tenant),
            queued=counts[tenant, "queued"],
            running=counts[tenant, "running"],
            waiting=counts[tenant, "waiting"],
        )
        for tenant in tenants
    ]
    return len(ids), sorted(queues, key=lambda q: (-(q.queued + q.running + q.waiting), q.tenant))


def _redis(info: dict[str, Any], size: int) -> RedisState:
    return RedisState(
        version=str(info.get("redis_version", "")),
        memory_bytes=info.get("used_memory", 0),
        peak_bytes=info.get("used_memory_peak", 0),
        limit_bytes=info.get("maxmemory", 0),
        clients=info.get("connected_clients", 0),
        commands_per_s=info.get("instantaneous_ops_per_sec", 0),
        keys=size,
        persists=bool(info.get("aof_enabled", 0)) and info.get("aof_last_write_status", "ok") == "ok",
        uptime_s=info.get("uptime_in_seconds", 0),
    )
