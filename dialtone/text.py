"""Makes text from outside safe and small enough for a terminal.

Tool output and model text may hold anything: escape codes that retitle the window or rewrite lines above,
direction marks that reorder what is read, a line of ten megabytes. Nothing of that may reach the screen.
"""

import re
import unicodedata
from datetime import UTC, datetime

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"  # two- and three-character sequences
)
_DIRECTION_MARKS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

LONGEST_WORD = 20
"""A longer one is broken where the line ends."""

_VISIBLE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
    0x09: "    ",
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **dict.fromkeys(map(ord, _DIRECTION_MARKS), "\ufffd"),
    0x2028: "\u21b5",
    0x2029: "\u21b5",
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def neutral(text: str) -> str:
    """`text` with every control character but the line feed made visible; any piece of it alone gives the same."""
    return text.translate(_VISIBLE)


def neutral_line(line: str) -> str:
    """One complete line as a person would have seen it: escape codes dropped, overwritten parts (CR) dropped."""
    if "\x1b" in line:
        line = _ESCAPES.sub("", line)
    if "\r" in line:
        line = next((state for state in reversed(line.split("\r")) if state.strip()), "")
    return neutral(line)


def columns(text: str) -> int:
    """How many terminal columns `text` takes; it holds no control characters."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(char) for char in text)


def clip(line: str, width: int) -> str:
    """`line` in at most `width` columns, ending in `…` when something was cut."""
    if len(line) <= width and columns(line) <= width:
        return line
    room = width - 1
    kept: list[str] = []
    for char in line:
        room -= _columns_of(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…"


def wrapped(text: str, width: int) -> list[str]:
    """All of `text` in lines of at most `width` columns, broken at spaces where there are some near."""
    lines: list[str] = []
    for line in neutral(text).rstrip("\n").split("\n"):
        piece, used = "", 0
        for char in line:
            size = _columns_of(char)
            if used + size > width:
                head, space, rest = piece.rpartition(" ")
                piece, rest = (head, rest) if space and len(rest) < LONGEST_WORD else (piece, "")
                lines.append(piece)
                piece, used = rest, columns(rest)
            piece += char
            used += size
        lines.append(piece)
    return lines


def one_line(text: str, width: int) -> str:
    """The first line of `text` that says something, safe and at most `width` columns wide."""
    for line in text[: 20 * width + 1000].splitlines():
        if line.strip():
            return clip(neutral_line(line.strip()), width)
    return ""


def moment(milliseconds: int) -> str:
    """A time in milliseconds since 1970 as people read it, e.g. `2026-11-26 17:28Z`."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M}Z"


def safe_lines(text: str, width: int) -> list[str]:
    """The lines of `text`, each safe and at most `width` columns wide."""
    return [clip(neutral_line(line[: 50 * width]), width) for line in text.rstrip("\n").split("\n")]


def _columns_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Cf", "Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
