"""What a stream yields besides the events of the log: previews, and news about the stream itself."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dialtone.errors import ProtocolError, api_error
from dialtone.sse import SseMessage
from workflow.core.events import Delta, Event, EventBase, decode
from workflow.core.ids import RunId


class Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Waiting(Item):
    """A run has not started yet, or waits for a place for its sandbox."""

    type: Literal["waiting"] = "waiting"
    run_id: RunId | None = None
    position: int | None = Field(None, description="runs that will start before it")
    waiting_for: str = Field("", description="`worker`, `thread`, `quota`, `person`; empty once it started: it goes on")


class Gap(Item):
    """Events that are gone for good. `state` is everything they would have told, folded."""

    type: Literal["gap"] = "gap"
    first: str = Field("", alias="from", description="first id that is missing")
    last: str = Field("", alias="to", description="last id that is missing")
    state: dict[str, Any] | None = None


class Reset(Item):
    """The cursor belongs to another log: forget what was shown and start from `state` or from nothing."""

    type: Literal["reset"] = "reset"
    epoch: int | str | None = None
    state: dict[str, Any] | None = None


class UnknownEvent(EventBase):
    """A fact of a type that a newer gateway knows and this client does not; `fields` is the whole envelope."""

    type: str
    fields: dict[str, Any] = Field(default_factory=dict)


AnyEvent = Event | UnknownEvent
StreamItem = AnyEvent | Delta | Waiting | Gap | Reset


def read_event(envelope: bytes | str) -> AnyEvent:
    """The event that an envelope holds. Raises: ProtocolError if it is no envelope at all."""
    try:
        return decode(envelope)
    except ValidationError:
        fields = read_object(envelope)
    try:
        return UnknownEvent.model_validate({**fields, "fields": fields})
    except ValidationError as error:
        raise ProtocolError(f"not an event: {str(envelope)[:200]}") from error


def read_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises: ProtocolError if `text` is none."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {str(text)[:200]}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"not a JSON object: {str(text)[:200]}")
    return value


def read_message(message: SseMessage) -> StreamItem | None:
    """What a message of the stream says; None for a heartbeat and for what this client does not know.

    Raises: ApiError for an `error` message; ProtocolError for a body that cannot be read.
    """
    try:
        match message.event:
            case "task_agent_execute":
                return read_event(message.data) if message.id else _read_preview(message.data)
            case "waiting":
                return Waiting.model_validate_json(message.data)
            case "gap":
                return Gap.model_validate_json(message.data)
            case "reset":
                return Reset.model_validate_json(message.data)
            case "error":
                problem = read_object(message.data)
                status = problem.get("status")
                raise api_error(status if isinstance(status, int) else 500, message.data)
            case _:
                return None
    except ValidationError as error:
        raise ProtocolError(f"a `{message.event}` message cannot be read: {error}") from error


def _read_preview(text: str) -> Delta | None:
    """None for a kind of preview that this client does not know: the fact will say the same."""
    try:
        return Delta.model_validate_json(text)
    except ValidationError:
        return None


def write_item(item: StreamItem) -> str:
    """The item as one line of JSON, without the line's end. `read_event` reads back what is an event."""
    if isinstance(item, UnknownEvent):
        return json.dumps(item.fields, ensure_ascii=False)
    return item.model_dump_json(by_alias=True)


_ITEMS: dict[str, type[Delta | Waiting | Gap | Reset]] = {
    "delta": Delta,
    "waiting": Waiting,
    "gap": Gap,
    "reset": Reset,
}


def read_item(line: bytes | str) -> StreamItem:
    """What `write_item` wrote. Raises: ProtocolError if the line is no item."""
    kind = _ITEMS.get(str(read_object(line).get("type")))
    if kind is None:
        return read_event(line)
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError(f"not a {kind.__name__}: {str(line)[:200]}") from error
