"""A snapshot of all figures in the text format that Prometheus reads."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from modem.figures import Snapshot
from modem.meter import FIGURES, SECONDS, Figure, samples

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COMPONENTS = ("gateway", "worker")
GAUGES = {
    "dialtone_streams": "Open event streams.",
    "dialtone_feeds": "Threads that are followed.",
    "dialtone_hub_lag_seconds": "Worst time from an event's append to its arrival at a gateway, last 15 to 30 s.",
    "dialtone_loop_lag_seconds": "Worst delay of the event loop in the last second.",
    "dialtone_memory_bytes": "Resident memory.",
    "dialtone_runs_running": "Runs that a worker holds.",
    "dialtone_runs_capacity": "Runs that a worker can hold; 0 while it drains.",
    "dialtone_sandboxes": "Live sandboxes of a worker.",
}
"""Of one process, with the labels `component` and `process`."""
SHARED = {
    "dialtone_runs_ready": "Runs that wait for a worker.",
    "dialtone_runs_ready_oldest_seconds": "How long the first of them has waited.",
    "dialtone_runs_open": "Runs that have not ended, those that wait for a person or their thread included.",
    "dialtone_webhooks_pending": "Notices that are still to be delivered.",
    "dialtone_webhooks_dead": "Notices that were given up.",
    "dialtone_redis_memory_bytes": "Memory that Redis uses.",
    "dialtone_redis_memory_limit_bytes": "Memory that Redis may use; 0 without a limit.",
}


def text(seen: Snapshot, *, is_up: bool) -> bytes:
    """What `/metrics` answers. is_up: whether Redis answers; without it `seen` holds this process alone."""
    registry = CollectorRegistry()
    registry.register(_Families(seen, is_up=is_up))
    return generate_latest(registry)


class _Families(Collector):
    """A snapshot as metric families; without Redis only of this process."""

    def __init__(self, seen: Snapshot, *, is_up: bool) -> None:
        self._seen = seen
        self._is_up = is_up

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("dialtone_redis_up", "Whether Redis answers.", int(self._is_up))
        for name, text in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=["component", "process"])
            for one in self._seen.processes:
                if name in one.gauges:
                    family.add_metric([one.component, one.process], one.gauges[name])
            yield family
        if not self._is_up:
            return
        alive = GaugeMetricFamily("dialtone_processes", "Processes that live.", labels=["component"])
        for component in COMPONENTS:
            alive.add_metric([component], sum(one.component == component for one in self._seen.processes))
        yield alive
        for name, text in SHARED.items():
            yield GaugeMetricFamily(name, text, self._seen.shared[name])
        for figure in FIGURES:
            yield _histogram(figure, self._seen) if figure.kind == "histogram" else _counter(figure, self._seen)


def _counter(figure: Figure, seen: Snapshot) -> Metric:
    family = CounterMetricFamily(figure.name, figure.help, labels=list(figure.labels))
    found = {labels: {"": 0.0} for labels in figure.always or (() if figure.labels else ((),))}
    found |= samples(figure, seen.totals)
    for labels, parts in sorted(found.items()):
        family.add_metric(list(labels), parts.get("", 0.0))
    return family


def _histogram(figure: Figure, seen: Snapshot) -> Metric:
    family = HistogramMetricFamily(figure.name, figure.help, labels=list(figure.labels))
    for labels, parts in sorted(samples(figure, seen.totals).items()):
        buckets, below = [], 0.0
        for bound in (*(f"{bound:g}" for bound in SECONDS), "+Inf"):
            below += parts.get(f"le={bound}", 0.0)
            buckets.append((bound, below))
        family.add_metric(list(labels), buckets=buckets, sum_value=parts.get("sum", 0.0))
    return family
