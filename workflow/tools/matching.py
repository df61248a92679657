"""Where in a file the text to be replaced is, and the file with it replaced.

Order: exactly as given; then whole lines that differ in trailing blanks; in indentation; in look-alike
characters. Each tolerant step needs exactly one candidate and is reported. There is no similarity threshold:
what is not there is not found, and the answer shows what is nearest.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from workflow.core.errors import ToolError
from workflow.tools.folding import (
    Fit,
    fold,
    with_other_characters,
    with_other_indentation,
    without_trailing_blanks,
)
from workflow.tools.lines import View, to_lf
from workflow.tools.mismatch import MAX_PLACES, ambiguous, not_found
from workflow.tools.omission import placeholder_in

_STEPS: tuple[tuple[str, Fit], ...] = (
    ("ignoring blanks at the ends of lines", without_trailing_blanks),
    ("ignoring a difference in indentation; the new text was indented like the file", with_other_indentation),
    ("ignoring look-alike characters (quotes, dashes, blanks); unchanged parts keep theirs", with_other_characters),
)


@dataclass(frozen=True, slots=True)
class Edit:
    old: str
    new: str
    replace_all: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """A text after one edit."""

    text: str
    count: int
    line: int
    """Of the first place, 1-based."""
    how: str = ""
    """In words, if the match was not exact."""


def apply_edit(raw: str, edit: Edit) -> Applied:
    """`raw` after `edit`; everything outside the replaced spans is untouched, line ends included.

    Raises: ToolError with kind `empty_old`, `no_change`, `omission_placeholder`, `not_found`, `ambiguous`.
    """
    _check(raw, edit)
    applied = _apply_raw(raw, edit) if "\r" in edit.old and edit.old in raw else _apply(raw, edit)
    if applied.text == raw:
        raise no_change()
    return applied


def apply_all(text: str, edits: Sequence[Edit]) -> list[Applied]:
    """What each edit made of the text that the one before left. Raises: ToolError naming the edit that failed."""
    results: list[Applied] = []
    for index, edit in enumerate(edits):
        try:
            results.append(apply_edit(text, edit))
        except ToolError as error:
            if len(edits) == 1:
                raise
            raise ToolError(
                f"Edit {index + 1} of {len(edits)} failed, so none was made. {error.message}",
                kind=error.kind,
                **{**error.details, "index": index},
            ) from error
        text = results[-1].text
    return results


def _apply(raw: str, edit: Edit) -> Applied:
    view, old, new = View(raw), to_lf(edit.old), to_lf(edit.new)
    if view.is_cr_only:
        old, new = old.replace("\r", "\n"), new.replace("\r", "\n")
    hits = _places(view.text, old, every=edit.replace_all)
    if len(hits) > 1 and not edit.replace_all:
        raise ambiguous([view.line_number(hit) for hit in hits], edit.old)
    if hits:
        return Applied(_spliced(view, hits, len(old), new), len(hits), view.line_number(hits[0]))
    if not edit.replace_all:
        tolerant = _tolerant(view, old, new)
        if tolerant is not None:
            return tolerant
    raise not_found(view, old, new)


def _check(raw: str, edit: Edit) -> None:
    if not edit.old and raw:
        raise ToolError(
            "`old` is empty. To insert text, put a neighbouring line into `old` and the same line with the addition "
            "into `new`; for a new file use files_creation.",
            kind="empty_old",
        )
    if edit.old == edit.new or (to_lf(edit.old) == to_lf(edit.new) and edit.old not in raw):
        raise no_change()
    line = placeholder_in(edit.new, edit.old)
    if line:
        raise ToolError(
            f"`new` has the line {line!r}, which stands for code instead of being it. Write the code out in full, or "
            "make the edit smaller so that it leaves the rest alone.",
            kind="omission_placeholder",
        )


def no_change() -> ToolError:
    """For an edit, or edits that undo each other, after which the text is what it was."""
    return ToolError(
        "The edit would change nothing: `old` and `new` come to the same here. If the file already has what you want, "
        "go on; else check both texts.",
        kind="no_change",
    )


def _apply_raw(raw: str, edit: Edit) -> Applied:
    """For an `old` that names carriage returns itself: they are matched and replaced as they are."""
    hits = _places(raw, edit.old, every=edit.replace_all)
    view = View(raw)
    if len(hits) > 1 and not edit.replace_all:
        raise ambiguous([raw.count("\n", 0, hit) + 1 for hit in hits], edit.old)
    new = edit.new
    if "\n" in new and "\r" not in new and to_lf(edit.old) != new:
        # The carriage returns were left out of `new` by mistake: it gets the line ends of the place.
        end = "\r\n" if "\r\n" in edit.old else view.line_end_near(0)
        new = new.replace("\n", end)
    parts, last = [], 0
    for hit in hits:
        parts += [raw[last:hit], new]
        last = hit + len(edit.old)
    return Applied("".join([*parts, raw[last:]]), len(hits), raw.count("\n", 0, hits[0]) + 1)


def _places(text: str, part: str, *, every: bool) -> list[int]:
    """The places of `part` in `text`, left to right; an empty part is at the start of an empty text.

    every: all that can be replaced; else those that the one meant could be, overlapping ones too, and not too many.
    """
    if not part:
        return [0]
    found: list[int] = []
    position = text.find(part)
    while position >= 0 and (every or len(found) < MAX_PLACES):
        found.append(position)
        position = text.find(part, position + (len(part) if every else 1))
    return found


def _spliced(view: View, hits: list[int], length: int, new: str) -> str:
    parts, last = [], 0
    for hit in hits:
        start = view.raw_offset(hit)
        parts += [view.raw[last:start], view.with_line_ends(hit, hit + length, new)]
        last = view.raw_offset(hit + length)
    return "".join([*parts, view.raw[last:]])


def _tolerant(view: View, old: str, new: str) -> Applied | None:
    """The edit on the only run of whole lines that matches in one of the tolerant ways; None if none does."""
    whole = old.endswith("\n")
    if not old.strip() or (whole and new and not new.endswith("\n")):
        return None  # nothing to go by, or the last line would be joined with the next
    old_lines = old.removesuffix("\n").split("\n")
    new_lines = [] if whole and not new else (new.removesuffix("\n") if whole else new).split("\n")
    lines = view.lines[:-1] if view.text.endswith("\n") else view.lines
    starts = _starts([fold(line).strip() for line in lines], [fold(line).strip() for line in old_lines])
    for how, fit in _STEPS:
        found: list[tuple[int, list[str]]] = []
        for start in starts:
            if len(found) == MAX_PLACES:
                break
            written = fit(lines[start : start + len(old_lines)], old_lines, new_lines)
            if written is not None:
                found.append((start, written))
        if len(found) > 1:
            raise ambiguous([start + 1 for start, _ in found], old, how=how)
        if found:
            return _write_lines(view, found[0][0], len(old_lines), found[0][1], how=how, whole=whole)
    return None


def _starts(lines: list[str], wanted: list[str]) -> list[int]:
    """Where `wanted` may begin in `lines`: as far above its rarest line as that stands in it."""
    counts = Counter(lines)
    anchor = min(range(len(wanted)), key=lambda i: counts[wanted[i]])
    last = len(lines) - len(wanted)
    return [i - anchor for i, line in enumerate(lines) if line == wanted[anchor] and 0 <= i - anchor <= last]


def _write_lines(view: View, first: int, count: int, written: list[str], *, how: str, whole: bool) -> Applied:
    start = view.starts[first]
    end = view.starts[first + count - 1] + len(view.lines[first + count - 1])
    if whole and not written and end < len(view.text):
        end += 1  # lines that are removed take their line end along
    new = "\n".join(written)
    replaced = view.with_line_ends(start, end, new)
    text = view.raw[: view.raw_offset(start)] + replaced + view.raw[view.raw_offset(end) :]
    return Applied(text, 1, first + 1, how)
