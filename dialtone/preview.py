"""What was shown of a text while it grew, so that the finished text adds only what is missing."""


class Shown:
    """One growing text. `length` counts the characters that were shown; `has_hole` is True once a piece was lost."""

    def __init__(self) -> None:
        self.length = 0
        self.has_hole = False
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """What was shown."""
        return "".join(self._pieces)

    def take(self, offset: int, piece: str) -> str:
        """The part of `piece` that is new. Nothing more is shown after a hole: only the finished text is sure."""
        if self.has_hole or offset > self.length:
            self.has_hole = True
            return ""
        new = piece[self.length - offset :]
        self._add(new)
        return new

    def rest_of(self, whole: str) -> str | None:
        """What of the finished text is still to be shown; None if it does not begin with what was shown."""
        if not whole.startswith(self.text):
            return None
        rest = whole[self.length :]
        self._add(rest)
        return rest

    def _add(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self.length += len(piece)
