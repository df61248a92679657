"""JSON Schema of everything that a stream can say, by the name of its SSE event."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.errors import Problem
from gateway.frames import BUSINESS
from workflow.core.events import Delta, schema
from workflow.core.ids import RunId
from workflow.core.state import ThreadState

_REF = "#/$defs/{model}"


class Waiting(BaseModel):
    """A run has not started yet, or waits for a place for its sandbox.

    Sent when a reader joins and with every heartbeat until it starts, and at once when it begins and ends to wait for
    a place.
    """

    run_id: RunId
    position: int | None = Field(description="runs that start before it; null while nobody knows")
    waiting_for: Literal["", "worker", "thread", "quota", "person"] = Field(
        description="what it waits for; empty once it started: it goes on"
    )


class KeepAlive(BaseModel):
    """The connection lives. Sent when nothing else was, at least every 15 s. An empty object."""


class Gap(BaseModel):
    """Events that the reader has not seen are gone for good. Every event after `to` follows, one by one."""

    from_: str = Field(alias="from", description="id of the first event that is missing")
    to: str = Field(description="id of the last event that is missing; also the id of this message")
    state: ThreadState = Field(description="the thread as of `to`, as far as it is kept: replace what you have by it")


class Reset(BaseModel):
    """The reader's last id belongs to no event of this log, which may have lost its end or be another one."""

    epoch: int = Field(description="first half of the ids from now on")
    state: ThreadState = Field(description="the thread as of this message's id: forget what you have and take this")


SYSTEM: dict[str, type[BaseModel]] = {
    "waiting": Waiting,
    "keep_alive": KeepAlive,
    "gap": Gap,
    "reset": Reset,
    "error": Problem,
}
"""What a stream says beside the events of the log, by SSE event name."""


def stream_schema() -> dict[str, Any]:
    """A schema that every event of a log fits; `x-stream` has one for each SSE event name."""
    document = schema()
    defs: dict[str, Any] = document["$defs"]
    stream: dict[str, Any] = {BUSINESS: {"oneOf": [*document["oneOf"], {"$ref": "#/$defs/Delta"}]}}
    kinds: dict[str, type[BaseModel]] = {"": Delta, **SYSTEM}
    for name, kind in kinds.items():
        made = kind.model_json_schema(mode="serialization", ref_template=_REF)
        defs |= made.pop("$defs", {}) | {kind.__name__: made}
        if name:
            stream[name] = {"$ref": f"#/$defs/{kind.__name__}"}
    return document | {"$schema": "https://json-schema.org/draft/2020-12/schema", "x-stream": stream}
