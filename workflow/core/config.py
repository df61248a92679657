"""Every knob an operator turns, as frozen settings; `config.toml` mirrors this file one to one.

`workflow/core/config_load.py` reads file and environment into `Settings`. Functions take the section they
need, never the whole, never a global. Secrets (type SecretStr) come from the environment or a 0600 file.
"""

import base64
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=0)]


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        raise PydanticCustomError("host_name", "a host name and nothing else, like api.example.org")
    return value.lower()


def _hosts(value: str) -> str:
    return "*." + _host(value[2:]) if value.startswith("*.") else _host(value)


Host = Annotated[str, AfterValidator(_host)]
Hosts = Annotated[str, AfterValidator(_hosts)]
"""One host, or with `*.` in front all below it."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(Section):
    """`[redis]` — the log, the records and the broker."""

    url: str = Field("", description="redis://, rediss://, unix:// or sentinel://; empty starts the embedded server")
    embedded_port: int = Field(0, ge=0, le=65_535, description="0 uses a unix socket under the data folder")
    password: SecretStr | None = Field(None, description="for an external server that asks for one")
    sentinel_service: str = Field("mymaster", description="name of the master that the sentinels watch")
    timeout_s: Seconds = Field(5.0, description="one command, connect included")
    stall_s: Seconds = Field(
        0.5, description="a gateway answers 503 while Redis leaves a PING unanswered for longer than this"
    )
    max_connections: int = Field(32, ge=2, le=1000, description="per process, for commands")


class GatewaySettings(Section):
    """`[gateway]` — HTTP, SSE, WebSocket."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all, which turns callers' checks on")
    port: int = Field(8080, ge=1, le=65_535, description="port to listen on")
    processes: int = Field(1, ge=1, le=64, description="gateway processes on this port, each with its own event loop")
    public_url: str = Field("", description="how clients reach the gateway; empty: from the request")
    preview_url: str = Field(
        "",
        pattern=r"^(https?://\{id\}(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[0-9]{1,5})?)?$",
        description="where links to servers in a sandbox lead, e.g. https://{id}.preview.example.net; "
        "empty: http://{id}.localhost at `port`",
    )
    max_body_bytes: Bytes = Field(2_000_000, description="larger JSON bodies are refused with 413")
    max_upload_bytes: Bytes = Field(100_000_000, description="larger file uploads are refused with 413")
    max_task_chars: int = Field(200_000, ge=1, description="longer task texts are refused with 413")
    heartbeat_s: Annotated[float, Field(gt=0, le=15)] = Field(
        10.0, description="a stream without events sends keep_alive this often"
    )
    stream_max_age_s: Seconds = Field(
        1800.0, description="a stream is closed after this, with jitter; the client resumes"
    )
    client_buffer_bytes: Bytes = Field(1_000_000, description="a slower client is closed; it resumes")
    retry_ms: int = Field(1000, ge=100, description="how long an EventSource waits before it reconnects")
    drain_s: Seconds = Field(8.0, description="how long a stopping gateway waits for requests under way")
    cors_origins: tuple[str, ...] = Field(
        (), description="other origins whose pages may call, e.g. https://app.example.org"
    )
    forwarded_allow_ips: tuple[str, ...] = Field(
        ("127.0.0.1",), description="proxies whose X-Forwarded-* headers are believed"
    )

    @property
    def preview_template(self) -> str:
        """The address of a preview, `{id}` standing for its secret."""
        return self.preview_url or f"http://{{id}}.localhost:{self.port}"


class AuthSettings(Section):
    """`[auth]` — who may call."""

    mode: Literal["auto", "off", "on"] = Field("auto", description="auto: off on loopback, on elsewhere")
    keys_file: str = Field("", description="hashed API keys; empty: <data>/keys.json")
    jwt_algorithms: tuple[str, ...] = Field(
        (), description="accepted signatures, e.g. HS256 or EdDSA; empty refuses every token"
    )
    jwt_secret: SecretStr | None = Field(None, description="key of HS* signatures, at least 32 bytes")
    jwt_public_key: str = Field("", description="PEM text or file of the key that checks RS*, ES* and EdDSA signatures")
    jwks_url: str = Field("", description="where to fetch the public keys instead")
    jwt_issuer: str = Field("", description="required `iss` claim")
    jwt_audience: str = Field("", description="required `aud` claim")
    jwt_types: tuple[str, ...] = Field(("JWT", "at+jwt"), description="accepted `typ` headers")
    jwt_max_age_s: Seconds = Field(86_400.0, description="a token issued longer ago is refused, whatever its `exp`")
    claim_tenant: str = Field("tenant", description="claim that names the tenant")
    claim_user: str = Field("sub", description="claim that names the user")
    claim_scopes: str = Field("scope", description="claim that lists the scopes")
    # A check waits for the next heartbeat, at most 15 s, and must come within a minute all the same.
    recheck_s: Annotated[float, Field(gt=0, le=45)] = Field(
        30.0, description="an open stream checks its caller again this often"
    )
    ticket_ttl_s: Annotated[float, Field(gt=0, le=60)] = Field(
        60.0, description="life of a stream ticket, which is good for one connection"
    )


class LimitSettings(Section):
    """`[limits]` — rates and quotas per tenant; 0 means no limit."""

    requests_per_minute: int = Field(600, ge=0, description="requests of any kind")
    executes_per_minute: int = Field(120, ge=0, description="new runs")
    max_running_per_tenant: int = Field(50, ge=0, description="runs at once; more wait their turn")
    max_queued_per_tenant: int = Field(1000, ge=0, description="waiting runs; more are refused with 429")
    max_queued_per_thread: int = Field(50, ge=0, description="waiting runs of one thread; more are refused with 429")
    max_streams_per_tenant: int = Field(2000, ge=0, description="open event streams; more are refused with 429")
    routes: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="requests per minute of single routes, on top of the rates above"
    )


class RunSettings(Section):
    """`[runs]` — how runs are owned, repeated and kept."""

    lease_s: Annotated[float, Field(ge=0.5, le=10)] = Field(
        6.0, description="a worker that is silent this long loses its run to another"
    )
    stale_queued_s: Seconds = Field(5.0, description="a queued run without a worker gets a new hint")
    reap_every_s: Seconds = Field(1.0, description="how often lost and stale runs are looked for")
    max_attempts: int = Field(3, ge=1, le=20, description="a run that lost its worker this often has failed")
    busy_policy: Literal["enqueue", "reject", "interrupt", "steer"] = Field(
        "enqueue", description="what an execute does while the thread has a run, unless the request says"
    )
    idempotency_ttl_s: Annotated[float, Field(ge=60)] = Field(
        86_400.0, description="how long an Idempotency-Key is remembered"
    )
    review_timeout_s: Annotated[float, Field(gt=0)] = Field(
        86_400.0, description="how long a run waits for a person to judge a call that may have happened"
    )
    review_on_expiry: Literal["stop", "retry", "done"] = Field(
        "stop", description="what is done with that call when nobody answered"
    )
    keep_events: int = Field(100_000, ge=100, description="per thread; older ones are trimmed")
    keep_event_days: float = Field(
        0.0, ge=0, description="older events are trimmed when a run of their thread ends; 0: whatever their age"
    )
    keep_days: float = Field(30.0, gt=0, description="a thread without activity is deleted after this")


class WorkerSettings(Section):
    """`[worker]` — modem workers."""

    processes: int = Field(1, ge=1, le=64, description="worker processes on this host")
    concurrency: int = Field(200, ge=1, le=5000, description="runs at once per process")
    soft_shutdown_s: Seconds = Field(3.0, description="how long a stopping worker lets runs reach their next step")
    visibility_timeout_s: Seconds = Field(86_400.0, description="the broker repeats a hint after this; harmless")
    loop_lag_alarm_ms: int = Field(100, ge=1, description="a busier event loop is logged as a warning")
    preview_ms: int = Field(40, ge=5, le=1000, description="deltas are gathered this long")
    door_host: str = Field(
        "127.0.0.1", description="where gateways reach servers in this host's sandboxes; 0.0.0.0 for other hosts"
    )
    door_port: int = Field(0, ge=0, le=65_535, description="0: any free port; else `processes` has to be 1")


class PriceSettings(Section):
    """`[llm.prices."<model>"]` — US dollars per million tokens; overrides the shipped table."""

    input: float = Field(0.0, ge=0, description="fresh input tokens")
    output: float = Field(0.0, ge=0, description="output tokens, reasoning included")
    cache_read: float = Field(0.0, ge=0, description="input tokens read from the provider's cache")
    cache_write: float = Field(0.0, ge=0, description="input tokens written to it")


class ModelSettings(Section):
    """`[llm.models.<name>]` — one named model."""

    model: str = Field(description="LiteLLM name, e.g. `anthropic/claude-sonnet-5-5`, or `scripted`")
    api_base: str = Field("", description="address of an OpenAI-compatible server; empty: the provider's own")
    api_key_env: str = Field(
        "", description="the environment variable that holds the key; empty: the provider's usual one"
    )
    driver: Literal["auto", "litellm", "direct", "scripted"] = Field(
        "auto", description="auto: direct where it can, else litellm"
    )
    max_output_tokens: int = Field(16_000, ge=1, description="longest answer of one turn")
    context_tokens: int = Field(200_000, ge=1000, description="size of the model's context window")
    temperature: float | None = Field(None, ge=0, le=2, description="unset: the provider's default")
    reasoning_effort: Literal["low", "medium", "high"] | None = Field(None, description="unset: the provider's default")
    fallbacks: tuple[str, ...] = Field((), description="names of other models, tried in order")
    vision: bool = Field(True, description="whether the model reads images")


class LlmSettings(Section):
    """`[llm]` — models, retries, timeouts."""

    default: str = Field("auto", description="a name below, or auto: the first that has a key or server, else scripted")
    summaries: str = Field("", description="model for compaction; empty: the run's own")
    planning: str = Field("", description="model for the first turn; empty: the run's own")
    timeout_s: Seconds = Field(600.0, description="one answer, from request to last token")
    idle_timeout_s: Seconds = Field(90.0, description="an answer that stands still this long is cut and tried again")
    max_retries: int = Field(4, ge=0, le=20, description="further tries after overload, stall or a cut stream")
    retry_base_s: Annotated[float, Field(ge=0)] = Field(
        1.0, description="wait before the first retry; doubles, with jitter"
    )
    retry_max_s: Seconds = Field(
        60.0, description="longest wait between tries; a longer Retry-After goes to a fallback"
    )
    models: dict[str, ModelSettings] = Field(default_factory=dict, description="named models")
    prices: dict[str, PriceSettings] = Field(default_factory=dict, description="prices by LiteLLM model name")


class AgentSettings(Section):
    """`[agent]` — the loop and its budgets; 0 means no limit."""

    max_turns: int = Field(100, ge=1, description="turns of one run")
    max_tokens: int = Field(5_000_000, ge=0, description="tokens of one run, all classes together")
    max_usd: float = Field(5.0, ge=0, description="US dollars of one run")
    max_seconds: float = Field(3600.0, ge=0, description="seconds of one run, waiting for people not counted")
    thread_max_turns: int = Field(0, ge=0, description="turns of all runs of one thread")
    thread_max_tokens: int = Field(0, ge=0, description="tokens of all runs of one thread")
    thread_max_usd: float = Field(0.0, ge=0, description="US dollars of one thread")
    thread_max_seconds: float = Field(0.0, ge=0, description="seconds at work of all runs of one thread")
    tenant_max_turns_per_day: int = Field(0, ge=0, description="turns of one tenant per UTC day")
    tenant_max_tokens_per_day: int = Field(0, ge=0, description="tokens of one tenant per UTC day")
    tenant_max_usd_per_day: float = Field(0.0, ge=0, description="US dollars of one tenant per UTC day")
    tenant_max_seconds_per_day: float = Field(0.0, ge=0, description="seconds at work of one tenant per UTC day")
    max_parallel_calls: int = Field(10, ge=1, le=50, description="tool calls of one turn that run at once")
    compact_at: float = Field(0.8, gt=0.1, lt=1, description="share of the context window that starts compaction")
    keep_recent: float = Field(0.3, gt=0, lt=1, description="share of the window kept word for word")
    stuck_repeats: int = Field(4, ge=2, description="the same call this often in a row is a circle")
    stuck_errors: int = Field(3, ge=2, description="the same error this often in a row is a circle")
    instructions_file: str = Field("AGENTS.md", description="project instructions in the workspace")
    prompt_file: str = Field("", description="replaces the shipped role prompt")
    approvals: dict[str, Literal["always", "never", "ask", "risk"]] = Field(
        default_factory=dict, description="per tool: `always` allowed, `never`, `ask` a person, `risk`: ask when risky"
    )
    approval_timeout_s: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="an unanswered question counts as no after this"
    )


class ToolSettings(Section):
    """`[tools]` — which tools there are and how much they may show."""

    disabled: tuple[str, ...] = Field((), description="tools that no agent gets, e.g. web_search")
    plugin_folder: str = Field("", description="a folder of Python files with further tools")
    template_folder: str = Field("", description="a folder of project templates for use_template")
    output_chars: int = Field(30_000, ge=1000, description="longer outputs are kept in a file, head and tail shown")
    bash_timeout_s: Seconds = Field(120.0, description="a command that does not say otherwise is stopped after this")
    bash_max_timeout_s: Seconds = Field(1800.0, description="the longest time a command may ask for")
    search_provider: Literal["", "tavily", "exa", "brave", "searxng"] = Field(
        "", description="who answers web_search; empty: the first that has a key"
    )
    searxng_url: str = Field("", description="address of a SearXNG server")
    fetch_max_bytes: Bytes = Field(5_000_000, description="larger pages are cut")
    fetch_timeout_s: Seconds = Field(20.0, description="one page, redirects included")
    fetch_allow_private: bool = Field(
        False, description="lets web_fetch reach private addresses; for tests and intranets"
    )


class SandboxSettings(Section):
    """`[sandbox]` — where commands run."""

    provider: Literal["local", "e2b", "daytona"] = Field(
        "local", description="local: on this host; e2b and daytona: their clouds"
    )
    mode: Literal["auto", "T1", "T1b", "T2", "unsafe_host"] = Field(
        "auto", description="auto: the strongest tier that holds; unsafe_host: none at all"
    )
    network: Literal["off", "allowlist", "open"] = Field(
        "off", description="what commands may reach; allowlist: the hosts below"
    )
    allow_hosts: tuple[Hosts, ...] = Field((), description="host names, `*.example.org` for all below one")
    allow_registries: bool = Field(
        False, description="adds the package registries of Python, Node, Rust, Go and Debian"
    )
    # Within what kernels take: less memory starts no Python, less of a core is no quota, more is no number for them.
    memory_bytes: int = Field(2_000_000_000, ge=16_000_000, le=10**15, description="per sandbox")
    processes: int = Field(256, ge=8, le=1 << 22, description="per sandbox")
    cpus: float = Field(2.0, ge=0.01, le=10_000, description="per sandbox, in cores")
    disk_bytes: int = Field(2_000_000_000, ge=1_000_000, le=10**15, description="size of one workspace")
    files: int = Field(200_000, ge=100, description="files in one workspace")
    output_bytes: Bytes = Field(20_000_000, description="one command may print this much before it is killed")
    idle_s: Seconds = Field(300.0, description="an unused sandbox is put away after this; its files stay")
    max_live: int = Field(500, ge=1, description="sandboxes at once on this host")
    max_live_per_tenant: int = Field(0, ge=0, description="of one tenant, over all workers; 0 means no limit")
    tenant_memory_bytes: int = Field(
        0, ge=0, description="of one tenant's live sandboxes, each counted with its limit; 0 means no limit"
    )
    tenant_cpus: float = Field(0.0, ge=0, description="likewise in cores; 0 means no limit")
    tenant_disk_bytes: int = Field(
        0,
        ge=0,
        description="one tenant's workspaces together; with more no command, upload or fork starts; 0: no limit",
    )
    tenant_wait_s: float = Field(
        60.0, ge=0, description="a sandbox beyond its tenant's limits waits so long for a place; 0: for idle ones only"
    )
    archive_after_days: float = Field(7.0, gt=0, description="an unused workspace is packed after this")
    workspaces_bytes: Bytes = Field(50_000_000_000, description="disk budget of all workspaces together")
    template: str = Field("", description="E2B template or Daytona snapshot")
    api_url: str = Field("", description="another address of the E2B or Daytona service")
    api_key_env: str = Field(
        "", description="the environment variable that holds its key; empty: the provider's usual one"
    )
    remote_timeout_s: Seconds = Field(300.0, description="one call to the remote service")
    label: str = Field(
        "dialtone",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="marks this deployment's sandboxes there; deployments with one account need different ones",
    )
    credentials: dict[Host, str] = Field(
        default_factory=dict,
        description="per allowed host: the environment variable with the Authorization header its requests get",
    )

    @field_validator("tenant_memory_bytes", "tenant_cpus")
    @classmethod
    def _holds_one(cls, value: float, info: ValidationInfo) -> float:
        one = info.data.get(str(info.field_name).removeprefix("tenant_"), 0)
        if 0 < value < one:
            raise PydanticCustomError("too_little", "0 or what one sandbox may use, {one}", {"one": f"{one:.10g}"})
        return value


class WebhookSettings(Section):
    """`[webhooks]` — notices to other servers."""

    enabled: bool = Field(True, description="whether execute accepts `webhook`")
    secret: SecretStr | None = Field(
        None, description="signs every notice (Standard Webhooks), `whsec_…`; two while you change it"
    )
    timeout_s: Seconds = Field(15.0, description="one delivery")
    max_attempts: int = Field(8, ge=1, le=50, description="deliveries tried before a notice is put aside")
    waits_s: tuple[Seconds, ...] = Field(
        (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21_600.0),
        min_length=1,
        description="pauses between tries, the last one repeated; with jitter",
    )
    allow_private: bool = Field(False, description="lets notices go to private addresses")

    @field_validator("secret")
    @classmethod
    def _holds_keys(cls, secret: SecretStr | None) -> SecretStr | None:
        """The library that signs would take any text for a key, however short."""
        if secret is not None and not all(map(_is_signing_key, secret.get_secret_value().split(" "))):
            raise PydanticCustomError("signing_key", "`whsec_` and 24 to 64 random bytes in Base64")
        return secret


def _is_signing_key(text: str) -> bool:
    body = text.removeprefix("whsec_")
    try:
        return 24 <= len(base64.b64decode(body + "=" * (-len(body) % 4), validate=True)) <= 64
    except ValueError:
        return False


class LogSettings(Section):
    """`[log]`"""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe record that is written"
    )
    format: Literal["auto", "color", "json"] = Field("auto", description="auto: colours on a terminal, JSON elsewhere")


class TelemetrySettings(Section):
    """`[telemetry]`"""

    metrics: bool = Field(True, description="serve Prometheus metrics at /metrics")
    otlp_endpoint: str = Field("", description="where OpenTelemetry traces go (OTLP over HTTP); empty: nowhere")
    sentry_dsn: SecretStr | None = Field(None, description="where errors are reported; empty: nowhere")


class Settings(Section):
    """The whole of config.toml."""

    env: Literal["local", "dev", "prod"] = Field("local", description="where this runs; shown in logs and traces")
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
