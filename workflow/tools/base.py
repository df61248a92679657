"""What a tool is: typed arguments, a typed result, one function.

class LsArgs(ToolArgs): path: str = "."
class Ls(Tool[LsArgs]):
    name = "ls"; effect = Effect.PURE; description = "..."
    async def run(self, args: LsArgs, context: ToolContext) -> ToolOutput: ...
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from workflow.core.config import ToolSettings
from workflow.core.events import Effect, EventBase
from workflow.core.ids import CallId, RunId, ThreadId
from workflow.core.state import ThreadState
from workflow.llm.base import Image
from workflow.sandboxes.base import Sandbox


class ToolArgs(BaseModel):
    """Base of every tool's arguments. Field descriptions become the model's documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")


A = TypeVar("A", bound=ToolArgs)


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool gives back."""

    text: str
    """What the model reads; never empty (say "no matches", "empty file")."""
    data: dict[str, Any] = field(default_factory=dict)
    """The typed result for programs and the console; JSON values, at most about 20 kB."""
    events: tuple[EventBase, ...] = ()
    """Facts for the log besides the result, e.g. FileChanged, PlanUpdated. Made by `context.event(...)`."""
    images: tuple[Image, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    """Path → sha256 of file contents the model has now seen whole or in part (for stale checks)."""
    ok: bool = True
    """False for a result that is a failure in itself, e.g. a command with a non-zero status."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may use. Everything it learns about the thread comes from `state`, a fold of the log."""

    thread_id: ThreadId
    run_id: RunId
    turn: int
    call_id: CallId
    sandbox: Sandbox
    state: ThreadState
    settings: ToolSettings
    emit_output: Callable[[str, bytes], Awaitable[None] | None]
    """Shows (`stdout` | `stderr`, chunk) to live watchers while the tool runs."""
    lock: Callable[[str], Any]
    """`async with context.lock(resolved_path):` — one writer per file, within the worker."""
    services: dict[str, Any] = field(default_factory=dict)
    """Named extras handed in by the composition root (`http`, `previews`); see `runner/build.py`."""

    def event(self, kind: type[EventBase], **fields: Any) -> EventBase:
        """An event of this run and turn."""
        return kind(thread_id=self.thread_id, run_id=self.run_id, turn=self.turn, **fields)

    @property
    def effect_key(self) -> str:
        """The idempotency key of this call: the same after a takeover."""
        return f"{self.run_id}:{self.turn}:{self.call_id}"


class Tool(ABC, Generic[A]):
    """One thing the agent can do. Stateless: one instance serves every run of the process."""

    name: ClassVar[str]
    description: str
    """What the model is told; a tool whose text depends on settings sets it in `__init__`."""
    effect: ClassVar[Effect]
    changes_files: ClassVar[bool] = True
    """False for a tool that has an effect, but never on the workspace."""
    args_type: ClassVar[type[ToolArgs]]
    """Filled in from the type argument."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            arguments: Sequence[Any] = getattr(base, "__args__", ())
            if arguments and isinstance(arguments[0], type) and issubclass(arguments[0], ToolArgs):
                cls.args_type = arguments[0]

    def resources(self, args: A) -> frozenset[str]:
        """What the call writes to or depends on exclusively; calls that share one run one after the other.

        E.g. `file:src/a.py`, `shell`. Empty: may run beside anything.
        """
        return frozenset()

    def effect_of(self, args: A) -> Effect:
        """The effect class of this very call; by default the tool's."""
        return self.effect

    @abstractmethod
    async def run(self, args: A, context: ToolContext) -> ToolOutput:
        """Does it. Raises: ToolError with a kind and what to do instead."""
