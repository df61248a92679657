"""What the installation did in the last hours, by the minute, and what its tenants' model calls cost, by the day.

Every process adds its counts to the minute and the day that the server's clock shows, so several of them neither
count twice nor need to agree; `figures.py` writes, this reads.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate

from pydantic import Field as Described

from modem import keys
from modem.meter import (  # fmt: skip
    COST,
    MODEL_CALLS,
    MODEL_SECONDS,
    REQUESTS,
    RUN_SECONDS,
    RUNS_ENDED,
    SECONDS,
    TAKEOVERS,
    TOKENS,
    WAIT_SECONDS,
    Field,
    Figure,
    samples,
)
from modem.pool import Connections, translated
from workflow.core.ids import TenantId
from workflow.core.records import Record

MINUTE_MS = 60_000
DAY_MS = 86_400_000
HOURS = 12
KEEP_MINUTE_S = (HOURS * 60 + 10) * 60
DAYS = 31
KEEP_DAY_S = (DAYS + 1) * 86_400
POINTS = 120
"""Most points of one answer: what a chart can show."""


class Point(Record):
    """One stretch of time. Gauges are the highest that was sampled in it, None where nobody sampled."""

    at: int = Described(description="its beginning, milliseconds since 1970")
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    takeovers: int = Described(0, description="runs that went on elsewhere after their worker was lost")
    requests: int = 0
    server_errors: int = Described(0, description="requests that were answered with a status of 500 or more")
    model_calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    wait_s: float | None = Described(None, description="95th percentile of the time from a task to its first start")
    run_s: float | None = Described(None, description="95th percentile of a run's time from first start to end")
    model_s: float | None = Described(None, description="95th percentile of one answer of a model")
    running: float | None = None
    capacity: float | None = None
    ready: float | None = Described(None, description="runs that waited for a worker")
    open: float | None = Described(None, description="runs that had not ended")
    streams: float | None = None
    redis_bytes: float | None = None


class Cost(Record):
    """What the calls of one model took for one tenant."""

    tenant: TenantId
    model: str
    usd: float = 0.0
    tokens: int = 0
    calls: int = 0


async def history(connections: Connections, *, hours: int) -> tuple[list[Point], int]:
    """The last `hours`, oldest first, and the length of a point in ms. hours: 1..HOURS. Raises: Unavailable."""
    step = -(-hours * 60 // POINTS)
    last = await connections.now_ms() // MINUTE_MS
    first = (last - hours * 60 + step) // step * step
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        for minute in range(first, last + 1):
            pipe.hgetall(f"{keys.FIGURES_MINUTE}{minute}")
        minutes = await pipe.execute()
    points = []
    for start in range(0, len(minutes), step):
        counts: dict[Field, float] = defaultdict(float)
        gauges: dict[str, float] = {}
        for raw in minutes[start : start + step]:
            _gather({name.decode(): float(value) for name, value in raw.items()}, counts, gauges)
        points.append(_point((first + start) * MINUTE_MS, counts, gauges))
    return points, step * MINUTE_MS


async def costs(connections: Connections, *, days: int) -> list[Cost]:
    """What was spent today and on the `days - 1` days before (UTC), dearest first. Raises: Unavailable."""
    today = await connections.now_ms() // DAY_MS
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        for day in range(today - days + 1, today + 1):
            pipe.hgetall(f"{keys.FIGURES_COSTS}{day}")
        found = await pipe.execute()
    sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for raw in found:
        for field, amount in raw.items():
            tenant, model, unit = field.decode().split("|")
            sums[tenant, model][unit] += float(amount)
    entries = [
        Cost(
            tenant=TenantId(tenant),
            model=model,
            usd=round(units["usd"], 6),
            tokens=int(units["tokens"]),
            calls=int(units["calls"]),
        )
        for (tenant, model), units in sums.items()
    ]
    return sorted(entries, key=lambda cost: (-cost.usd, -cost.tokens, cost.tenant, cost.model))


def _gather(raw: Mapping[str, float], counts: dict[Field, float], gauges: dict[str, float]) -> None:
    for name, value in raw.items():
        if name == "=":
            continue  # marks the minute as begun
        if name.startswith("="):
            gauges[name[1:]] = max(value, gauges.get(name[1:], 0.0))
        else:
            counts[name] += value


def _point(at: int, counts: Mapping[Field, float], gauges: Mapping[str, float]) -> Point:
    ended: dict[str, float] = defaultdict(float)
    for (outcome, _), parts in samples(RUNS_ENDED, counts).items():
        ended[outcome] += parts.get("", 0.0)
    requests = {labels: parts.get("", 0.0) for labels, parts in samples(REQUESTS, counts).items()}
    return Point(
        at=at,
        finished=int(ended["finished"]),
        failed=int(ended["failed"]),
        cancelled=int(ended["cancelled"]),
        takeovers=int(samples(TAKEOVERS, counts).get(("worker_lost",), {}).get("", 0.0)),
        requests=int(sum(requests.values())),
        server_errors=int(sum(amount for (_, status), amount in requests.items() if status >= "500")),
        model_calls=int(_total(MODEL_CALLS, counts)),
        tokens=int(_total(TOKENS, counts)),
        cost_usd=round(_total(COST, counts), 6),
        wait_s=percentile(WAIT_SECONDS, counts),
        run_s=percentile(RUN_SECONDS, counts),
        model_s=percentile(MODEL_SECONDS, counts),
        running=gauges.get("runs_running"),
        capacity=gauges.get("runs_capacity"),
        ready=gauges.get("runs_ready"),
        open=gauges.get("runs_open"),
        streams=gauges.get("streams"),
        redis_bytes=gauges.get("redis_memory_bytes"),
    )


def _total(figure: Figure, counts: Mapping[Field, float]) -> float:
    return sum(parts.get("", 0.0) for parts in samples(figure, counts).values())


def percentile(figure: Figure, counts: Mapping[Field, float], *, share: float = 0.95) -> float | None:
    """The duration that `share` of those counted did not exceed, as exactly as the buckets tell; None without any."""
    bounds = (0.0, *SECONDS)
    amounts = [0.0] * (len(SECONDS) + 1)
    for parts in samples(figure, counts).values():
        for place, bound in enumerate((*(f"{bound:g}" for bound in SECONDS), "+Inf")):
            amounts[place] += parts.get(f"le={bound}", 0.0)
    wanted = share * sum(amounts)
    if not wanted:
        return None
    for place, below in enumerate(accumulate(amounts)):
        if below >= wanted and place < len(SECONDS):
            into = (wanted - (below - amounts[place])) / amounts[place]
            return round(bounds[place] + into * (bounds[place + 1] - bounds[place]), 3)
    return SECONDS[-1]
