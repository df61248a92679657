"""`GET /metrics`: figures of the whole installation for Prometheus, as they are when it asks.

Every gateway process shows the same, so Prometheus asks any one of them; see docs/decisions/0005.
"""

from fastapi import APIRouter, Request, Response

from gateway.auth import is_loopback
from gateway.deps import ServicesDep
from gateway.errors import documented
from modem.figures import ProcessFigures, Snapshot, look
from workflow.core.errors import Forbidden, NotFound, Unavailable

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
    is_up = True
    try:
        await held.figures.reporter.report()
        seen = await look(held.connections)
    except Unavailable:
        is_up = False
        seen = Snapshot(processes=[ProcessFigures(held.figures.process, "gateway", held.figures.gauges())])
    # Here and not above: prometheus_client takes 1.3 MB of every gateway, and not every one is asked.
    from gateway import exposition  # noqa: PLC0415

    return Response(exposition.text(seen, is_up=is_up), media_type=exposition.MEDIA_TYPE)
