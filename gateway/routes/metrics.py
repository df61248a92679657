"""`GET /metrics`: figures of this process for Prometheus, taken when they are asked for.

Each process has its own: gauges that several processes share would go on counting the dead ones.
"""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.auth import is_loopback
from gateway.deps import ServicesDep
from gateway.errors import documented
from gateway.services import Services
from modem.workers import workers
from workflow.core.errors import Forbidden, NotFound, Unavailable
from workflow.core.records import WorkerRecord

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses=documented(401, 403, 404, 503))
async def metrics(request: Request, held: ServicesDep) -> Response:
    """Prometheus text. For this machine, or for callers with the scope `operator`."""
    if not held.settings.telemetry.metrics:
        raise NotFound("metrics are switched off: telemetry.metrics")
    client = request.client
    if client is None or not is_loopback(client.host):
        caller = await held.auth.caller(request)
        if "operator" not in caller.scopes:
            raise Forbidden("the credential lacks the scope `operator`", scope="operator")
    try:
        alive = await workers(held.connections)
    except Unavailable:
        alive = None
    registry = CollectorRegistry()
    registry.register(_Figures(held, alive))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Figures(Collector):
    """One look at the process and at the workers; None when Redis does not answer."""

    def __init__(self, held: Services, alive: list[WorkerRecord] | None) -> None:
        self._held = held
        self._alive = alive

    def collect(self) -> Iterator[Metric]:
        hub = self._held.hub
        yield GaugeMetricFamily("dialtone_streams", "Open event streams.", hub.streams)
        yield GaugeMetricFamily("dialtone_feeds", "Threads that are followed.", hub.feeds)
        yield CounterMetricFamily("dialtone_frames_delivered", "Frames handed to streams.", hub.delivered)
        ended = CounterMetricFamily("dialtone_streams_ended", "Streams that ended.", labels=["reason"])
        for reason, count in sorted(hub.closed.items()):
            ended.add_metric([reason], count)
        yield ended
        requests = CounterMetricFamily("dialtone_requests", "Requests answered.", labels=["method", "status"])
        for (method, status), count in sorted(self._held.requests.items()):
            requests.add_metric([method, str(status)], count)
        yield requests
        yield GaugeMetricFamily("dialtone_redis_up", "Whether Redis answers.", int(self._alive is not None))
        yield from self._workers(self._alive or [])

    def _workers(self, alive: list[WorkerRecord]) -> Iterator[Metric]:
        yield GaugeMetricFamily("dialtone_workers", "Worker processes that live.", len(alive))
        running = sum(worker.running for worker in alive)
        yield GaugeMetricFamily("dialtone_runs_running", "Runs that workers hold.", running)
        capacity = sum(worker.concurrency for worker in alive)
        yield GaugeMetricFamily("dialtone_runs_capacity", "Runs that workers can hold.", capacity)
        lag = max((worker.loop_lag_ms for worker in alive), default=0.0) / 1000
        yield GaugeMetricFamily("dialtone_worker_loop_lag_seconds", "Worst event loop lag of a worker.", lag)
