"""Pieces of request and response bodies that several routes share."""

import json
import re
from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError, to_json

# Lone surrogates too: JSON can spell them, UTF-8 cannot.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_LINE_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# What the checks below say, for readers of the OpenAPI document.
_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
_SPOKEN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
_LINE = r"^[^\x00-\x1f\x7f]*$"
CURSOR_PATTERN = r"^(\d{1,20}-\d{1,20})?$"
"""For the OpenAPI document; the check itself is `modem.stream.parse_cursor`, whose answer is 400."""
MAX_METADATA_BYTES = 16_384


def _text(value: str) -> str:
    """Refuses control characters, of which a text needs only tab and line ends."""
    if found := _CONTROL.search(value):
        raise PydanticCustomError("control_character", "holds the control character {name}", {"name": repr(found[0])})
    return value


def _spoken(value: str) -> str:
    """Refuses a text that says nothing."""
    if not value.strip():
        raise PydanticCustomError("blank", "says nothing")
    return _text(value)


def is_one_line(value: str) -> bool:
    """True if `value` holds no control characters and could be written as UTF-8."""
    return _LINE_CONTROL.search(value) is None


def _line(value: str) -> str:
    if found := _LINE_CONTROL.search(value):
        raise PydanticCustomError("control_character", "holds the control character {name}", {"name": repr(found[0])})
    return value


def _small(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuses metadata that is large or cannot be written as JSON again (lone surrogates, infinities)."""
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as error:
        raise PydanticCustomError("not_json", "cannot be written as JSON") from error
    if size > MAX_METADATA_BYTES:
        raise PydanticCustomError("too_large", "is larger than {limit} bytes", {"limit": MAX_METADATA_BYTES})
    return value


Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"pattern": _TEXT})]
"""Any text without control characters other than tab and line ends."""
Spoken = Annotated[str, AfterValidator(_spoken), Field(min_length=1, json_schema_extra={"pattern": _SPOKEN})]
"""A text that is not blank."""
Line = Annotated[str, AfterValidator(_line), Field(json_schema_extra={"pattern": _LINE})]
"""A text of one line."""
Metadata = Annotated[
    dict[str, JsonValue],
    AfterValidator(_small),
    Field(description="any JSON values of yours, at most 16 KiB", examples=[{"ticket": "A-7"}]),
]

Limit = Annotated[int, Query(ge=1, le=200, description="at most this many items")]
Cursor = Annotated[str, Query(max_length=128, description="`next_cursor` of the page before")]


def event_query(description: str, **more: Any) -> Any:
    """A query parameter that holds an event's id, or nothing; `more` as for `Query`."""
    return Query(description=description, json_schema_extra={"pattern": CURSOR_PATTERN}, **more)


class Body(BaseModel):
    """What a client sends; unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def json_text(value: Any) -> bytes:
    """`value` as JSON bytes; models, dataclasses and times included."""
    return to_json(value)
