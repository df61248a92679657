"""What workflow needs from outside, handed in as arguments. modem implements these, tests fake them."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from workflow.core.events import Delta, Event, EventBase
from workflow.core.ids import RunId
from workflow.core.records import PreviewLink


class Journal(Protocol):
    """One run's pen in its thread's log; every write is fenced."""

    async def commit(self, *events: EventBase) -> list[str]:
        """The ids of `events`, appended together or not at all, in order.

        Raises: LeaseLost if another worker owns the run; RunCancelled if a cancel was asked for (nothing is
        written then, except by a commit that holds a terminal event); Unavailable if Redis stays away.
        """
        ...

    async def news(self) -> "list[Event]":
        """What others put into the log since the last call: steering messages, answers. Oldest first."""
        ...

    def preview(self, delta: Delta) -> None:
        """Shows a piece of unfinished work to live subscribers; never blocks, may be coalesced, may be lost."""
        ...


class Purse(Protocol):
    """Money that the run shares with others (its thread's, its tenant's runs)."""

    async def reserve(self, usd: float) -> None:
        """Sets money aside before a model call. Raises: BudgetExceeded, Unavailable."""
        ...

    async def settle(self, usd: float) -> None:
        """Books what the call has cost, and frees what was set aside."""
        ...


class Previews(Protocol):
    """Makes links to servers in sandboxes."""

    async def expose(self, run_id: RunId, *, port: int, path: str, ttl_s: float) -> PreviewLink:
        """A link to `port` of the run's sandbox. Raises: Unavailable."""
        ...


History = list[Event]
"""A thread's events, oldest first."""

Clock = Callable[[], float]
"""Monotonic seconds."""

OnOutput = Callable[[str, bytes], Awaitable[None] | None]
"""Gets (`stdout` | `stderr`, chunk) as output arrives."""
