"""What workflow needs from outside, handed in as arguments. modem implements these, tests fake them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from workflow.core.events import Delta, Event, EventBase


class Journal(Protocol):
    """One run's pen in its thread's log; every write is fenced."""

    async def commit(self, *events: EventBase) -> list[str]:
        """The ids of `events`, appended together or not at all, in order.

        Raises: LeaseLost if another worker owns the run; RunCancelled if a cancel was asked for (nothing is
        written then, except by a commit that holds a terminal event); Unavailable if Redis stays away.
        """
        ...

    def preview(self, delta: Delta) -> None:
        """Shows a piece of unfinished work to live subscribers; never blocks, may be coalesced, may be lost."""
        ...


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a person sent into a running run."""

    kind: str
    """`steer` (text for the next turn) or `answer` (to a question)."""
    text: str
    question_id: str = ""
    by: str = ""


class Inbox(Protocol):
    """What people say to the run while it works."""

    async def take(self) -> list[Inbound]:
        """What came since the last call, oldest first; empty at once when there is nothing."""
        ...

    async def wait(self, *, timeout_s: float) -> bool:
        """True as soon as something is there to take, False after `timeout_s`."""
        ...


History = list[Event]
"""A thread's events, oldest first."""

Clock = Callable[[], float]
"""Monotonic seconds."""

OnOutput = Callable[[str, bytes], Awaitable[None] | None]
"""Gets (`stdout` | `stderr`, chunk) as output arrives."""
