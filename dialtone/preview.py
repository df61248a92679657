"""What was shown of a text while it grew, so that the finished text adds only what is missing."""


class Extent:
    """How far a growing text has been shown: `length` characters; `has_hole` is True once a piece was lost."""

    def __init__(self) -> None:
        self.length = 0
        self.has_hole = False

    def take(self, offset: int, piece: str) -> str:
        """The part of `piece` that is new. Nothing more is shown after a hole: only the finished text is sure."""
        if self.has_hole or offset > self.length:
            self.has_hole = True
            return ""
        new = piece[self.length - offset :]
        self.length += len(new)
        return new


class Shown(Extent):
    """An extent that remembers the text itself."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []

    def take(self, offset: int, piece: str) -> str:
        new = super().take(offset, piece)
        if new:
            self._pieces.append(new)
        return new

    def rest_of(self, whole: str) -> str | None:
        """What of the finished text is still to be shown; None if it does not begin with what was shown."""
        return whole[self.length :] if whole.startswith("".join(self._pieces)) else None
