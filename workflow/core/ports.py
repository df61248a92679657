"""What workflow needs from outside, handed in as arguments. modem implements these, tests fake them."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from workflow.core.events import DeltaKind, Event, EventBase
from workflow.core.ids import RunId, ThreadId
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

    def preview(self, turn: int, item: str, kind: DeltaKind, *, offset: int, text: str) -> None:
        """Shows a piece of unfinished work to live subscribers; never blocks, may be coalesced, may be lost.

        item, offset: as in `Delta`. Called for every word that a model says.
        """
        ...


@dataclass(frozen=True, slots=True)
class Spend:
    """What a model call needs or has used."""

    usd: float = 0.0
    tokens: int = 0
    turns: int = 0
    seconds: float = 0.0


class Purse(Protocol):
    """Budgets that the run shares with others (its thread's, its tenant's runs)."""

    async def reserve(self, need: Spend) -> None:
        """Sets aside what a model call may need. Raises: BudgetExceeded, Unavailable."""
        ...

    async def settle(self, spent: Spend) -> dict[str, float]:
        """Books what was used, frees what was set aside; what is left of each shared budget, e.g. `thread_usd`."""
        ...


class Previews(Protocol):
    """Makes links to servers in sandboxes."""

    async def expose(self, run_id: RunId, *, port: int, path: str, ttl_s: float) -> PreviewLink:
        """A link to `port` of the run's sandbox. Raises: Unavailable."""
        ...


Busy = Callable[[Collection[ThreadId]], Awaitable[Collection[ThreadId]]]
"""Those of some threads whose run has not ended, whoever holds it, if anybody does. Raises: Unavailable."""


class Quota(Protocol):
    """What a tenant's live sandboxes may use together, counted over all workers. Everything raises Unavailable."""

    @property
    def limits_disk(self) -> bool:
        """Whether files are limited, so that it is worth weighing them."""
        ...

    async def take(self, thread_id: ThreadId) -> Collection[ThreadId]:
        """Counts a sandbox in. Empty: it may start; else the threads of its tenant that hold every place there is, and
        the workers are asked for one.
        """
        ...

    async def wait(self, thread_id: ThreadId, *, is_over: bool) -> None:
        """Tells who follows the thread's run that it waits for a place, or does so no longer."""
        ...

    async def choose(self, thread_ids: Collection[ThreadId]) -> bool:
        """Whether this worker is the one to make a place for their tenant: the first of all workers that says it can,
        once for each time that somebody asked."""
        ...

    async def keep(self, thread_ids: Collection[ThreadId]) -> None:
        """Keeps the places of live sandboxes."""
        ...

    async def give(self, thread_id: ThreadId) -> None:
        """Counts a sandbox out."""
        ...

    async def check_disk(self, thread_id: ThreadId) -> None:
        """Raises: LimitExceeded when the tenant's files, as they were weighed last, take more than they may."""
        ...

    async def weigh(self, thread_id: ThreadId, disk_bytes: int) -> None:
        """Notes what a thread's files take."""
        ...


History = list[Event]
"""A thread's events, oldest first."""

Clock = Callable[[], float]
"""Monotonic seconds."""

OnOutput = Callable[[str, bytes], Awaitable[None] | None]
"""Gets (`stdout` | `stderr`, chunk) as output arrives."""
