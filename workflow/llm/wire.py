"""What a wire format is: how a request is written and how the events of its stream are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from workflow.llm.base import ModelEvent, ModelRequest
from workflow.llm.pieces import Pieces


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model is reached."""

    model: str
    """Its name on the wire, e.g. `claude-sonnet-5-5`."""
    base_url: str
    api_key: str = ""
    proxy: str = ""
    """An http proxy to go through; may hold a password."""

    def __repr__(self) -> str:
        return f"Target(model={self.model!r}, base_url={self.base_url!r})"


class Reader(Protocol):
    """Reads one stream. `pieces` is what has arrived so far."""

    pieces: Pieces
    done: bool
    """True once the answer is complete: everything after it is noise."""

    def feed(self, payload: dict[str, Any]) -> list[ModelEvent]:
        """What one event adds. Raises: the ModelError that an error event stands for."""
        ...

    def end(self) -> None:
        """Called once after the last event, before `pieces.completion()`."""
        ...


class Wire(Protocol):
    """A wire format, e.g. OpenAI's chat completions."""

    def url(self, target: Target) -> str: ...

    def headers(self, target: Target) -> dict[str, str]: ...

    def body(self, request: ModelRequest, target: Target) -> dict[str, Any]: ...

    def reader(self, request: ModelRequest, redact: Callable[[str], str]) -> Reader: ...
