"""What operators are shown, as lines of text. Names that others chose are made harmless."""

from collections.abc import Iterator, Sequence

from dialtone.desk_results import Cost, DeadNotice, History, OpenRun, Overview, Reloaded
from dialtone.text import moment, one_line
from workflow.core.records import ConfigState, WorkerRecord

BARS = "▁▂▃▄▅▆▇█"


def overview_lines(seen: Overview, *, width: int) -> Iterator[str]:
    """The whole installation."""
    runs, redis = seen.runs, seen.redis
    oldest = f" (longest {runs.oldest_ready_s:.0f} s)" if runs.ready else ""
    yield (
        f"runs      {runs.running} at work, {runs.ready} wait for a worker{oldest}, "
        f"{runs.queued - runs.ready} for their thread, {runs.waiting} for a person"
    )
    limit = f" of {size(redis.limit_bytes)}" if redis.limit_bytes else ""
    lost = "" if redis.persists else ", does NOT persist"
    used = f"{size(redis.memory_bytes)}{limit}, {redis.keys:,} keys, {redis.clients} clients"
    yield f"redis     {redis.version}, {used}{lost}"
    yield f"webhooks  {seen.webhooks_due} on their way, {seen.webhooks_dead} dead"
    if seen.blocked_tenants:
        yield f"blocked   {seen.blocked_tenants} tenants"
    if not seen.workers:
        yield "worker    none is alive; runs wait"
    for worker in seen.workers:
        yield one_line(_worker(worker), width)
    for gateway in seen.gateways:
        text = f"gateway   {gateway.gateway}  {gateway.streams} streams, lag {gateway.loop_lag_ms:.0f} ms"
        yield one_line(f"{text}, {size(gateway.memory_bytes)}, {_config(gateway.config)}", width)
    for queue in seen.tenants:
        counts = f"{queue.running} at work, {queue.queued} queued, {queue.waiting} wait for a person"
        yield one_line(f"tenant    {queue.tenant}  {counts}", width)


def run_line(one: OpenRun, *, now_ms: int, width: int) -> str:
    """A run that has not ended."""
    run = one.run
    trouble = f"  [{', '.join(one.trouble)}]" if one.trouble else ""
    why = one.why or run.owner
    text = f"{run.run_id}  {run.tenant}  {run.status}  {age(now_ms - run.created_at)}  {why}{trouble}  {run.task}"
    return one_line(text, width)


def cost_line(cost: Cost) -> str:
    amounts = f"{cost.usd:>12.4f} $  {cost.tokens:>14,} tokens  {cost.calls:>8,} calls"
    return f"{amounts}  {_name(cost.tenant)}  {_name(cost.model)}"


def notice_line(notice: DeadNotice, *, width: int) -> str:
    text = f"{notice.id}  {moment(notice.died_at)}  {notice.tenant}  {notice.type}  {notice.url}  {notice.result}"
    return one_line(text, width)


def reload_line(one: Reloaded, *, width: int) -> str:
    state = _config(one.config) if one.answered else "did not answer in time"
    return one_line(f"{one.kind:<8}  {one.process}  {state}", width)


def history_lines(history: History, *, width: int) -> Iterator[str]:
    """A line of bars for every figure, with its highest and its newest value."""
    points = history.items
    if not points:
        return
    yield f"from {moment(points[0].at)} to {moment(points[-1].at)}, {history.step_ms // 60_000} min a point"
    rows: list[tuple[str, list[float | None], str]] = [
        ("runs finished", [p.finished for p in points], ""),
        ("runs failed", [p.failed for p in points], ""),
        ("at work", [p.running for p in points], ""),
        ("wait for a worker", [p.ready for p in points], ""),
        ("first start (p95)", [p.wait_s for p in points], " s"),
        ("run (p95)", [p.run_s for p in points], " s"),
        ("model (p95)", [p.model_s for p in points], " s"),
        ("cost", [p.cost_usd for p in points], " $"),
        ("requests", [p.requests for p in points], ""),
    ]
    for name, values, unit in rows:
        yield f"{name:<18} {bars(values, width=max(10, width - 50))}  highest {_highest(values):g}{unit}"


def bars(values: Sequence[float | None], *, width: int) -> str:
    """One character for each stretch; blank where nothing is known."""
    group = -(-len(values) // width)
    parts = [values[start : start + group] for start in range(0, len(values), group)]
    tops = [max((v for v in part if v is not None), default=None) for part in parts]
    top = max((value for value in tops if value is not None), default=0) or 1
    return "".join(" " if value is None else BARS[round(value / top * (len(BARS) - 1))] for value in tops)


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def age(milliseconds: float) -> str:
    """How long something has lasted, in its two largest units."""
    seconds = max(0, int(milliseconds / 1000))
    for length, unit, below, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // below} {part}"
    return f"{seconds} s"


def _highest(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _worker(worker: WorkerRecord) -> str:
    drained = f"  DRAINED by {worker.drained_by}" if worker.drained_by else "  stopping" if worker.draining else ""
    load = f"{worker.running} of {worker.concurrency} runs, lag {worker.loop_lag_ms:.0f} ms"
    return (
        f"worker    {worker.worker}{drained}  {load}, "
        f"{size(worker.memory_bytes)}, {worker.sandboxes} sandboxes {worker.sandbox}, "
        f"{size(worker.disk_free_bytes)} free, {_config(worker.config)}"
    )


def _config(config: ConfigState) -> str:
    restart = f", needs a restart: {', '.join(config.need_restart)}" if config.need_restart else ""
    problem = f", config.toml does not hold: {config.problem}" if config.problem else ""
    return f"configuration {config.hash}{restart}{problem}"


def _name(text: str) -> str:
    return one_line(text, 60)
