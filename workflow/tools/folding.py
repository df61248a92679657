"""Three ways to see that two lines are the same although some characters differ, each with its way to write back.

Whole lines only, no distances: a line matches or it does not. Each returns the new lines as they must be written
into the file, or None if the file's lines do not match.
"""

import unicodedata
from collections.abc import Callable
from fractions import Fraction

from workflow.tools.lines import paired

Fit = Callable[[list[str], list[str], list[str]], list[str] | None]
"""(lines of the file, lines of `old`, lines of `new`) → lines to write, or None."""

_SAME = {
    **dict.fromkeys("‘’‚‛′‵ʼ", "'"),
    **dict.fromkeys("“”„‟″‶", '"'),
    **dict.fromkeys("‐‑‒–—―−﹘﹣－", "-"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
}


def without_trailing_blanks(found: list[str], old: list[str], new: list[str]) -> list[str] | None:
    """Lines that differ in blanks at their end."""
    if any(f.rstrip() != o.rstrip() for f, o in zip(found, old, strict=True)):
        return None
    return _merged(found, old, new, lambda file_line, old_line, new_line: new_line)


def with_other_indentation(found: list[str], old: list[str], new: list[str]) -> list[str] | None:
    """Lines that differ in their indentation by a constant, or by tabs for spaces; `new` is indented alike."""
    pairs = [(_indent(f), _indent(o)) for f, o in zip(found, old, strict=True) if f.strip() or o.strip()]
    if any(f.strip() != o.strip() for f, o in zip(found, old, strict=True)) or not pairs:
        return None
    shift = _shift(pairs)
    if shift is None:
        return None
    written: list[str] = []
    for line in new:
        shifted = _shifted(line, shift) if line.strip() else line
        if shifted is None:
            return None
        written.append(shifted)
    result: list[str] = []
    for i1, i2, j1, j2 in paired(old, new):
        result += found[i1:i2] if old[i1:i2] == new[j1:j2] else written[j1:j2]
    return result


def with_other_characters(found: list[str], old: list[str], new: list[str]) -> list[str] | None:
    """Lines that differ in kinds of quotes, dashes and blanks, or in Unicode forms (NFKC)."""
    if any(fold(f).rstrip() != fold(o).rstrip() for f, o in zip(found, old, strict=True)):
        return None
    return _merged(found, old, new, _spliced)


def fold(line: str) -> str:
    """`line` with look-alikes made one."""
    return line if line.isascii() else "".join(_folded(cluster) for cluster in _clusters(line))


def _merged(found: list[str], old: list[str], new: list[str], write: Callable[[str, str, str], str]) -> list[str]:
    """`new`, but lines that it shares with `old` as they are in the file, and changed ones by `write`."""
    result: list[str] = []
    for i1, i2, j1, j2 in paired(old, new):
        if old[i1:i2] == new[j1:j2]:
            result += found[i1:i2]
            continue
        for j in range(j1, j2):
            i = i1 + j - j1
            result.append(write(found[i], old[i], new[j]) if i < i2 else new[j])
    return result


def _spliced(file_line: str, old_line: str, new_line: str) -> str:
    """`file_line` with only that part rewritten in which `new_line` differs from `old_line`."""
    places = _places(file_line)
    head = _shared(old_line, new_line)
    while head and not (_is_cut(old_line, head) and _is_cut(new_line, head) and len(fold(old_line[:head])) in places):
        head -= 1
    tail = _shared(old_line[head:][::-1], new_line[head:][::-1])
    while tail:
        old_end, new_end = len(old_line) - tail, len(new_line) - tail
        if _is_cut(old_line, old_end) and _is_cut(new_line, new_end) and len(fold(old_line[:old_end])) in places:
            break
        tail -= 1
    start = places[len(fold(old_line[:head]))]
    end = places[len(fold(old_line[: len(old_line) - tail]))] if tail else len(file_line)
    return file_line[:start] + new_line[head : len(new_line) - tail] + file_line[end:]


def _shared(a: str, b: str) -> int:
    """How many characters at the start are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _is_cut(line: str, position: int) -> bool:
    """True if `line` may be cut there: no combining mark follows that belongs to the character before."""
    return position >= len(line) or not unicodedata.combining(line[position])


def _places(line: str) -> dict[int, int]:
    """Length of the folded text before a cluster → where the cluster starts in `line`."""
    found: dict[int, int] = {}
    folded = position = 0
    for cluster in _clusters(line):
        found.setdefault(folded, position)
        folded += len(_folded(cluster))
        position += len(cluster)
    found[folded] = position
    return found


def _clusters(line: str) -> list[str]:
    """Characters, each with the combining marks that follow it."""
    found: list[str] = []
    for char in line:
        if found and unicodedata.combining(char):
            found[-1] += char
        else:
            found.append(char)
    return found


def _folded(cluster: str) -> str:
    if cluster in _SAME:
        return _SAME[cluster]
    if cluster != "\t" and cluster.isspace():
        return " "
    return "".join(_SAME.get(char, char) for char in unicodedata.normalize("NFKC", cluster))


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


_Shift = tuple[str, str, Fraction | None, str]
"""Prefix to take away, prefix to put in front, or a ratio of widths and the file's indentation character."""


def _shift(pairs: list[tuple[str, str]]) -> _Shift | None:
    """How the indentation of the file follows from that of `old`; None if no single rule does."""
    f0, o0 = pairs[0]
    if f0.endswith(o0) and all(f == f0[: len(f0) - len(o0)] + o for f, o in pairs):
        return "", f0[: len(f0) - len(o0)], None, ""
    if o0.endswith(f0) and all(o == o0[: len(o0) - len(f0)] + f for f, o in pairs):
        return o0[: len(o0) - len(f0)], "", None, ""
    kinds = {"".join(sorted(set(f))) for f, _ in pairs if f}, {"".join(sorted(set(o))) for _, o in pairs if o}
    if any(len(kind) != 1 or kind & {"\t "} for kind in kinds) or any(bool(f) != bool(o) for f, o in pairs):
        return None
    ratios = {Fraction(len(f), len(o)) for f, o in pairs if o}
    return ("", "", ratios.pop(), kinds[0].pop()) if len(ratios) == 1 else None


def _shifted(line: str, shift: _Shift) -> str | None:
    """`line` in the file's indentation; None where the rule says nothing about it."""
    away, front, ratio, char = shift
    indent = _indent(line)
    if ratio is None:
        return front + line.removeprefix(away) if indent.startswith(away) else None
    width = len(indent) * ratio
    if width.denominator != 1 or len(set(indent)) > 1:
        return None
    return char * int(width) + line[len(indent) :]
