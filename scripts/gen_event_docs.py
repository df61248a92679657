"""Writes docs/events.md from the event classes: `python -m scripts.gen_event_docs` (`--check` only compares)."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from gateway import frames
from gateway.frames import Frame
from gateway.routes.ws import Steer
from gateway.snapshot import state_json
from gateway.stream_schema import SYSTEM, stream_schema
from modem.stream import StreamId
from scripts.event_samples import OPENING, RUN, SAMPLES, problem
from workflow.core.events import Delta, Event, EventBase, decode, encode
from workflow.core.state import fold

FILE = Path(__file__).resolve().parents[1] / "docs" / "events.md"
COMMON = ("id", "at", "thread_id", "run_id", "turn", "type", "execute_type")
EPOCH = 1_790_000_000_000
_BY_TYPE: dict[str, Event] = {sample.type: sample for sample in SAMPLES}
_RUN = [_BY_TYPE[name] for name in ("run.queued", "run.started", "tool.call", "tool.result", "message", "run.finished")]


def main(argv: list[str] | None = None) -> int:
    """Writes or compares; 1 when the file is out of date."""
    text = render()
    if "--check" in (sys.argv[1:] if argv is None else argv):
        is_current = FILE.exists() and FILE.read_text(encoding="utf-8") == text
        if not is_current:
            print(f"{FILE} is out of date: python -m scripts.gen_event_docs", file=sys.stderr)
        return 0 if is_current else 1
    FILE.write_text(text, encoding="utf-8")
    return 0


def render() -> str:
    """The whole document."""
    defs = stream_schema()["$defs"]
    head = OPENING.format(**_told())
    parts = [head, "\n## Events of the log\n", _fields(defs["Notice"], only=COMMON[:-2])]
    for sample in SAMPLES:
        parts.append(_event(sample, defs))
    parts += ["\n## Previews\n", (Delta.__doc__ or "").strip(), "", _fields(defs["Delta"])]
    parts.append("\n## Words of the stream itself\n")
    for name, kind in SYSTEM.items():
        text = " ".join((kind.__doc__ or "").split())
        parts += [
            f"### `{name}`\n",
            text,
            "",
            _fields(defs[kind.__name__]) if defs[kind.__name__]["properties"] else "",
        ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _event(sample: Event, defs: dict[str, Any]) -> str:
    """One kind of event: what it means, its own fields, an example."""
    kind = type(sample)
    text = " ".join((kind.__doc__ or "").split()) if kind.__doc__ != EventBase.__doc__ else ""
    shown = f"{kind.model_fields['type'].default}"
    wire = sample.execute_type if not shown.startswith("tool.") else "tool_<name>"
    example = _json(_envelope(sample, 7))
    return "\n".join(
        [
            f"\n### `{shown}`\n",
            f"`execute_type`: `{wire}`{'. Ends its run.' if sample.terminal else ''}\n",
            *([text, ""] if text else []),
            _fields(defs[kind.__name__], without=COMMON),
            f"```json\n{example}\n```",
        ]
    )


def _envelope(event: Event, seq: int) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(encode(event))
    return {"id": f"{EPOCH}-{seq}", "at": EPOCH + 1000 * seq, **fields}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fields(definition: dict[str, Any], *, only: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> str:
    """A table of fields; empty when there are none to show."""
    rows = []
    required = definition.get("required", [])
    for name, field in definition["properties"].items():
        if name in without or (only and name not in only):
            continue
        default = "required" if name in required else f"`{json.dumps(field.get('default', None))}`"
        text = field.get("description", "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(field)} | {default} | {text} |")
    return "\n".join(["| field | type | default | |", "| --- | --- | --- | --- |", *rows, ""]) if rows else ""


def _type(field: dict[str, Any]) -> str:
    """A JSON Schema type in a few words."""
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " \\| ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if "anyOf" in field:
        return " \\| ".join(_type(one) for one in field["anyOf"])
    if "oneOf" in field:
        return " \\| ".join(_type(one) for one in field["oneOf"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"object of {_type(field['additionalProperties'])}"
    return str(field.get("type", "any"))


def streams() -> dict[str, list[Frame]]:
    """The example streams: a whole run; after a gap; over a WebSocket, resumed after the second event."""
    facts = [_frame(event, seq) for seq, event in enumerate(_RUN, start=1)]
    delta = b'{"type":"delta","run_id":"%b","turn":2,"item":"9f2c","kind":"text","offset":0,"text":"It says "}'
    preview = frames.preview(delta % RUN.encode())
    state = fold(decode(fact.data) for fact in facts[:4])
    gap = frames.gap(StreamId(EPOCH, 2), StreamId(EPOCH, 4), state_json(state))
    end = [frames.KEEP_ALIVE, frames.error(problem())]
    return {
        "stream": [frames.waiting(RUN, 0, "worker"), *facts[:4], preview, *facts[4:], *end],
        "gap": [gap, *facts[4:]],
        "socket": [*facts[2:4], preview, *facts[4:]],
    }


def _told() -> dict[str, str]:
    """The example streams as the gateway frames them."""
    told = {name: "".join(frame.sse.decode() for frame in shown).rstrip() for name, shown in streams().items()}
    command = Steer(command="steer", id="c1", run_id=RUN, text="One sentence is enough.")
    reply = Frame("reply", to_json({"id": command.id, "command": command.command, "result": None}))
    first, *rest = [f"← {frame.ws}" for frame in streams()["socket"]]
    return told | {"socket": "\n".join([first, f"→ {command.model_dump_json()}", f"← {reply.ws}", *rest])}


def _frame(event: Event, seq: int) -> Frame:
    return frames.fact(StreamId(EPOCH, seq), _json(_envelope(event, seq)).encode())


if __name__ == "__main__":
    sys.exit(main())
