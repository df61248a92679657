"""What the gateway answers to operators."""

from pydantic import Field

from dialtone.results import Result
from workflow.core.ids import RunId
from workflow.core.records import ConfigState, GatewayRecord, RunRecord, WorkerRecord


class RunCounts(Result):
    open: int = 0
    ready: int = 0
    oldest_ready_s: float = 0.0
    queued: int = 0
    running: int = 0
    waiting: int = 0
    set_apart: int = 0


class TenantQueue(Result):
    tenant: str
    queued: int = 0
    running: int = 0
    waiting: int = 0


class RedisState(Result):
    version: str = ""
    memory_bytes: int = 0
    limit_bytes: int = 0
    clients: int = 0
    commands_per_s: int = 0
    keys: int = 0
    persists: bool = True


class Overview(Result):
    """How the installation stands."""

    at: int = 0
    runs: RunCounts = RunCounts()
    tenants: tuple[TenantQueue, ...] = ()
    hints: int = 0
    webhooks_due: int = 0
    webhooks_dead: int = 0
    blocked_tenants: int = 0
    workers: tuple[WorkerRecord, ...] = ()
    gateways: tuple[GatewayRecord, ...] = ()
    redis: RedisState = RedisState()


class OpenRun(Result):
    """A run that has not ended. `why`: why it waits, in words."""

    run: RunRecord
    why: str = ""
    trouble: tuple[str, ...] = ()
    last_event_at: int = 0


class OpenRunPage(Result):
    items: tuple[OpenRun, ...] = ()
    next_cursor: str | None = None


class Point(Result):
    """One stretch of the history; `wait_s`, `run_s`, `model_s` are 95th percentiles."""

    at: int
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    requests: int = 0
    server_errors: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    wait_s: float | None = None
    run_s: float | None = None
    model_s: float | None = None
    running: float | None = None
    ready: float | None = None
    redis_bytes: float | None = None


class History(Result):
    items: tuple[Point, ...] = ()
    step_ms: int = 60_000


class Cost(Result):
    tenant: str
    model: str
    usd: float = 0.0
    tokens: int = 0
    calls: int = 0


class CostPage(Result):
    items: tuple[Cost, ...] = ()
    total_usd: float = 0.0
    next_cursor: str | None = None


class DeadNotice(Result):
    id: str
    tenant: str = ""
    type: str = ""
    run_id: str = ""
    url: str = ""
    attempts: int = 0
    result: str = ""
    died_at: int = 0


class DeadNoticePage(Result):
    items: tuple[DeadNotice, ...] = ()
    next_cursor: str | None = None


class Block(Result):
    tenant: str
    by: str = ""
    at: int = 0
    reason: str = ""


class BlockPage(Result):
    items: tuple[Block, ...] = ()


class CancelledMany(Result):
    """What came of the wish to end runs. `next_cursor`: more fit, `desk.cancel(…, cursor=next_cursor)` goes on."""

    run_ids: tuple[RunId, ...] = ()
    ended: tuple[RunId, ...] = Field((), description="had ended already")
    unknown: tuple[RunId, ...] = ()
    reason: str = ""
    next_cursor: str | None = None


class Blocked(Result):
    block: Block
    cancelled: CancelledMany = CancelledMany()


class Reloaded(Result):
    """What a process made of the configuration."""

    process: str
    kind: str = ""
    answered: bool = Field(False, description="false: it did not say in time that it has read it")
    config: ConfigState = ConfigState()


class ReloadPage(Result):
    items: tuple[Reloaded, ...] = ()
