"""What a process counts, by name and labels; `figures.py` carries it to Redis.

Every name is declared here: its labels are a closed set (never an id, a path or a text of a model), so the number
of series stays small whatever people do.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from workflow.core.events import ApprovalRequested, EventBase, Message, Notice, RunResumed, ToolResulted, UsageUpdated

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
UNKNOWN = "(unknown)"


@dataclass(frozen=True, slots=True)
class Figure:
    """One counter or histogram."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["counter", "histogram"] = "counter"
    always: tuple[tuple[str, ...], ...] = ()
    """Label values shown from the start: Prometheus does not see the first step of a counter that begins at 1."""


REQUESTS = Figure("dialtone_requests", "Requests answered by gateways.", ("method", "status"))
DELIVERED = Figure("dialtone_frames_delivered", "Frames handed to event streams.")
STREAMS_ENDED = Figure("dialtone_streams_ended", "Event streams that ended.", ("reason",), always=(("slow",),))
_REASONS = (
    *("internal", "worker_lost", "budget_exceeded", "stuck", "review_stop", "sandbox_failed", "sandbox_refused"),
    "workspace_damaged",
    *("model_failed", "model_overloaded", "model_refused", "context_overflow"),
)
RUNS_ENDED = Figure(
    "dialtone_runs_ended",
    "Runs that ended; `reason` says why one failed.",
    ("outcome", "reason"),
    always=(("finished", ""), ("cancelled", ""), *(("failed", reason) for reason in _REASONS)),
)
RUN_SECONDS = Figure("dialtone_run_seconds", "From a run's first start to its end.", (), "histogram")
WAIT_SECONDS = Figure("dialtone_run_wait_seconds", "From a task's arrival to its first start.", (), "histogram")
TAKEOVERS = Figure(
    "dialtone_takeovers",
    "Runs that went on elsewhere.",
    ("reason",),
    always=tuple((reason,) for reason in ("worker_lost", "released", "answered", "redis_lost")),
)
TURNS = Figure("dialtone_turns", "Answers of models that were taken into a run.")
MODEL_CALLS = Figure("dialtone_model_calls", "Calls of models.", ("model",))
MODEL_SECONDS = Figure("dialtone_model_seconds", "One answer, retries included.", ("model",), "histogram")
TOKENS = Figure("dialtone_model_tokens", "Tokens by class; the classes do not overlap.", ("model", "class"))
COST = Figure("dialtone_model_cost_usd", "US dollars, by the price table.", ("model",))
NOTICES = Figure(
    "dialtone_notices",
    "Retries, fallback models and other troubles of runs.",
    ("code",),
    always=tuple((code,) for code in ("model_retry", "model_fallback", "model_price_unknown", "compaction")),
)
TOOL_CALLS = Figure("dialtone_tool_calls", "Tool calls that came back.", ("tool", "outcome"))
TOOL_SECONDS = Figure("dialtone_tool_seconds", "Run time of one tool call.", ("tool",), "histogram")
QUESTIONS = Figure("dialtone_questions", "Questions to people.", ("kind",))
WEBHOOKS = Figure(
    "dialtone_webhook_attempts",
    "Deliveries tried: delivered, again (failed), dead.",
    ("outcome",),
    always=(("delivered",), ("again",), ("dead",)),
)

FIGURES = (
    *(REQUESTS, DELIVERED, STREAMS_ENDED, RUNS_ENDED, RUN_SECONDS, WAIT_SECONDS, TAKEOVERS, TURNS, MODEL_CALLS),
    *(MODEL_SECONDS, TOKENS, COST, NOTICES, TOOL_CALLS, TOOL_SECONDS, QUESTIONS, WEBHOOKS),
)

TENANT_COSTS = Figure("tenant_costs", "What a tenant's model calls took, by day.", ("tenant", "model", "unit"))
"""Beside the others: tenants are no closed set, so it is kept by day for the desk and never shown to Prometheus."""
CHARTED = frozenset(
    figure.name
    for figure in (REQUESTS, RUNS_ENDED, RUN_SECONDS, WAIT_SECONDS, TAKEOVERS, MODEL_CALLS, MODEL_SECONDS, TOKENS, COST)
)
"""Kept by the minute as well."""

Field = str
"""`<name>|<label value>|…|<part>`; the part is `le=<bound>` or `sum` for histograms, else empty."""


class Meter:
    """Counts of one process since they were last taken."""

    def __init__(self) -> None:
        self._counts: dict[Field, float] = {}

    def add(self, figure: Figure, *labels: str, amount: float = 1.0) -> None:
        """Counts `amount` more; `labels` in the order that `figure` declares them."""
        self._count(figure, labels, "", amount)

    def observe(self, figure: Figure, *labels: str, seconds: float) -> None:
        """Counts one duration."""
        place = bisect_left(SECONDS, seconds)
        self._count(figure, labels, f"le={SECONDS[place]:g}" if place < len(SECONDS) else "le=+Inf", 1.0)
        self._count(figure, labels, "sum", max(0.0, seconds))

    def take(self) -> dict[Field, float]:
        """Everything counted since the last call."""
        counts, self._counts = self._counts, {}
        return counts

    def saw(self, events: tuple[EventBase, ...], *, pause_s: float, tenant: str = "") -> None:
        """Counts what a worker committed. pause_s: since the run's last step, which for an answer is the model's time.
        tenant: who pays; empty: nobody is charged.

        The ends of runs are counted by whoever ends them: not all are committed by a worker.
        """
        for event in events:
            match event:
                case Message(role="assistant"):
                    self.add(TURNS)
                case UsageUpdated():
                    self._usage(event, pause_s)
                    if tenant:
                        self._charge(event, tenant)
                case ToolResulted():
                    tool = UNKNOWN if event.error == "unknown_tool" else event.tool
                    self.add(TOOL_CALLS, tool, "ok" if event.ok else "error")
                    self.observe(TOOL_SECONDS, tool, seconds=event.duration_ms / 1000)
                case RunResumed():
                    self.add(TAKEOVERS, event.reason)
                case ApprovalRequested():
                    self.add(QUESTIONS, event.kind)
                case Notice():
                    self.add(NOTICES, event.code)

    def ended(self, outcome: str, reason: str) -> None:
        """Counts the end of a run."""
        self.add(RUNS_ENDED, outcome, reason if outcome == "failed" else "")

    def _usage(self, event: UsageUpdated, pause_s: float) -> None:
        call = event.call
        self.add(MODEL_CALLS, event.model)
        self.observe(MODEL_SECONDS, event.model, seconds=pause_s)
        classes = {
            "input": call.input_tokens,
            "cache_read": call.cache_read_tokens,
            "cache_write": call.cache_write_tokens,
            "output": call.output_tokens,
        }
        for name, tokens in classes.items():
            self.add(TOKENS, event.model, name, amount=tokens)
        self.add(COST, event.model, amount=call.cost_usd)

    def _charge(self, event: UsageUpdated, tenant: str) -> None:
        call = event.call
        tokens = call.input_tokens + call.cache_read_tokens + call.cache_write_tokens + call.output_tokens
        for unit, amount in (("usd", call.cost_usd), ("tokens", tokens), ("calls", 1)):
            self.add(TENANT_COSTS, tenant, event.model, unit, amount=amount)

    def _count(self, figure: Figure, labels: tuple[str, ...], part: str, amount: float) -> None:
        assert len(labels) == len(figure.labels), figure.name
        field = "|".join((figure.name, *(label.replace("|", "_") for label in labels), part))
        self._counts[field] = self._counts.get(field, 0.0) + amount


def samples(figure: Figure, totals: Mapping[Field, float]) -> dict[tuple[str, ...], dict[str, float]]:
    """The totals of `figure`: label values → part → amount."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for field, amount in totals.items():
        name, *labels, part = field.split("|")
        if name == figure.name and len(labels) == len(figure.labels):
            found.setdefault(tuple(labels), {})[part] = amount
    return found
