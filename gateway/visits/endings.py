"""How a visit ends when neither an answer nor an error of ours may be given."""


class Cut(Exception):
    """The server stopped in the middle of its answer: the visitor must not take it for whole."""


class Left(Exception):
    """The visitor is gone."""


class Denied(Exception):
    """The server refuses the upgrade to a WebSocket with an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
