"""Long text cut to its head and its tail, on line ends where there are any nearby."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a long text."""

    head: str
    tail: str
    dropped_lines: int
    dropped_chars: int

    @property
    def text(self) -> str:
        """Head and tail with a line between that says what is missing."""
        return (
            f"{self.head}\n… {self.dropped_lines:,} lines ({self.dropped_chars:,} characters) left out …\n{self.tail}"
        )


def head_and_tail(text: str, limit: int) -> Cut | None:
    """Half of `limit` characters from each end; None if `text` fits as it is.

    A cut moves to the nearest line end inside its half, unless that would give up most of it (one huge line).
    """
    if len(text) <= limit:
        return None
    head_end, tail_start = limit // 2, len(text) - (limit - limit // 2)
    line_end = text.rfind("\n", head_end // 2, head_end)
    if line_end >= 0:
        head_end = line_end
    line_start = text.find("\n", tail_start, tail_start + (len(text) - tail_start) // 2)
    if line_start >= 0:
        tail_start = line_start + 1
    middle = text[head_end:tail_start]
    return Cut(text[:head_end], text[tail_start:], max(1, middle.strip("\n").count("\n") + 1), len(middle))


def clip_line(line: str, limit: int) -> str:
    """`line`, cut with a note of its full length if it is longer than `limit` characters."""
    return line if len(line) <= limit else f"{line[:limit]}… [line cut: {len(line):,} characters]"
