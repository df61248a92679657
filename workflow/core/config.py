"""Every knob an operator turns, as frozen settings; `config.toml` mirrors this file one to one.

`workflow/core/config_load.py` reads file and environment into `Settings`. Functions take the section they
need, never the whole, never a global. Secrets (type SecretStr) come from the environment or a 0600 file.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(Section):
    """`[redis]` — the log, the records and the broker."""

    url: str = Field("", description="redis://, rediss://, unix:// or sentinel://; empty starts the embedded server")
    embedded_port: int = Field(0, ge=0, le=65_535, description="0 uses a unix socket under the data folder")
    password: SecretStr | None = None
    sentinel_service: str = "mymaster"
    timeout_s: Seconds = Field(5.0, description="one command, connect included")
    max_connections: int = Field(32, ge=2, le=1000, description="per process, for commands")


class GatewaySettings(Section):
    """`[gateway]` — HTTP, SSE, WebSocket."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65_535)
    processes: int = Field(1, ge=1, le=64)
    public_url: str = Field("", description="how clients reach the gateway; empty: from the request")
    max_body_bytes: Bytes = 2_000_000
    max_upload_bytes: Bytes = 100_000_000
    max_task_chars: int = Field(200_000, ge=1)
    heartbeat_s: Annotated[float, Field(gt=0, le=15)] = 10.0
    stream_max_age_s: Seconds = 1800.0
    client_buffer_bytes: Bytes = Field(1_000_000, description="a slower client is closed; it resumes")
    retry_ms: int = Field(1000, ge=100, description="how long an EventSource waits before it reconnects")
    drain_s: Seconds = 8.0
    cors_origins: tuple[str, ...] = ()
    forwarded_allow_ips: tuple[str, ...] = ("127.0.0.1",)


class AuthSettings(Section):
    """`[auth]` — who may call."""

    mode: Literal["auto", "off", "on"] = Field("auto", description="auto: off on loopback, on elsewhere")
    keys_file: str = Field("", description="hashed API keys; empty: <data>/keys.json")
    jwt_algorithms: tuple[str, ...] = ()
    jwt_secret: SecretStr | None = None
    jwt_public_key: str = ""
    jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_types: tuple[str, ...] = Field(("JWT", "at+jwt"), description="accepted `typ` headers")
    jwt_max_age_s: Seconds = 86_400.0
    claim_tenant: str = "tenant"
    claim_user: str = "sub"
    claim_scopes: str = "scope"
    recheck_s: Annotated[float, Field(gt=0, le=60)] = 30.0
    ticket_ttl_s: Annotated[float, Field(gt=0, le=60)] = 60.0


class LimitSettings(Section):
    """`[limits]` — rates and quotas per tenant; 0 means no limit."""

    requests_per_minute: int = Field(600, ge=0)
    executes_per_minute: int = Field(120, ge=0)
    max_running_per_tenant: int = Field(50, ge=0)
    max_queued_per_tenant: int = Field(1000, ge=0)
    max_queued_per_thread: int = Field(50, ge=0)
    max_streams_per_tenant: int = Field(2000, ge=0)


class RunSettings(Section):
    """`[runs]` — how runs are owned, repeated and kept."""

    lease_s: Annotated[float, Field(ge=0.5, le=10)] = 6.0
    stale_queued_s: Seconds = Field(5.0, description="a queued run without a worker gets a new hint")
    reap_every_s: Seconds = 1.0
    max_attempts: int = Field(3, ge=1, le=20)
    busy_policy: Literal["enqueue", "reject", "interrupt", "steer"] = "enqueue"
    idempotency_ttl_s: Annotated[float, Field(ge=60)] = 86_400.0
    review_timeout_s: Annotated[float, Field(gt=0)] = 86_400.0
    review_on_expiry: Literal["stop", "retry", "done"] = "stop"
    keep_events: int = Field(100_000, ge=100, description="per thread; older ones are trimmed")
    keep_days: float = Field(30.0, gt=0, description="a thread without activity is deleted after this")


class WorkerSettings(Section):
    """`[worker]` — modem workers."""

    processes: int = Field(1, ge=1, le=64)
    concurrency: int = Field(200, ge=1, le=5000, description="runs at once per process")
    soft_shutdown_s: Seconds = 3.0
    loop_lag_alarm_ms: int = Field(100, ge=1)
    preview_ms: int = Field(40, ge=5, le=1000, description="deltas are gathered this long")


class PriceSettings(Section):
    """`[llm.prices."<model>"]` — US dollars per million tokens; overrides the shipped table."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    cache_read: float = Field(0.0, ge=0)
    cache_write: float = Field(0.0, ge=0)


class ModelSettings(Section):
    """`[llm.models.<name>]` — one named model."""

    model: str = Field(description="LiteLLM name, e.g. `anthropic/claude-sonnet-5-5`, or `scripted`")
    api_base: str = ""
    api_key_env: str = Field(
        "", description="the environment variable that holds the key; empty: the provider's usual one"
    )
    driver: Literal["auto", "litellm", "direct", "scripted"] = "auto"
    max_output_tokens: int = Field(16_000, ge=1)
    context_tokens: int = Field(200_000, ge=1000)
    temperature: float | None = Field(None, ge=0, le=2)
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    fallbacks: tuple[str, ...] = Field((), description="names of other models, tried in order")
    vision: bool = True


class LlmSettings(Section):
    """`[llm]` — models, retries, timeouts."""

    default: str = Field("auto", description="a name below, or auto: the first that has a key or server, else scripted")
    summaries: str = Field("", description="model for compaction; empty: the run's own")
    planning: str = Field("", description="model for the first turn; empty: the run's own")
    timeout_s: Seconds = 600.0
    idle_timeout_s: Seconds = 90.0
    max_retries: int = Field(4, ge=0, le=20)
    retry_base_s: Annotated[float, Field(ge=0)] = 1.0
    retry_max_s: Seconds = 60.0
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    prices: dict[str, PriceSettings] = Field(default_factory=dict)


class AgentSettings(Section):
    """`[agent]` — the loop and its budgets; 0 means no limit."""

    max_turns: int = Field(100, ge=1)
    max_tokens: int = Field(5_000_000, ge=0)
    max_usd: float = Field(5.0, ge=0)
    max_seconds: float = Field(3600.0, ge=0)
    thread_max_usd: float = Field(0.0, ge=0)
    tenant_max_usd_per_day: float = Field(0.0, ge=0)
    max_parallel_calls: int = Field(10, ge=1, le=50)
    compact_at: float = Field(0.8, gt=0.1, lt=1, description="share of the context window that starts compaction")
    keep_recent: float = Field(0.3, gt=0, lt=1, description="share of the window kept word for word")
    stuck_repeats: int = Field(4, ge=2)
    stuck_errors: int = Field(3, ge=2)
    instructions_file: str = Field("AGENTS.md", description="project instructions in the workspace")
    prompt_file: str = Field("", description="replaces the shipped role prompt")
    approvals: dict[str, Literal["always", "never", "ask", "risk"]] = Field(
        default_factory=dict, description="per tool: `always` allowed, `never`, `ask` a person, `risk`: ask when risky"
    )
    approval_timeout_s: Annotated[float, Field(gt=0)] = 3600.0


class ToolSettings(Section):
    """`[tools]` — which tools there are and how much they may show."""

    disabled: tuple[str, ...] = ()
    plugin_folder: str = ""
    template_folder: str = ""
    output_chars: int = Field(30_000, ge=1000, description="longer outputs are kept in a file, head and tail shown")
    bash_timeout_s: Seconds = 120.0
    bash_max_timeout_s: Seconds = 1800.0
    search_provider: Literal["", "tavily", "exa", "brave", "searxng"] = ""
    searxng_url: str = ""
    fetch_max_bytes: Bytes = 5_000_000
    fetch_timeout_s: Seconds = 20.0
    fetch_allow_private: bool = Field(
        False, description="lets web_fetch reach private addresses; for tests and intranets"
    )


class SandboxSettings(Section):
    """`[sandbox]` — where commands run."""

    provider: Literal["local", "e2b", "daytona"] = "local"
    mode: Literal["auto", "T1", "T1b", "T2", "unsafe_host"] = Field(
        "auto", description="auto: the strongest tier that holds; unsafe_host: none at all"
    )
    network: Literal["off", "allowlist", "open"] = "off"
    allow_hosts: tuple[str, ...] = ()
    allow_registries: bool = False
    memory_bytes: Bytes = 2_000_000_000
    processes: int = Field(256, ge=8)
    cpus: float = Field(2.0, gt=0)
    disk_bytes: Bytes = 2_000_000_000
    files: int = Field(200_000, ge=100)
    output_bytes: Bytes = Field(20_000_000, description="one command may print this much before it is killed")
    idle_s: Seconds = 300.0
    max_live: int = Field(500, ge=1)
    max_live_per_tenant: int = Field(0, ge=0)
    archive_after_days: float = Field(7.0, gt=0)
    workspaces_bytes: Bytes = Field(50_000_000_000, description="disk budget of all workspaces together")
    template: str = Field("", description="E2B template or Daytona snapshot")
    api_url: str = ""
    api_key_env: str = ""
    remote_timeout_s: Seconds = 300.0


class WebhookSettings(Section):
    """`[webhooks]` — notices to other servers."""

    enabled: bool = True
    secret: SecretStr | None = None
    timeout_s: Seconds = 15.0
    max_attempts: int = Field(8, ge=1)
    allow_private: bool = False


class LogSettings(Section):
    """`[log]`"""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "color", "json"] = Field("auto", description="auto: colours on a terminal, JSON elsewhere")


class TelemetrySettings(Section):
    """`[telemetry]`"""

    metrics: bool = True
    otlp_endpoint: str = ""
    sentry_dsn: SecretStr | None = None


class Settings(Section):
    """The whole of config.toml."""

    env: Literal["local", "dev", "prod"] = "local"
    data_dir: str = Field("var", description="embedded Redis, workspaces, logs; relative to the project folder")
    redis: RedisSettings = RedisSettings()
    gateway: GatewaySettings = GatewaySettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    runs: RunSettings = RunSettings()
    worker: WorkerSettings = WorkerSettings()
    llm: LlmSettings = LlmSettings()
    agent: AgentSettings = AgentSettings()
    tools: ToolSettings = ToolSettings()
    sandbox: SandboxSettings = SandboxSettings()
    webhooks: WebhookSettings = WebhookSettings()
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
