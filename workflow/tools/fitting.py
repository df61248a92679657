"""Schema-guided mending of arguments that are JSON but not quite of the wanted shape.

Every rule has one possible meaning: nothing is chosen, no text is turned into data where text is wanted.
"""

import json
from typing import Any

KEY_ALIASES: dict[str, str] = {
    "-A": "after",
    "-B": "before",
    "-C": "context",
    "-i": "ignore_case",
    "cmd": "command",
    "contents": "content",
    "dir": "path",
    "directory": "path",
    "file": "path",
    "file_path": "path",
    "filename": "path",
    "filepath": "path",
    "head_limit": "limit",
    "include": "glob",
    "new_str": "new",
    "new_string": "new",
    "new_text": "new",
    "old_str": "old",
    "old_string": "old",
    "old_text": "old",
    "regex": "pattern",
    "script": "command",
    "target_file": "path",
    "todos": "items",
}
"""Other programs' names for our arguments; used only where ours is missing and theirs is unknown."""

NARRATION = frozenset({"-n", "description", "explanation", "reason", "reasoning", "thought", "title", "toolSummary"})
"""What models say about a call inside of it; it changes nothing, so it is passed over."""

_WRAPPERS = frozenset({"arguments", "args", "input", "parameters", "params"})


def fit(value: dict[str, Any], schema: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`value` brought nearer to `schema`, and in words what was changed. Not validated."""
    notes: list[str] = []
    properties: dict[str, Any] = schema.get("properties", {})
    if len(value) == 1:
        key, inner = next(iter(value.items()))
        if key in _WRAPPERS and key not in properties and isinstance(inner, dict):
            notes.append(f"unwrapped {key}")
            value = inner
    return _fit_object(value, schema, "", notes), tuple(notes)


def _fit_object(value: dict[str, Any], schema: dict[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    properties: dict[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = key
        if key not in properties:
            alias = KEY_ALIASES.get(key, "")
            if alias in properties and alias not in value and alias not in result:
                notes.append(f"took {where}{key} as {alias}")
                name = alias
            elif key in NARRATION:
                continue
        if name not in properties:
            result[name] = item  # validation says what is wrong with it
        elif item is None and name not in required:
            continue
        else:
            result[name] = _fit_value(item, properties[name], f"{where}{name}", notes)
    return result


def _fit_value(value: Any, schema: dict[str, Any], where: str, notes: list[str]) -> Any:
    wanted = schema.get("type")
    if wanted in ("array", "object") and isinstance(value, str):
        value = _parsed(value, wanted, where, notes)
    if wanted == "array":
        items = schema.get("items", {})
        if isinstance(value, dict) and items.get("type") == "object":
            notes.append(f"took the single object in {where} as a list of one")
            value = [value]
        if isinstance(value, list):
            return [_fit_value(item, items, f"{where}[{i}]", notes) for i, item in enumerate(value)]
    if wanted == "object" and isinstance(value, dict):
        return _fit_object(value, schema, f"{where}.", notes) if "properties" in schema else value
    if wanted == "string":
        return _text(value, where, notes)
    return value


def _parsed(value: str, wanted: str, where: str, notes: list[str]) -> Any:
    """The list or object that `value` spells, if it does so without a flaw."""
    try:
        parsed = json.loads(value, strict=False)
    except (ValueError, RecursionError):
        return value
    # A single object in place of a list of objects is wrapped by the caller.
    if isinstance(parsed, list if wanted == "array" else dict) or (wanted == "array" and isinstance(parsed, dict)):
        notes.append(f"read the text in {where} as JSON")
        return parsed
    return value


def _text(value: Any, where: str, notes: list[str]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        notes.append(f"took the number in {where} as text")
        return str(value)
    if isinstance(value, list) and value and all(_is_chunk(item) for item in value):
        notes.append(f"joined the text pieces in {where}")
        return "".join(item["text"] for item in value)
    return value


def _is_chunk(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str)
