"""A collector of traces (OTLP over HTTP) and of error reports (Sentry's envelopes), in a thread of the test."""

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    status: int
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Listens on a free port of loopback while it is open."""

    spans: list[Seen] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """Everything that came, unpacked."""

    def __enter__(self) -> Self:
        self._came = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._take))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self._server.server_port}/1"

    def wait(self, look: Callable[[], bool], *, timeout_s: float = 15, what: str = "it") -> None:
        """Returns as soon as `look` holds."""
        with self._came:
            assert self._came.wait_for(look, timeout=timeout_s), f"waited {timeout_s} s for {what}"

    def _take(self, path: str, body: bytes) -> None:
        with self._came:
            self.bodies.append(body)
            if path.endswith("/v1/traces"):
                self.spans += _spans(body)
            elif path.endswith("/envelope/"):
                lines = body.split(b"\n")
                self.reports += [
                    json.loads(payload)
                    for header, payload in zip(lines[1::2], lines[2::2], strict=False)
                    if json.loads(header)["type"] == "event"
                ]
            self._came.notify_all()


def _handler(take: Callable[[str, bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler


def _spans(body: bytes) -> list[Seen]:
    found = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = next(a.value.string_value for a in group.resource.attributes if a.key == "service.name")
        for scope in group.scope_spans:
            for span in scope.spans:
                found.append(
                    Seen(
                        name=span.name,
                        service=service,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        kind=span.kind,
                        status=span.status.code,
                        attributes={a.key: _value(a.value) for a in span.attributes},
                    )
                )
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
