"""The Dialtone client: a Python library and a terminal program over the public API."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialtone.client import AsyncClient
    from dialtone.errors import (
        ApiError,
        BadRequest,
        ClientError,
        Conflict,
        Forbidden,
        NotFound,
        ProtocolError,
        ServerError,
        TooManyRequests,
        Unauthenticated,
        Unreachable,
    )
    from dialtone.items import Gap, Reset, StreamItem, UnknownEvent, Waiting
    from dialtone.results import (
        Accepted,
        Budgets,
        DiffPage,
        EventPage,
        FileDiff,
        FileStat,
        ModelChoice,
        Preview,
        Restored,
        RunPage,
        ThreadPage,
    )
    from dialtone.sync import Client
    from workflow.core.events import Delta, Event

__all__ = [
    "Accepted",
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "Budgets",
    "Client",
    "ClientError",
    "Conflict",
    "Delta",
    "DiffPage",
    "Event",
    "EventPage",
    "FileDiff",
    "FileStat",
    "Forbidden",
    "Gap",
    "ModelChoice",
    "NotFound",
    "Preview",
    "ProtocolError",
    "Reset",
    "Restored",
    "RunPage",
    "ServerError",
    "StreamItem",
    "ThreadPage",
    "TooManyRequests",
    "Unauthenticated",
    "UnknownEvent",
    "Unreachable",
    "Waiting",
]

_ROOMS = ("client", "sync", "errors", "items", "results")


def __getattr__(name: str) -> Any:
    """Loads the library when a name of it is first used, so that `dialtone --help` needs neither httpx nor pydantic."""
    if name in __all__:
        for room in _ROOMS:
            module = importlib.import_module(f"dialtone.{room}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
