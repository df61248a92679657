"""The output of one tool call, as it arrives and when it is complete."""

from collections import deque

from dialtone.paint import Paint
from dialtone.preview import Shown
from dialtone.text import clip, neutral_line
from workflow.core.events import DeltaKind

TAIL_LINES = 5


class CallOutput:
    """Turns pieces of a call's output into whole lines: the first `limit`, then the last TAIL_LINES at the end.

    Both streams of a command share the limit; a line is shown once it is complete.
    """

    def __init__(self, *, title: str, paint: Paint, width: int, limit: int) -> None:
        self.title = title
        self._paint = paint
        self._width = width
        self._left = limit
        self._shown: dict[DeltaKind, Shown] = {}
        self._partial: dict[DeltaKind, str] = {}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._hidden = 0

    @property
    def is_empty(self) -> bool:
        """True if no piece of output came yet."""
        return not self._shown

    def take(self, kind: DeltaKind, offset: int, piece: str) -> list[str]:
        """The lines that a piece completes."""
        new = self._shown.setdefault(kind, Shown()).take(offset, piece)
        return self._lines(kind, new)

    def finish(self, output: str) -> list[str]:
        """The lines that are still missing, given the complete output. Nothing is shown twice."""
        lines: list[str] = []
        if self.is_empty:
            lines += self._lines(DeltaKind.STDOUT, output)
        elif len(self._shown) == 1:
            (kind, shown), *_ = self._shown.items()
            start = output.find(shown.text)
            if start >= 0:
                lines += self._lines(kind, output[start + shown.length :])
            elif shown.has_hole:
                lines += self._after_hole(output)
        elif any(shown.has_hole for shown in self._shown.values()):
            lines += self._after_hole(output)
        for kind in list(self._partial):
            lines += self._lines(kind, "\n") if self._partial[kind] else []
        return lines + self._rest()

    def _after_hole(self, output: str) -> list[str]:
        """The end of the output, when it cannot be told which part of it was shown."""
        note = self._paint.dim("  │ … some output could not be shown live; it ends with")
        return [note, *(self._line(line) for line in output.rstrip("\n").split("\n")[-TAIL_LINES:])]

    def _lines(self, kind: DeltaKind, piece: str) -> list[str]:
        if not piece:
            return []
        *complete, rest = (self._partial.get(kind, "") + piece).split("\n")
        self._partial[kind] = rest[: 50 * self._width]
        shown = [self._line(line) for line in complete[: self._left]]
        for line in complete[self._left :]:
            self._hidden += 1
            self._tail.append(line[: 50 * self._width])
        self._left -= len(shown)
        return shown

    def _rest(self) -> list[str]:
        if not self._hidden:
            return []
        skipped = self._hidden - len(self._tail)
        note = [self._paint.dim(f"  │ … {skipped:,} more lines")] if skipped else []
        return note + [self._line(line) for line in self._tail]

    def _line(self, line: str) -> str:
        text = clip(neutral_line(line[: 50 * self._width]), self._width - 4)
        return f"  {self._paint.dim('│')} {text}".rstrip()
