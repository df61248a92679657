"""A text seen with plain line ends, and the way back from each place in it to the raw text."""

from bisect import bisect_left
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

_MAX_DIFFED_LINES = 2000


@dataclass(frozen=True)
class View:
    """`raw` with every CR LF as LF. A lone CR is data, except in a file that has no LF at all."""

    raw: str

    @cached_property
    def is_cr_only(self) -> bool:
        return "\r" in self.raw and "\n" not in self.raw

    @cached_property
    def text(self) -> str:
        return self.raw.replace("\r", "\n") if self.is_cr_only else self.raw.replace("\r\n", "\n")

    @cached_property
    def _shortened(self) -> list[int]:
        """Where in `text` the line ends stand that are CR LF in `raw`."""
        found: list[int] = []
        position = self.raw.find("\r\n") if not self.is_cr_only else -1
        while position >= 0:
            found.append(position - len(found))
            position = self.raw.find("\r\n", position + 2)
        return found

    @cached_property
    def starts(self) -> list[int]:
        """Where in `text` each line starts; the last one may be empty."""
        found, position = [0], self.text.find("\n")
        while position >= 0:
            found.append(position + 1)
            position = self.text.find("\n", position + 1)
        return found

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends; a text that ends with a line end gives an empty last one."""
        return self.text.split("\n")

    def raw_offset(self, position: int) -> int:
        """The place in `raw` of a place in `text`; before the CR for the end of a CR LF line."""
        return position + bisect_left(self._shortened, position)

    def line_number(self, position: int) -> int:
        """1-based."""
        return bisect_left(self.starts, position + 1)

    def line_end(self, position: int) -> str:
        """The raw line end that stands at `position` of `text`, where a `\\n` is."""
        if self.is_cr_only:
            return "\r"
        index = bisect_left(self._shortened, position)
        return "\r\n" if index < len(self._shortened) and self._shortened[index] == position else "\n"

    def line_end_near(self, position: int) -> str:
        """The end of the line that `position` is in; without one, that of the line before, else LF."""
        after = self.text.find("\n", position)
        if after >= 0:
            return self.line_end(after)
        before = self.text.rfind("\n", 0, position)
        return self.line_end(before) if before >= 0 else "\n"

    def with_line_ends(self, start: int, end: int, new: str) -> str:
        """`new` (LF) with the line ends it needs in place of `text[start:end]`.

        Lines that stay keep their own end; new ones get the end of the line they replace or follow.
        """
        old = self.text[start:end].split("\n")
        ends, position = [], start
        for line in old[:-1]:
            position += len(line)
            ends.append(self.line_end(position))
            position += 1
        usual = self.line_end_near(end if not ends else position - 1)
        if len(set(ends)) <= 1:
            return new.replace("\n", ends[0] if ends else usual)
        fresh = new.split("\n")
        chosen = _ends(old, fresh, ends, usual)
        return "".join(line + end for line, end in zip(fresh, chosen, strict=True))


def _ends(old: list[str], new: list[str], ends: list[str], usual: str) -> list[str]:
    """A line end for each of `new` but the last, taken from the lines of `old` that they stand for."""
    chosen = [ends[-1]] * len(new)
    for i1, i2, j1, j2 in paired(old, new):
        for j in range(j1, j2):
            i = min(i1 + j - j1, max(i2 - 1, i1), len(ends) - 1)
            chosen[j] = ends[i] if i >= 0 else usual
    chosen[-1] = ""
    return chosen


def paired(old: list[str], new: list[str]) -> list[tuple[int, int, int, int]]:
    """Which lines of `old` became which of `new`: blocks (i1, i2, j1, j2) that cover both in order."""
    if len(old) + len(new) > _MAX_DIFFED_LINES:
        return [(0, len(old), 0, len(new))]
    return [block[1:] for block in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()]


def to_lf(text: str) -> str:
    """What a model wrote, with plain line ends."""
    return text.replace("\r\n", "\n")
