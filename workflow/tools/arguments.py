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
_PUNCTUATION = re.compile(r"[\s{}\[\](),:;]*")
_WORD = re.compile(r"[\w.+-]+")
_CHAR = re.compile(r"\\u([0-9a-fA-F]{4})|\\([\"'/bfnrt\\])|.", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", **{char: char for char in "\"'/\\"}}
_OTHER_ESCAPE = re.compile(r"\\(?:[0-7av\n]|x[0-9a-fA-F]{2}|u(?![0-9a-fA-F]{4}))")
_MAY_END = re.compile(r"\s*(?:[:}\])]|[,;+]\s*(?:[\"'}\])]|[\w-]+\s*:)|$)")
_END = re.compile(r"[\s{}\[\](),:;]|$")


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
        return _well_formed(_Spelling(body).whole(value)) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


class _Spelling:
    """Follows a repaired value through the text it was made from, where each of its parts has to stand as it is."""

    def __init__(self, body: str) -> None:
        self._body, self._at = body, 0

    def whole(self, value: Any) -> Any:
        """`value` with its texts as they are spelt. Raises: ValueError if anything was lost, invented or moved."""
        told = self._value(value)
        if self._next():
            raise ValueError("something was left out")
        return told

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._text(key): self._value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, str):
            return self._text(value)
        self._next()
        word = _WORD.match(self._body, self._at)
        if word is None or _JSON_WORDS.get(word[0], word[0].lstrip("+")) != json.dumps(value):
            raise ValueError("another word or number")
        self._at = word.end()
        return value

    def _text(self, text: str) -> str:
        """`text`, with the blanks at its end that json_repair takes away."""
        quote, chars = self._next(), list(text)
        if quote in ("'", '"'):
            self._at += 1
        else:
            quote = ""
        for char in text:
            spelt, read = self._char()
            if read != char:
                raise ValueError("another text")
            if spelt == quote and _MAY_END.match(self._body, self._at):
                raise ValueError("perhaps the end of the text")
        while quote and self._body[self._at : self._at + 1] != quote:
            _, read = self._char()
            if not read.isspace():
                raise ValueError("a longer text")
            chars.append(read)
        self._at += len(quote)
        if not quote and (not text or not _END.match(self._body, self._at)):
            raise ValueError("a longer word")
        return "".join(chars)

    def _next(self) -> str:
        """The sign after the punctuation of JSON; empty at the end."""
        match = _PUNCTUATION.match(self._body, self._at)
        self._at = match.end() if match else self._at
        return self._body[self._at : self._at + 1]

    def _char(self) -> tuple[str, str]:
        """The next sign of a text: as it is spelt, and what that means."""
        match = _CHAR.match(self._body, self._at)
        if match is None or _OTHER_ESCAPE.match(self._body, self._at):
            raise ValueError("a shorter text, or one that Python and JSON read differently")
        self._at = match.end()
        return match[0], chr(int(match[1], 16)) if match[1] else _ESCAPES[match[2]] if match[2] else match[0]


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
