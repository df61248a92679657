"""The parts of docs/tools.md that the code knows itself. `python -m tests.tools.document` writes them anew."""

import re
from pathlib import Path
from typing import Any

from workflow.core.config import ToolSettings
from workflow.core.events import Effect
from workflow.tools.build import build_registry

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"
REGISTRY, _ = build_registry(ToolSettings(), environ={})
_VARIABLE_EFFECTS = {"bash": "keyed; unsafe with a network", "use_template": "pure to list; idempotent to apply"}
"""Tools whose effect class depends on arguments or settings; `test_document.py` checks them."""


def blocks() -> dict[str, str]:
    """What stands between `<!-- begin NAME -->` and `<!-- end -->`, by name."""
    found = {"tools": _overview()}
    for spec in REGISTRY.specs():
        found[spec.name] = _arguments(spec.parameters)
    return found


def updated(page: str) -> str:
    """`page` with every block as the code has it. Raises: KeyError for a block that nobody makes."""
    made = blocks()
    return re.sub(
        r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}",
        page,
        flags=re.DOTALL,
    )


def effect(name: str) -> str:
    """The effect class as the documentation names it."""
    tool = REGISTRY.get(name)
    assert isinstance(tool.effect, Effect)
    return _VARIABLE_EFFECTS.get(name, tool.effect.value)


def _overview() -> str:
    rows = ["| tool | effect | what it does |", "|---|---|---|"]
    for spec in REGISTRY.specs():
        rows.append(f"| [`{spec.name}`](#{spec.name}) | {effect(spec.name)} | {_first_sentence(spec.description)} |")
    return "\n".join(rows)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;:]) ", text, maxsplit=1)[0].rstrip(";:.") + "."


def _arguments(schema: dict[str, Any]) -> str:
    if not schema["properties"]:
        return "No arguments."
    rows = ["| argument | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *_rows(schema, "")])


def _rows(schema: dict[str, Any], prefix: str) -> list[str]:
    rows: list[str] = []
    required = schema.get("required", ())
    for name, part in schema["properties"].items():
        default = "needed" if name in required else f"`{part['default']}`" if "default" in part else ""
        meaning = part.get("description", "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {_type(part)} | {default} | {meaning} |")
        items = part.get("items", {})
        if "properties" in items:
            rows += _rows(items, f"{prefix}{name}[].")
    return rows


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    kind = str(part.get("type", "value"))
    if kind == "array":
        kind = f"list of {part['items'].get('type', 'value')}"
        low, high = part.get("minItems"), part.get("maxItems")
    else:
        low = part.get("minimum", part.get("minLength"))
        high = part.get("maximum", part.get("maxLength"))
        low = f"> {part['exclusiveMinimum']:g}" if "exclusiveMinimum" in part else low
    unit = {"string": " characters", "array": " items"}.get(str(part.get("type")), "")
    if low is None and high is None:
        return kind
    bounds = f"{'' if low is None else low}..{'' if high is None else f'{high:g}' if isinstance(high, float) else high}"
    return f"{kind}, {bounds}{unit}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
