"""The events of a thread's log, and the previews that travel beside it.

An event is an immutable fact. Its id `<epoch_ms>-<seq>` and its time `at` (milliseconds since 1970, the
Redis server's clock) are given by the log when it is appended; a producer leaves both empty. Exactly one
terminal event closes a run. A delta is a preview: it is never stored, carries no id, and is superseded by
the finished event that names the same `item` or `call_id`.

On the wire every event travels as the SSE event `task_agent_execute`; `execute_type` keeps the reference
names (`tool_bash`, `assistant_response`, `flow_completion`, ...).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field
from pydantic_core import PydanticSerializationError, to_json

from workflow.core.ids import CallId, ItemId, RunId, ThreadId
from workflow.core.texts import sound_value


class Part(BaseModel):
    """A frozen piece of an event."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kept(Part):
    """One that is kept as long as its run lives, and does not remember which of its fields were given: pydantic's set
    of them takes twice the room of the values. Not to be dumped with `exclude_unset`.
    """

    def model_post_init(self, context: Any, /) -> None:
        object.__setattr__(self, "__pydantic_fields_set__", _NOT_REMEMBERED)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        copied.model_post_init(None)
        return copied


_NOT_REMEMBERED: set[str] = set()


class ToolCall(Part):
    """What the model asked for. `arguments` is valid JSON text: broken text is repaired or replaced first."""

    id: CallId
    name: str
    arguments: str = "{}"


class Usage(Kept):
    """Tokens and money of one or more model calls; the four token classes never overlap."""

    input_tokens: int = Field(0, ge=0, description="prompt tokens read neither from nor into a cache")
    cache_read_tokens: int = Field(0, ge=0)
    cache_write_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0, description="reasoning tokens included")
    cost_usd: float = Field(0.0, ge=0)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
        )

    @property
    def tokens(self) -> int:
        """All tokens, whatever their class."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens


class PlanStep(Part):
    id: str = Field(max_length=40)
    title: str = Field(max_length=300)
    status: Literal["pending", "in_progress", "done", "dropped"] = "pending"
    note: str = Field("", max_length=2000, description="evidence when done, the reason when dropped")


class Todo(Part):
    content: str = Field(max_length=500)
    status: Literal["pending", "in_progress", "completed", "cancelled"] = "pending"


class Effect(StrEnum):
    """What repeating a tool call would do after a worker died in the middle of it."""

    PURE = "pure"  # reads only: run again
    IDEMPOTENT = "idempotent"  # same result when run again: run again
    KEYED = "keyed"  # carries `run:turn:call` as its key, the receiver drops repeats: run again
    UNSAFE = "unsafe"  # nobody can tell: ask a person


class EventBase(Kept):
    """What every event carries. `id` and `at` are filled in by the log."""

    # A reader passes over fields of a newer writer, and over the computed `execute_type`.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = ""
    at: int = 0
    thread_id: ThreadId
    run_id: RunId | None = None
    turn: int = Field(0, ge=0, description="0 before the first model call of the run")

    terminal: ClassVar[bool] = False

    @property
    def wire_name(self) -> str:
        """The event's name in the reference protocol; by default its type with `_` for `.`."""
        kind: str = self.type  # type: ignore[attr-defined]  # each subclass declares its literal
        return kind.replace(".", "_")

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order of decorators
    @property
    def execute_type(self) -> str:
        """Same as `wire_name`; what the SSE field `execute_type` shows."""
        return self.wire_name


class RunQueued(EventBase):
    """A run was accepted. `task` is the person's request, word for word."""

    type: Literal["run.queued"] = "run.queued"
    task: str
    files: tuple[str, ...] = Field((), description="workspace paths that came with the task")
    model: str | None = None
    user: str = ""


class RunStarted(EventBase):
    type: Literal["run.started"] = "run.started"
    attempt: int = 1
    worker: str
    model: str
    sandbox: str = Field(description="provider and tier, e.g. `local/T1`")
    config_hash: str = Field("", description="of the configuration that the run is pinned to while this worker has it")


class RunResumed(EventBase):
    """Another worker took the run over and goes on after the last committed step."""

    type: Literal["run.resumed"] = "run.resumed"
    attempt: int
    reason: Literal["worker_lost", "released", "answered", "redis_lost"]
    worker: str
    config_hash: str = Field("", description="of the configuration that it goes on with")


class RunFinished(EventBase):
    type: Literal["run.finished"] = "run.finished"
    terminal: ClassVar[bool] = True
    summary: str = ""
    usage: Usage = Usage()

    @property
    def wire_name(self) -> str:
        return "flow_completion"


class RunFailed(EventBase):
    """The run ended without success. `reason` is a stable code, `detail` is for people."""

    type: Literal["run.failed"] = "run.failed"
    terminal: ClassVar[bool] = True
    reason: str
    detail: str
    summary: str = Field("", description="what is done so far, when the agent could still say it")
    usage: Usage = Usage()


class RunCancelled(EventBase):
    type: Literal["run.cancelled"] = "run.cancelled"
    terminal: ClassVar[bool] = True
    reason: str = "cancelled by the caller"
    usage: Usage = Usage()


class PlanUpdated(EventBase):
    type: Literal["plan.updated"] = "plan.updated"
    steps: tuple[PlanStep, ...]

    @property
    def wire_name(self) -> str:
        return "tool_job_plan"


class TodoUpdated(EventBase):
    type: Literal["todo.updated"] = "todo.updated"
    items: tuple[Todo, ...]

    @property
    def wire_name(self) -> str:
        return "tool_todo_write"


class Message(EventBase):
    """A finished message. `opaque` holds provider blocks (signed reasoning) that must go back unmodified."""

    type: Literal["message"] = "message"
    role: Literal["assistant", "user"] = "assistant"
    origin: Literal["model", "person", "agent"] = Field(
        "model", description="`agent`: a reminder that the agent itself put before the model"
    )
    item: ItemId
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    model: str = ""
    opaque: tuple[dict[str, Any], ...] = ()

    @property
    def wire_name(self) -> str:
        return {"model": "assistant_response", "person": "user_message", "agent": "reminder"}[self.origin]


class ToolCalled(EventBase):
    """The intent to run a tool: committed before it runs."""

    type: Literal["tool.call"] = "tool.call"
    call_id: CallId
    tool: str
    arguments: dict[str, Any]
    effect: Effect
    note: str = Field("", description="says when the arguments were repaired, or an attempt is repeated")

    @property
    def wire_name(self) -> str:
        return f"tool_{self.tool}"


class ToolResulted(EventBase):
    """What a tool gave back: `output` is what the model reads, `data` the typed result for programs."""

    type: Literal["tool.result"] = "tool.result"
    call_id: CallId
    tool: str
    ok: bool
    output: str
    data: dict[str, Any] = {}
    error: str = Field("", description="the typed tool error's kind, empty when ok")
    duration_ms: int = 0

    @property
    def wire_name(self) -> str:
        return f"tool_{self.tool}"


class FileChanged(EventBase):
    type: Literal["file.changed"] = "file.changed"
    path: str = Field(description="relative to the workspace")
    change: Literal["created", "modified", "deleted"]
    size: int = Field(0, ge=0, description="bytes after the change")
    sha256: str = ""
    diff: str = Field("", description="unified diff, cut at 20,000 characters")


class SandboxReady(EventBase):
    type: Literal["sandbox.ready"] = "sandbox.ready"
    provider: str
    tier: str
    network: str
    gaps: tuple[str, ...] = Field((), description="what this tier does not guarantee, in plain words")


class WorkspaceSaved(EventBase):
    """The workspace as it is now is remembered: `files?at=`, `diff`, `restore` and `fork` can go back to it."""

    type: Literal["workspace.saved"] = "workspace.saved"
    snapshot: str = Field(description="the sandbox's id of it")
    why: Literal["start", "turn", "before_restore", "restored", "forked"] = Field(
        description="`start`: before a run's first call that may change files; `turn`: after each turn with such calls"
    )
    of: str = Field("", description="restored, forked: id of the event whose files these are")
    source: str = Field("", description="forked: the thread that the files and the conversation come from")


class PreviewExposed(EventBase):
    type: Literal["preview.exposed"] = "preview.exposed"
    port: int
    url: str
    expires_at: int = Field(description="milliseconds since 1970")
    preview_id: str = Field("", description="names the link, for revoking it")

    @property
    def wire_name(self) -> str:
        return "tool_url_expose"


class ApprovalRequested(EventBase):
    """The run waits for a person. `kind` tells why; `choices` are the answers that are understood."""

    type: Literal["approval.requested"] = "approval.requested"
    question_id: str
    kind: Literal["approval", "review", "question"]
    prompt: str
    choices: tuple[str, ...] = ()
    call_id: CallId | None = None
    tool: str = ""
    arguments: dict[str, Any] = {}
    binding: str = Field("", description="hash of tool, arguments and policy that an approval is bound to")
    expires_at: int = Field(0, description="milliseconds since 1970; 0: does not expire")
    on_expiry: str = Field("", description="the answer that is given when nobody answers in time")


class ApprovalResolved(EventBase):
    type: Literal["approval.resolved"] = "approval.resolved"
    question_id: str
    answer: str
    by: str = Field("", description="user id, or `policy`")
    note: str = ""


class UsageUpdated(EventBase):
    """Money and tokens after a model call: of that call, of the run so far, and what is left."""

    type: Literal["usage"] = "usage"
    call: Usage
    run: Usage
    model: str
    left: dict[str, float] = Field(
        {},
        description="per budget that is set: `turns`, `tokens`, `usd`, `seconds` of the run; "
        "`thread_usd`, `tenant_usd_today` and the like of shared ones",
    )


class ContextCompacted(EventBase):
    type: Literal["context.compacted"] = "context.compacted"
    summary: str
    through: str = Field(description="id of the last event that the summary stands for")
    tokens_before: int
    tokens_after: int
    dropped: dict[str, int] = Field({}, description="how many of what was dropped, e.g. `tool_results: 12`")


class SuggestionsMade(EventBase):
    type: Literal["suggestions"] = "suggestions"
    items: tuple[str, ...]

    @property
    def wire_name(self) -> str:
        return "tool_suggest_next_steps"


class Notice(EventBase):
    """Something a watcher should know: a retry, a fallback model, a stuck warning, a broken plugin."""

    type: Literal["notice"] = "notice"
    code: str
    text: str


Event = Annotated[
    RunQueued
    | RunStarted
    | RunResumed
    | RunFinished
    | RunFailed
    | RunCancelled
    | PlanUpdated
    | TodoUpdated
    | Message
    | ToolCalled
    | ToolResulted
    | FileChanged
    | SandboxReady
    | WorkspaceSaved
    | PreviewExposed
    | ApprovalRequested
    | ApprovalResolved
    | UsageUpdated
    | ContextCompacted
    | SuggestionsMade
    | Notice,
    Field(discriminator="type"),
]

TERMINAL_TYPES = frozenset({"run.finished", "run.failed", "run.cancelled"})

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def encode(event: EventBase) -> bytes:
    """The event as JSON without `id` and `at`, which the log adds as it appends."""
    serializer = event.__pydantic_serializer__
    try:
        return serializer.to_json(event, exclude={"id", "at"})
    except PydanticSerializationError:  # half of a surrogate pair, which is rare enough not to be looked for
        return to_json(sound_value(serializer.to_python(event, mode="json", exclude={"id", "at"})))


def decode(payload: bytes | str) -> Event:
    """The event that a log entry holds. Raises: pydantic.ValidationError if it is none of ours."""
    return _EVENT.validate_json(payload)


def schema() -> dict[str, Any]:
    """JSON Schema of every event, as served at `/events/schema.json`."""
    return _EVENT.json_schema(mode="serialization")


class DeltaKind(StrEnum):
    TEXT = "text"
    REASONING = "reasoning"
    ARGUMENTS = "arguments"
    STDOUT = "stdout"
    STDERR = "stderr"


class Delta(Part):
    """A piece of something that grows. `offset` counts the Unicode code points that came before it."""

    type: Literal["delta"] = "delta"
    run_id: RunId
    turn: int
    item: str = Field(description="the message's item id, or the tool call's id for its output")
    kind: DeltaKind
    offset: int = Field(ge=0)
    text: str
