"""Figures of the whole installation, in Redis: each process reports its own every second, any gateway shows all.

Counters are totals in Redis, so a process that ends takes nothing with it; a report carries a number, so one that
is repeated after a lost answer counts once. Gauges belong to their process and are shown while it reports.
Why not a port per process: docs/decisions/0005-figures-through-redis.md
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modem import keys
from modem.history import KEEP_DAY_S, KEEP_MINUTE_S, MINUTE_MS
from modem.meter import CHARTED, TENANT_COSTS, Field, Meter
from modem.pool import Connections, to_ms, translated
from workflow.core.errors import Unavailable

log = logging.getLogger(__name__)

EVERY_S = 1.0
SILENT_MS = 10_000
"""A process that says nothing for this long is taken for dead."""
FORGET_MS = 3_600_000
"""Its last report is kept this long: until then a report under way may still arrive."""

Gauges = Callable[[], Mapping[str, float]]
"""Asked before the counts are taken, so it may count what was counted elsewhere."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """The gauges of one living process."""

    process: str
    component: str
    """`gateway` or `worker`."""
    gauges: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that there is to know now."""

    totals: dict[Field, float] = field(default_factory=dict)
    processes: list[ProcessFigures] = field(default_factory=list)
    shared: dict[str, float] = field(default_factory=dict)
    """Gauges of the installation: queues, webhooks, Redis."""


class Reporter:
    """Reports one process's figures."""

    def __init__(self, connections: Connections, meter: Meter, *, process: str, component: str, gauges: Gauges) -> None:
        self._connections = connections
        self._meter = meter
        self._process = process
        self._component = component
        self._gauges = gauges
        self.skew_ms = 0.0
        """The Redis server's clock minus ours, at the last report."""
        self._number = 0
        self._doubtful: dict[Field, float] | None = None
        """Counts of report `_number`, of which nobody knows whether it arrived."""
        self._lock = asyncio.Lock()

    async def report(self) -> None:
        """Reports once. Raises: Unavailable; nothing that was counted is lost then."""
        async with self._lock:
            gauges = json.dumps({name: float(value) for name, value in self._gauges().items()})
            if self._doubtful is None:
                self._doubtful = self._meter.take()
                self._number += 1
            counts = [part for field, amount in self._doubtful.items() for part in (*_placed(field), repr(amount))]
            kept = [keys.FIGURES_MINUTE, KEEP_MINUTE_S, keys.FIGURES_COSTS, KEEP_DAY_S]
            asked = time.time()
            async with translated():
                now_ms, is_first = await self._connections.scripts.figures(
                    keys=[keys.FIGURES_TOTALS, keys.FIGURES_PROCESSES],
                    args=[self._process, self._number, self._component, gauges, *kept, *counts],
                )
            self._doubtful = None
            self.skew_ms = int(now_ms) - (asked + time.time()) / 2 * 1000
        if is_first:
            await sample(self._connections, minute=int(now_ms) // MINUTE_MS)

    async def serve(self) -> None:
        """Reports every second until cancelled."""
        while True:
            try:
                await self.report()
            except Unavailable:
                log.debug("figures are held back: Redis is away")
            await asyncio.sleep(EVERY_S)

    async def leave(self) -> None:
        """Reports for the last time."""
        try:
            await self.report()
            async with translated():
                await self._connections.commands.hdel(keys.FIGURES_PROCESSES, self._process)
        except Unavailable:
            log.warning("the last figures are lost: Redis is away")


async def look(connections: Connections) -> Snapshot:
    """The figures of all living processes. Raises: Unavailable."""
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(keys.FIGURES_TOTALS)
        pipe.hgetall(keys.FIGURES_PROCESSES)
        pipe.zcard(keys.SCHED_QUEUED)
        pipe.zrange(keys.SCHED_QUEUED, 0, 0, withscores=True)
        pipe.zcard(keys.SCHED_ACTIVE)
        pipe.zcard(keys.HOOKS_DUE)
        pipe.zcard(keys.HOOKS_DEAD)
        pipe.info("memory")
        clock, totals, reports, ready, oldest, active, due, dead, memory = await pipe.execute()
    now_ms = to_ms(clock)
    living, silent = _processes(reports, now_ms)
    if silent:
        async with translated():
            await connections.commands.hdel(keys.FIGURES_PROCESSES, *silent)
    return Snapshot(
        totals={name.decode(): float(amount) for name, amount in totals.items()},
        processes=living,
        shared={
            "dialtone_runs_ready": ready,
            "dialtone_runs_ready_oldest_seconds": max(0.0, (now_ms - oldest[0][1]) / 1000) if oldest else 0.0,
            "dialtone_runs_open": active,
            "dialtone_webhooks_pending": due,
            "dialtone_webhooks_dead": dead,
            "dialtone_redis_memory_bytes": memory.get("used_memory", 0),
            "dialtone_redis_memory_limit_bytes": memory.get("maxmemory", 0),
        },
    )


async def sample(connections: Connections, *, minute: int) -> None:
    """Keeps how the installation stands in this minute; one process is told to. Raises: Unavailable."""
    seen = await look(connections)
    summed = {
        name: sum(process.gauges.get(f"dialtone_{name}", 0.0) for process in seen.processes)
        for name in ("runs_running", "runs_capacity", "streams")
    }
    shared = {name: seen.shared[f"dialtone_{name}"] for name in ("runs_ready", "runs_open", "redis_memory_bytes")}
    async with translated():
        await connections.commands.hset(
            f"{keys.FIGURES_MINUTE}{minute}", mapping={f"={name}": value for name, value in (summed | shared).items()}
        )


def _placed(field: Field) -> tuple[str, Field]:
    """Where a count is kept, and under which name: see `figures.lua`."""
    name, _, rest = field.partition("|")
    if name == TENANT_COSTS.name:
        return "c", rest.rstrip("|")
    return "m" if name in CHARTED else "t", field


def _processes(reports: dict[bytes, bytes], now_ms: int) -> tuple[list[ProcessFigures], list[bytes]]:
    """Those that live, by name, and those to be forgotten."""
    living, silent = [], []
    for process, raw in sorted(reports.items()):
        report = json.loads(raw)
        age_ms = now_ms - report["at"]
        if age_ms < SILENT_MS:
            living.append(ProcessFigures(process.decode(), report["component"], report["gauges"]))
        elif age_ms > FORGET_MS:
            silent.append(process)
    return living, silent


def memory_bytes() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0.0
