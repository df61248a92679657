"""What happened already: events as log lines, exported as JSON Lines, replayed from a file."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

from dialtone.errors import ProtocolError
from dialtone.items import AnyEvent, StreamItem, read_item
from dialtone.lines import call_title
from dialtone.text import one_line

_SAYS = ("summary", "text", "task", "detail", "prompt", "output", "path", "reason", "answer", "url", "worker")
"""The field that says most about an event, in this order."""


def log_line(event: AnyEvent, *, width: int) -> str:
    """E.g. `2026-11-21 12:00:01.250Z 1763726400000-7 tool.call bash: pytest -q`."""
    moment = datetime.fromtimestamp(event.at / 1000, UTC)
    head = f"{moment:%Y-%m-%d %H:%M:%S}.{event.at % 1000:03}Z {event.id} {one_line(event.type, 40)}"
    tool = getattr(event, "tool", "")
    if tool:
        head += f" {one_line(tool, 40)}"
    arguments = getattr(event, "arguments", None)
    fields = (getattr(event, name, "") for name in _SAYS)
    says = next((value for value in fields if isinstance(value, str) and value), "")
    text = call_title(arguments, width) if arguments and event.type == "tool.call" else one_line(says, width)
    return f"{head}: {text}" if text else head


def read_items(lines: TextIO) -> Iterator[StreamItem]:
    """The items of an exported run. Raises: ProtocolError with the line's number."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == 1 and line.startswith('{"type":"cassette"'):
            raise ProtocolError("this is a cassette, not a run's events: play it with ./run.sh replay")
        try:
            yield read_item(line)
        except ProtocolError as error:
            raise ProtocolError(f"line {number}: {error}") from error


def export_line(envelope: dict[str, object]) -> str:
    """One event as it is stored, as one line with its end."""
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")) + "\n"
