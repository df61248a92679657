"""The records beside the log: threads, runs, callers, workers. All frozen, all safe to show to their owner."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from workflow.core.events import Kept, Usage
from workflow.core.ids import RunId, TenantId, ThreadId, UserId

RunStatus = Literal["queued", "running", "waiting", "finished", "failed", "cancelled"]
TERMINAL_STATUSES = frozenset({"finished", "failed", "cancelled"})
BusyPolicy = Literal["enqueue", "reject", "interrupt", "steer"]
Scope = Literal["read", "write", "operator"]


class Record(Kept):
    model_config = ConfigDict(extra="ignore")


class Caller(Record):
    """Who asks: tenant, user and what they may do."""

    tenant: TenantId
    user: UserId
    scopes: frozenset[str] = frozenset({"read", "write"})
    credential: str = Field("", description="which key or token, for logs and re-checks; never the secret")


class Budgets(Record):
    """Limits of one run; None takes the configured one. A caller can lower limits, never raise them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    turns: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    usd: float | None = Field(None, gt=0)
    seconds: float | None = Field(None, gt=0)


ModelName = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ModelChoice(Record):
    """Models beside the one that takes the turns; None takes the thread's, then the configured one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    planning: ModelName | None = Field(None, description="takes a run's first turn")
    summaries: ModelName | None = Field(None, description="writes the notes that make room in a full context")


class ThreadRecord(Record):
    """A conversation with an ordered log. Times are milliseconds since 1970."""

    thread_id: ThreadId
    tenant: TenantId
    user: UserId
    title: str = ""
    created_at: int
    updated_at: int
    model: str | None = None
    models: ModelChoice = ModelChoice()
    active_run: RunId | None = None
    queued_runs: int = 0
    last_status: str = Field("", description="status of the newest run")
    last_id: str = Field("", description="id of the newest event")
    metadata: dict[str, Any] = Field({})
    webhook: str = Field("", description="told of runs that name no webhook of their own")


class RunOptions(Record):
    """What a caller chose for a run."""

    model: str | None = None
    models: ModelChoice = ModelChoice()
    budgets: Budgets = Budgets()
    files: tuple[str, ...] = ()
    webhook: str = ""

    def within(self, thread: ThreadRecord) -> "RunOptions":
        """The same with the thread's models where none were chosen."""
        models = ModelChoice(
            planning=self.models.planning or thread.models.planning,
            summaries=self.models.summaries or thread.models.summaries,
        )
        return self.model_copy(update={"model": self.model or thread.model, "models": models})


class RunRecord(Record):
    """One execution of one request. Times are milliseconds since 1970, 0 when not reached."""

    run_id: RunId
    thread_id: ThreadId
    tenant: TenantId
    user: UserId
    status: RunStatus
    task: str
    options: RunOptions = RunOptions()
    position: int | None = Field(None, description="runs that will start before this one; None once started")
    waiting_for: str = Field(
        "", description="why it waits: `worker`, `thread`, `person`, `quota` (of runs; of sandboxes while it runs)"
    )
    attempt: int = 0
    max_attempts: int = 3
    cancel_requested: bool = False
    owner: str = Field("", description="the worker that holds the lease")
    lease_until: int = 0
    reason: str = ""
    detail: str = ""
    created_at: int = 0
    started_at: int = 0
    ended_at: int = 0
    turn: int = 0
    usage: Usage = Usage()
    sandbox: str = ""
    config_hash: str = Field("", description="of the configuration that it runs with, `./run.sh config print`")
    trace: str = Field("", description="W3C traceparent of the request that made it; empty without tracing")

    @property
    def waits(self) -> bool:
        """True while it is queued, and while its worker cannot go on with it."""
        return self.status == "queued" or (self.status == "running" and self.waiting_for != "")


class ConfigState(Record):
    """Which configuration a process works with."""

    hash: str = ""
    need_restart: tuple[str, ...] = Field((), description="keys whose saved value takes effect after a restart only")
    problem: str = Field("", description="why the saved config.toml was not taken; the last one that held is in force")
    answered: int = Field(0, description="number of the newest reload that it has answered")


class GatewayRecord(Record):
    """What a gateway process says of itself every second; gone when it stays silent for 10 s."""

    gateway: str
    host: str
    pid: int
    version: str
    streams: int = 0
    loop_lag_ms: float = 0.0
    memory_bytes: int = 0
    started_at: int = 0
    config: ConfigState = ConfigState()


class PreviewLink(Record):
    """A link to one port of a thread's sandbox; whoever has its address may visit. Times are ms since 1970."""

    id: str = Field(description="names the link; not its secret")
    thread_id: ThreadId
    run_id: RunId
    tenant: TenantId
    port: int
    url: str
    created_at: int
    expires_at: int
    worker: str = Field("", description="the worker whose sandbox had the server when the link was made")


class WorkerRecord(Record):
    """What a worker process says of itself every second; gone when it stays silent for 10 s."""

    worker: str
    host: str
    pid: int
    version: str
    model: str
    sandbox: str
    sandbox_gaps: tuple[str, ...] = ()
    concurrency: int
    running: int
    draining: bool = Field(False, description="it takes no more runs: it is stopping, or an operator drains it")
    drained_by: str = Field("", description="the operator who drains it; empty when it stops by itself")
    loop_lag_ms: float = 0.0
    memory_bytes: int = 0
    sandboxes: int = Field(0, description="live sandboxes")
    disk_free_bytes: int = Field(0, description="of the file system that holds its workspaces")
    disk_bytes: int = 0
    door: str = Field("", description="`host:port` where gateways reach ports inside its sandboxes; empty: nowhere")
    started_at: int = 0
    config: ConfigState = ConfigState()
