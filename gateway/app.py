"""The gateway as an ASGI application: put together here, opened and closed by its lifespan."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse

from gateway import errors
from gateway.middleware import Bodies, Edge
from gateway.ratelimit import check_routes
from gateway.routes import (
    desk,
    desk_actions,
    events,
    files,
    health,
    legacy,
    metrics,
    previews,
    questions,
    runs,
    session,
    stream,
    threads,
    versions,
    webhooks,
    ws,
)
from gateway.services import Services
from gateway.visits.layer import Visits
from gateway.visits.names import Names
from workflow.core.config import GatewaySettings, Settings
from workflow.core.config_load import Loaded
from workflow.core.errors import NotFound
from workflow.core.tracing import Tracing

_ROUTES = (
    health,
    metrics,
    session,
    threads,
    runs,
    questions,
    events,
    files,
    versions,
    previews,
    stream,
    webhooks,
    legacy,
    ws,
    desk,
    desk_actions,
)
_CONSOLE = Path(__file__).parent / "console"
_EXPOSED = ["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"]
_DESCRIPTION = """Run AI agents on tasks and watch every step.

Make a thread, execute a task in it, follow the stream: every event has an id, and a stream resumes exactly after
any of them. Failures are problem bodies (RFC 9457) with a stable `code`."""


def create_app(settings: Settings, loaded: Loaded | None = None) -> FastAPI:
    """The application. Raises: ConfigError for settings that cannot hold, before anything is served.

    loaded: where the settings came from; live keys follow that file. Without it they stay as they are.
    """
    services = Services.open(settings, loaded)
    app = FastAPI(
        title="Dialtone",
        version=version("dialtone"),
        description=_DESCRIPTION,
        lifespan=lambda _: _serving(services),
        redoc_url=None,
        telemetry=telemetry(services.tracing),
    )
    app.state.services = services
    errors.install(app)
    _add_routes(app)
    _add_layers(app, services, settings.gateway)
    document(app)
    if settings.limits.routes:  # else the document is made when somebody asks for it
        check_routes(settings.limits, app.openapi())
    return app


@asynccontextmanager
async def _serving(services: Services) -> AsyncIterator[None]:
    """What runs beside the requests, for as long as the application serves."""
    services.hub.start()
    beside = [
        asyncio.create_task(services.connections.watch(), name="pulse"),
        asyncio.create_task(services.reaper.serve(), name="reaper"),
        asyncio.create_task(services.expiry.serve(), name="expiry"),
        asyncio.create_task(services.figures.serve(), name="figures"),
        asyncio.create_task(services.presence.serve(), name="presence"),
        asyncio.create_task(services.follow_config(), name="config"),
    ]
    try:
        with on_stop_signal(services.hub.drain):
            yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await services.close()


def _add_routes(app: FastAPI) -> None:
    """The API, and the console's files below everything else."""
    for module in _ROUTES:
        app.include_router(module.router)
    app.add_api_route("/api/{rest:path}", _nothing_here, include_in_schema=False)
    if (_CONSOLE / "index.html").is_file():
        app.add_api_route("/desk", _desk, include_in_schema=False)
        app.frontend("/", directory=_CONSOLE, fallback=None)


def _add_layers(app: FastAPI, services: Services, gateway: GatewaySettings) -> None:
    """What a request passes on its way in; the last one added is the outermost."""
    app.add_middleware(Bodies, max_bytes=gateway.max_body_bytes, max_upload_bytes=gateway.max_upload_bytes)
    if gateway.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(gateway.cors_origins),
            # A page of any origin may call, but then without our cookie.
            allow_credentials="*" not in gateway.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "X-API-Key",
                "Content-Type",
                "Idempotency-Key",
                "Last-Event-ID",
                "X-Request-ID",
            ],
            expose_headers=_EXPOSED,
        )
    names = Names(gateway.preview_template, console=gateway.public_url)
    app.add_middleware(Visits, names=names, links=services.links, doors=services.doors, settings=gateway)
    app.add_middleware(Edge, counts=services.requests, frames=names.wildcard)


def telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """What FastAPI traces: one span a request. A stream's would last as long as its connection and say nothing."""
    config: TelemetryConfig = {"tracing": tracing is not None, "metrics": False, "logs": False}
    if tracing is not None:
        config |= {"tracer_provider": tracing.provider, "operation_spans": False, "exclude": _is_not_traced}
    return config


def _is_not_traced(scope: MutableMapping[str, Any]) -> bool:
    path: str = scope["path"]
    is_api = path.startswith("/api/") and not path.endswith(("/stream", "/ws"))
    return scope["type"] != "http" or not is_api


def document(app: FastAPI) -> None:
    """Adds the problem body to the OpenAPI document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = errors.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs", {}) | {"Problem": problem}
            for operation in (one for path in document["paths"].values() for one in path.values()):
                if "422" in operation["responses"]:
                    operation["responses"] |= errors.documented(422)
        return app.openapi_schema or document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


async def _desk() -> FileResponse:
    """The operator's desk."""
    return FileResponse(_CONSOLE / "desk.html")


async def _nothing_here(rest: str) -> None:
    """Keeps the console's files from answering for the API."""
    raise NotFound(f"there is no /api/{rest[:200]}")


@contextmanager
def on_stop_signal(act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` on the loop when SIGTERM or SIGINT arrives, before whoever handled the signal so far.

    A server waits for its streams to end before it runs the lifespan's shutdown, so that would be too late.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, previous)
