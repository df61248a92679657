"""What to tell a model whose text is not in the file, or is there more than once."""

import re
from difflib import SequenceMatcher

from workflow.core.errors import ToolError
from workflow.tools.lines import View
from workflow.tools.truncate import clip_line

MAX_PLACES = 1000
"""More are not looked for where one is meant."""
_SHOWN_HITS = 20
_SHOWN_LINES = 12
_COMPARED_LINES = 20_000
_COMPARED_CHARS = 300
_COMPARED_CLOSELY = 200
_SIMILAR = 0.6
_NUMBERED = re.compile(r"^\s*\d+(?:\t|→|: |\| )")


def ambiguous(lines: list[int], old: str, *, how: str = "") -> ToolError:
    """`lines`: the 1-based line of every place."""
    shown = ", ".join(map(str, lines[:_SHOWN_HITS])) + (", …" if len(lines) > _SHOWN_HITS else "")
    more = " or more" if len(lines) >= MAX_PLACES else ""
    manner = f" ({how.partition(';')[0]})" if how else ""
    every = "" if how else ", or set replace_all=true to change every one"
    return ToolError(
        f"`old` is in the file {len(lines)}{more} times{manner}, at lines {shown}; nothing was changed. Give more of "
        f"the lines around the one you mean in `old`{every}.",
        kind="ambiguous",
        lines=lines[:_SHOWN_HITS],
    )


def not_found(view: View, old: str, new: str) -> ToolError:
    """Shows the lines of the file that are nearest to `old`, with their blanks made visible."""
    parts = ["`old` is not in the file; nothing was changed."]
    old_lines = [line for line in old.split("\n") if line.strip()]
    if not view.text:
        parts.append("The file is empty: write it with files_creation(overwrite=true).")
    elif new.strip() and new in view.text:
        line = view.line_number(view.text.index(new))
        parts.append(f"But `new` is already there, at line {line}: was this edit applied before?")
    if old_lines and all(_NUMBERED.match(line) for line in old_lines):
        parts.append("Its lines begin with line numbers: leave out the numbers that file_read puts in front.")
    elif old.endswith("\n") and not view.text.endswith("\n") and view.text.endswith(old[:-1]):
        parts.append("`old` ends with a line end, but the file does not: leave the last line end out.")
    nearest = _nearest(view, old) if old_lines else ""
    if nearest:
        parts.append(f"The nearest lines are (→ tab, · leading or trailing space):\n{nearest}\nCopy `old` from there.")
    else:
        parts.append("Nothing in it is similar. Read it again with file_read, or find the place with grep.")
    return ToolError(" ".join(parts), kind="not_found")


def _nearest(view: View, old: str) -> str:
    """Up to twelve numbered lines around the place most like `old`; empty if none is."""
    wanted = old.strip("\n").split("\n")
    anchor = max(range(len(wanted)), key=lambda i: len(wanted[i].strip()))
    pattern = wanted[anchor].strip()[:_COMPARED_CHARS]
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(pattern)
    likely: list[tuple[float, int]] = []
    for index, line in enumerate(view.lines[:_COMPARED_LINES]):
        matcher.set_seq1(line.strip()[:_COMPARED_CHARS])
        if matcher.real_quick_ratio() >= _SIMILAR and (upper := matcher.quick_ratio()) >= _SIMILAR:
            likely.append((-upper, index))
    best, where = _SIMILAR, -1
    for upper, index in sorted(likely)[:_COMPARED_CLOSELY]:
        if -upper < best:
            break
        matcher.set_seq1(view.lines[index].strip()[:_COMPARED_CHARS])
        ratio = matcher.ratio()
        if ratio > best or (ratio == best and (where < 0 or index < where)):
            best, where = ratio, index
    if where < 0:
        return ""
    first = max(0, where - anchor)
    shown = view.lines[first : first + min(len(wanted), _SHOWN_LINES)]
    return "\n".join(f"{first + i + 1}\t{visible(line)}" for i, line in enumerate(shown))


def visible(line: str) -> str:
    """`line` with tabs as →, and spaces at both ends as ·; clipped to 300 characters."""
    body = line.strip(" \t")
    if not body:
        return line.replace(" ", "·").replace("\t", "→")
    start = line.index(body)
    signs = str.maketrans({" ": "·", "\t": "→"})
    end = line[start + len(body) :].translate(signs)
    return line[:start].translate(signs) + clip_line(body.replace("\t", "→"), _COMPARED_CHARS) + end
