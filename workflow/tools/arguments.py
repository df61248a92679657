"""The text a model gave as arguments, read as JSON; mended only where there is one possible meaning.

Text that stops inside a string, list or object was cut off and is never mended, whatever the provider says
the reason was: half a command is another command.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from workflow.core.errors import ToolError

MAX_REPAIR_CHARS = 20_000  # a 200 kB text took json_repair one second
_FENCE = re.compile(r"^```[A-Za-z]*[ \t]*\r?\n(.*?)(?:\r?\n```\s*)?$", re.DOTALL)
_TRAILING_MARKUP = re.compile(r"(?:\s|</?[\w:|-]+>|<\|[^|<>]*\|>|```|;)*")
_JSON_WORDS = {"True": "true", "False": "false", "None": "null"}


class _Doubled(ValueError):
    """A key was given twice with different values."""


def read_arguments(text: str, *, finish_reason: str = "") -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments as an object, and in words what was mended.

    finish_reason: the message's; `length` forbids any guess.
    Raises: ToolError with kind `cut_off` or `invalid_json`.
    """
    body = text.strip()
    if not body:
        if finish_reason == "length":
            raise _cut_off()
        return {}, ()
    problem = ""
    for note, attempt in _ATTEMPTS:
        try:
            value = attempt(body)
        except (ValueError, RecursionError) as error:
            problem = problem or _says(error)
            continue
        if isinstance(value, dict):
            return value, (note,) if note else ()
        problem = problem or f"the arguments must be a JSON object, not a {_kind(value)}"
    if finish_reason == "length" or is_open(body):
        raise _cut_off()
    value = _repaired(body)
    if value is None:
        raise ToolError(problem, kind="invalid_json")
    return value, ("mended broken JSON",)


def is_open(text: str) -> bool:
    """True if `text` stops inside a string, a list or an object."""
    quote, before, depth, escaped = "", "", 0, False
    for char in text:
        if quote:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                quote, before = "", char
            continue
        if char == '"' or (char == "'" and before in "{[,:"):
            quote = char
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
        if not char.isspace():
            before = char
    return bool(quote) or depth > 0


def _strict(body: str) -> Any:
    """Plain JSON, but raw line ends and tabs may stand in strings, as many models write them."""
    value = json.loads(body, strict=False, object_pairs_hook=_object, parse_constant=_no_constant)
    return _well_formed(value)


def _unfenced(body: str) -> Any:
    match = _FENCE.match(body)
    if match is None:
        raise ValueError("no code fence")
    return _strict(match[1])


def _unwrapped(body: str) -> Any:
    """JSON inside a JSON string, once."""
    value = json.loads(body, strict=False)
    if not isinstance(value, str):
        raise ValueError("not a string")
    return _strict(value)


def _before_markup(body: str) -> Any:
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_object, parse_constant=_no_constant)
    value, end = decoder.raw_decode(body)
    if not _TRAILING_MARKUP.fullmatch(body, end):
        raise ValueError("there is more text after the JSON object; send exactly one object")
    return _well_formed(value)


_ATTEMPTS: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("", _strict),
    ("removed a code fence", _unfenced),
    ("unpacked doubly encoded JSON", _unwrapped),
    ("removed markup after the JSON", _before_markup),
)


def _repaired(body: str) -> dict[str, Any] | None:
    """What json_repair makes of complete but broken JSON, if nothing was lost, invented or chosen."""
    if len(body) > MAX_REPAIR_CHARS or not body.startswith("{"):
        return None
    import json_repair  # noqa: PLC0415  # 0.8 MB, for what a model seldom gets wrong

    try:
        value = json_repair.loads(body, skip_json_loads=True)
        if not isinstance(value, dict):
            return None
        return value if _substance(body) == _substance(json.dumps(_well_formed(value), ensure_ascii=False)) else None
    except (ValueError, RecursionError):
        return None


def _substance(text: str) -> str:
    """The letters and digits of JSON text, with Python's words for JSON's: what a repair must not change."""
    words = re.sub(r"\\[\"'/bfnrt\\]", " ", text)
    words = re.sub(r"\b(?:True|False|None)\b", lambda m: _JSON_WORDS[m[0]], words)
    return re.sub(r"[\W_]+", "", words)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and result[key] != value:
            raise _Doubled(f"the key {key!r} is given twice with different values")
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _well_formed(value: Any) -> Any:
    """`value` itself. Raises: ValueError if a text in it holds half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair (\\ud800..\\udfff)") from error
    return value


def _says(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at line {error.lineno} column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _kind(value: Any) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _cut_off() -> ToolError:
    return ToolError("the arguments were cut off before their end, so the call did not run", kind="cut_off")
