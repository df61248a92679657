"""Traces by OpenTelemetry. Loaded by `tracing.open_tracing` alone.

What is not configured here comes from OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_HEADERS (keys of a hosted
collector), OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from urllib.parse import urlsplit

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from workflow.core import genai
from workflow.core.tracing import Attributes, Kind

EXPORT_TIMEOUT_S = 5
"""One export; also how long a stopping process waits for its last one."""
EXPORT_EVERY_MS = 1000


class OtelSpan:
    """One span."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        self._span.set_attribute(genai.ERROR, kind)
        self._span.set_status(Status(StatusCode.ERROR))


class OtelTracing:
    """Implements `tracing.Tracing`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dialtone", version("dialtone"))
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str, *, component: str, env: str) -> "OtelTracing":
        """Sends to `endpoint` by OTLP over HTTP, from a thread of its own."""
        resource = Resource.create(
            {
                "service.name": f"dialtone-{component}",
                "service.version": version("dialtone"),
                "deployment.environment.name": env,
            }
        )
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=EXPORT_TIMEOUT_S)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_EVERY_MS))
        return cls(provider)

    @property
    def provider(self) -> TracerProvider:
        return self._provider

    @contextmanager
    def span(self, name: str, attributes: Attributes, *, kind: Kind) -> Iterator[OtelSpan]:
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind[kind.upper()],
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as opened:
            yield OtelSpan(opened)

    @contextmanager
    def parent(self, traceparent: str) -> Iterator[None]:
        token = context.attach(self._propagator.extract({"traceparent": traceparent}, context.Context()))
        try:
            yield
        finally:
            context.detach(token)

    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent", "")

    def close(self) -> None:
        self._provider.force_flush(EXPORT_TIMEOUT_S * 1000)
        self._provider.shutdown()


def traces_url(endpoint: str) -> str:
    """Where traces go: OTLP over HTTP names a base address, to which each signal adds its path."""
    return endpoint if urlsplit(endpoint).path.endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
