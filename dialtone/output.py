"""The output of one tool call, as it arrives and when it is complete."""

import hashlib
import re
from collections import deque

from dialtone.paint import Paint
from dialtone.preview import Extent
from dialtone.text import clip, neutral_line
from workflow.core.events import DeltaKind

TAIL_LINES = 5

_STATUS_NOTE = re.compile(r"exit status \d+, [\d.]+ s")


class CallOutput:
    """Turns pieces of a call's output into whole lines: the first `limit`, then the last TAIL_LINES at the end.

    Both streams of a command share the limit; a line is shown once it is complete.
    """

    def __init__(self, *, title: str, paint: Paint, width: int, limit: int) -> None:
        self.title = title
        self._paint = paint
        self._width = width
        self._left = limit
        self._streams: dict[DeltaKind, _Stream] = {}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._hidden = 0

    def take(self, kind: DeltaKind, offset: int, piece: str) -> list[str]:
        """The lines that a piece completes."""
        stream = self._streams.setdefault(kind, _Stream(self._width))
        return self._show(stream.take(offset, piece))

    def finish(self, output: str) -> list[str]:
        """The lines that are still missing, given the complete output, and its notes. Nothing is shown twice."""
        body, notes = _parted(output)
        shown = self._show(self._missing([neutral_line(_bounded(line, self._width)) for line in body]))
        remarks = [clip(f"  {neutral_line(note)}", self._width) for note in notes if not _STATUS_NOTE.match(note)]
        return shown + self._hidden_lines() + [self._paint.dim(remark) for remark in remarks]

    def _missing(self, whole: list[str]) -> list[str]:
        """The lines of the complete output that were not shown."""
        # A finished output holds standard error after standard output, whatever came first.
        kinds = [kind for kind in (DeltaKind.STDOUT, DeltaKind.STDERR) if kind in self._streams]
        missing: list[str] = []
        start = 0
        for kind in kinds:
            stream = self._streams[kind]
            if not stream.is_at(whole, start):
                return self._unplaced(whole)
            start += stream.count
            if stream.partial and kind is not kinds[-1]:
                missing.append(whole[start])
                start += 1
        return missing + whole[start:]

    def _unplaced(self, whole: list[str]) -> list[str]:
        """What to show when it cannot be told where in `whole` the shown lines are, because its middle was left out."""
        streams = self._streams.values()
        rest = [stream.partial for stream in streams if stream.partial]
        ends = {rest[-1]} if rest else {stream.last for stream in streams}
        if whole[-1] in ends and not any(stream.extent.has_hole for stream in streams):
            return rest
        return [*rest, "… some output could not be shown live; it ends with", *whole[-TAIL_LINES:]]

    def _show(self, lines: list[str]) -> list[str]:
        now, later = lines[: self._left], lines[self._left :]
        self._left -= len(now)
        self._hidden += len(later)
        self._tail.extend(later)
        return [self._line(line) for line in now]

    def _hidden_lines(self) -> list[str]:
        if not self._hidden:
            return []
        skipped = self._hidden - len(self._tail)
        note = [self._paint.dim(f"  │ … {skipped:,} more lines")] if skipped else []
        return note + [self._line(line) for line in self._tail]

    def _line(self, line: str) -> str:
        return f"  {self._paint.dim('│')} {clip(line, self._width - 4)}".rstrip()


class _Stream:
    """One stream of the output: the lines that came, and a digest of them to find them again."""

    def __init__(self, width: int) -> None:
        self.extent = Extent()
        self.count = 0
        self.last = ""
        self._width = width
        self._rest = ""
        self._digest = hashlib.sha256()

    @property
    def partial(self) -> str:
        """The line that is not complete yet."""
        return neutral_line(self._rest)

    def take(self, offset: int, piece: str) -> list[str]:
        """The lines that `piece` completes."""
        new = self.extent.take(offset, piece)
        if not new:
            return []
        *complete, rest = (self._rest + new).split("\n")
        self._rest = _bounded(rest, self._width)
        lines = [neutral_line(_bounded(line, self._width)) for line in complete]
        for line in lines:
            self._digest.update(f"{line}\n".encode())
        self.count += len(lines)
        self.last = lines[-1] if lines else self.last
        return lines

    def is_at(self, whole: list[str], start: int) -> bool:
        """True if the lines that came stand in `whole` from `start` on."""
        lines = whole[start : start + self.count]
        if self.partial and not (
            len(whole) > start + self.count and whole[start + self.count].startswith(self.partial)
        ):
            return False
        return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest() == self._digest.digest()


def _parted(output: str) -> tuple[list[str], list[str]]:
    """The lines of an output, and the remarks that the tool put below it in brackets, without the brackets."""
    body, _, below = output.rpartition("\n\n")
    notes = below.removesuffix("\n").split("\n")
    if not body or not all(note.startswith("[") and note.endswith("]") for note in notes):
        body, notes = output, []
    return body.removesuffix("\n").split("\n"), [note[1:-1] for note in notes]


def _bounded(line: str, width: int) -> str:
    """Enough of a line to fill the screen, whatever its escape codes take."""
    return line[: 50 * width]
