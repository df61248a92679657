"""Traces over one run, from the HTTP request to each tool; nothing at all unless an endpoint is configured.

What runs under `continued` opens its spans with `span`; elsewhere `span` does nothing and costs nothing.
OpenTelemetry itself is spoken in `otel.py`, which is loaded only when tracing is switched on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from workflow.core import genai
from workflow.core.config import TelemetrySettings
from workflow.core.errors import DialtoneError, ToolError
from workflow.core.events import Usage

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]
Kind = Literal["internal", "client", "consumer"]


class Span(Protocol):
    """A piece of work that may be traced."""

    def set(self, attributes: Attributes) -> None:
        """Adds what became known: ids, names and numbers, never contents."""
        ...

    def fail(self, kind: str) -> None:
        """Marks the work as failed; `kind` is a stable code."""
        ...


class Tracing(Protocol):
    """A process's way to the collector of traces."""

    @property
    def provider(self) -> Any:
        """The OpenTelemetry provider, for libraries that trace by themselves."""
        ...

    def span(self, name: str, attributes: Attributes, *, kind: Kind) -> AbstractContextManager[Span]:
        """A child of the span in force, in force itself while the block runs."""
        ...

    def parent(self, traceparent: str) -> AbstractContextManager[None]:
        """Puts the span that `traceparent` names into force; none when it names none."""
        ...

    def traceparent(self) -> str:
        """The span in force as W3C Trace Context writes it; empty when there is none."""
        ...

    def close(self) -> None:
        """Sends what is left; may take seconds, so call it off the loop."""
        ...


class _Untraced:
    def set(self, attributes: Attributes) -> None:
        """Nobody listens."""

    def fail(self, kind: str) -> None:
        """Nobody listens."""


_UNTRACED = _Untraced()
_tracing: ContextVar[Tracing | None] = ContextVar("_tracing", default=None)


def open_tracing(settings: TelemetrySettings, *, component: str, env: str) -> Tracing | None:
    """None without an endpoint."""
    if not settings.otlp_endpoint:
        return None
    from workflow.core.otel import OtelTracing  # noqa: PLC0415  # 0.3 s of imports that most processes never need

    return OtelTracing.to(settings.otlp_endpoint, component=component, env=env)


@contextmanager
def continued(tracing: Tracing | None, traceparent: str) -> Iterator[None]:
    """The block's spans belong to the trace that `traceparent` names, or to a new one."""
    if tracing is None:
        yield
        return
    token = _tracing.set(tracing)
    try:
        with tracing.parent(traceparent):
            yield
    finally:
        _tracing.reset(token)


@contextmanager
def span(name: str, attributes: Attributes, *, kind: Kind = "internal") -> Iterator[Span]:
    """A span around the block. What the block raises is told by its code alone: its text may hold contents."""
    tracing = _tracing.get()
    if tracing is None:
        yield _UNTRACED
        return
    with tracing.span(name, attributes, kind=kind) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.fail(_code(error))
            raise


def usage_attributes(usage: Usage) -> dict[str, Value]:
    """Tokens and money."""
    return {
        genai.INPUT_TOKENS: usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        genai.CACHE_READ_TOKENS: usage.cache_read_tokens,
        genai.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        genai.OUTPUT_TOKENS: usage.output_tokens,
        genai.COST_USD: usage.cost_usd,
    }


def _code(error: BaseException) -> str:
    if isinstance(error, ToolError):
        return error.kind
    return error.code if isinstance(error, DialtoneError) else type(error).__name__
