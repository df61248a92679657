"""Unified diffs that cost in proportion to what changed, not to the size of the file."""

from difflib import SequenceMatcher

from workflow.tools.lines import View
from workflow.tools.truncate import clip_line, head_and_tail

_CONTEXT = 3
_MAX_COMPARED = 4000
_LINE_CHARS = 500
EVENT_CHARS = 20_000


def unified(before: str, after: str, path: str) -> str:
    """The change as a unified diff without line ends; empty if only line ends differ."""
    old, new = _lines(before), _lines(after)
    head = _common(old, new, 0)
    tail = _common(old[::-1], new[::-1], head)
    first = max(0, head - _CONTEXT)
    a = old[first : min(len(old), len(old) - tail + _CONTEXT)]
    b = new[first : min(len(new), len(new) - tail + _CONTEXT)]
    if a == b:
        return ""
    lines = [f"--- a/{path}", f"+++ b/{path}"]
    for group in _groups(a, b):
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        lines.append(f"@@ -{_range(first + i1, i2 - i1)} +{_range(first + j1, j2 - j1)} @@")
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in a[a1:a2]]
            else:
                lines += [f"-{line}" for line in a[a1:a2]] + [f"+{line}" for line in b[b1:b2]]
    return "\n".join(clip_line(line, _LINE_CHARS) for line in lines)


def shortened(diff: str, limit: int) -> str:
    """`diff` within `limit` characters, head and tail."""
    cut = head_and_tail(diff, limit - 100)
    return diff if cut is None else cut.text


def _lines(text: str) -> list[str]:
    """The lines; a last one without an end says so, as `diff -u` does."""
    lines = View(text).lines
    if lines[-1] == "":
        return lines[:-1]
    return [*lines[:-1], f"{lines[-1]}\n\\ No newline at end of file"]


def _groups(a: list[str], b: list[str]) -> list[list[tuple[str, int, int, int, int]]]:
    if len(a) + len(b) > _MAX_COMPARED:
        return [[("replace", 0, len(a), 0, len(b))]]
    return [list(group) for group in SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(_CONTEXT)]


def _common(a: list[str], b: list[str], taken: int) -> int:
    """How many lines at the start are the same, leaving the `taken` last ones aside."""
    limit = min(len(a), len(b)) - taken
    count = 0
    while count < limit and a[count] == b[count]:
        count += 1
    return count


def _range(start: int, length: int) -> str:
    """Line numbers as `diff -u` writes them."""
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"
