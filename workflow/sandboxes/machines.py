"""What the remote providers need of a vendor: machines that run a shell command, and the fleet they come from.

SandboxError
├── Asleep     the machine does not run; nothing was done; connecting wakes it, or tells that it has vanished
├── Vanished   the machine is gone, its files with it
├── Dropped    the connection ended without an answer; whether anything was done is unknown
└── Busy       the service asks to come again later; nothing was done
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from workflow.core.errors import SandboxError
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Address

LONGEST_ANSWER = 64_000_000
"""Characters that one call may print; the list of 200,000 files takes less."""


class Asleep(SandboxError):
    """Connecting again wakes it."""


class Vanished(SandboxError):
    """The next use starts with an empty workspace."""


class Dropped(SandboxError):
    """Safe to repeat for what may happen twice."""

    retryable = True


class Busy(SandboxError):
    """A rate limit or no capacity; `retry_after_s` when the service said so."""

    retryable = True


Show = Callable[[str], Awaitable[None]]
"""Takes printed text as it comes, in any pieces."""


class Machine(Protocol):
    """One running remote sandbox. Every method raises SandboxError, Asleep, Dropped or Busy, without secrets."""

    id: str
    """The vendor's."""
    brief_s: float
    """How long a command is first waited for with `call`, before `stream` is worth its price; 0: stream at once."""

    async def call(self, command: str) -> str:
        """What a short command printed, run to its end; LONGEST_ANSWER at most."""
        ...

    async def stream(self, command: str, show: Show) -> None:
        """Runs a command and shows what it prints; cancelling ends the command's own process."""
        ...

    async def put(self, path: str, content: bytes) -> None:
        """Writes a file, missing folders included."""
        ...

    def get(self, path: str) -> AsyncGenerator[bytes, None]:
        """A file's content as it comes."""
        ...

    async def extend(self) -> None:
        """Puts off the moment when the vendor puts the machine away by itself."""
        ...

    async def pause(self) -> None:
        """Stops it, its files (and where the vendor can, its memory) kept."""
        ...

    async def address(self, port: int) -> Address:
        """Where `port` is reached."""
        ...

    def changes(self, path: str) -> AsyncGenerator[None, None] | None:
        """Yields once when it began to look, then whenever something below `path` changed; None: it cannot tell."""
        ...


THREAD_LABEL = "dialtone-thread"


@dataclass(frozen=True, slots=True)
class Labels:
    """What marks our machines at a vendor."""

    label: str
    """As configured: tells deployments that share an account."""
    installation: str
    """Tells those that were given the same label by mistake; empty where nobody knows it."""

    def new(self, thread_id: ThreadId) -> dict[str, str]:
        """Those of a machine that is made."""
        return {**self.find(None), THREAD_LABEL: thread_id}

    def find(self, thread_id: ThreadId | None) -> dict[str, str]:
        """Those of a thread's machines; None: of all that this installation has made."""
        if thread_id is not None:
            return {"dialtone-label": self.label, THREAD_LABEL: thread_id}
        ours = {"dialtone-installation": self.installation} if self.installation else {}
        return {"dialtone-label": self.label, **ours}


@dataclass(frozen=True, slots=True)
class Found:
    """A machine of ours, as the vendor lists it."""

    id: str
    thread_id: ThreadId
    created_at: datetime

    @property
    def age_key(self) -> tuple[datetime, str]:
        """Orders the machines of one thread, the same for everybody who looks: the first one is the thread's."""
        return self.created_at, self.id


class Fleet(Protocol):
    """One account at a vendor."""

    name: str
    lease_s: float
    """A machine that nobody extends for this long puts itself away."""

    @property
    def gaps(self) -> tuple[str, ...]:
        """What its machines do not promise."""
        ...

    async def check(self) -> None:
        """Raises: SandboxRefused if the key does not hold; SandboxError if the service is out of reach."""
        ...

    async def find(self, thread_id: ThreadId | None = None) -> list[Found]:
        """Our machines, running or put away, of one thread or all that this installation has made."""
        ...

    async def create(self, thread_id: ThreadId) -> Machine:
        """A new machine, labelled as ours."""
        ...

    async def connect(self, machine_id: str) -> Machine:
        """The machine, awake. Raises: Vanished."""
        ...

    async def kill(self, machine_id: str) -> None:
        """Ends a machine for good; one that is gone is no error."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the remote providers are."""

    attempts: int = 4
    """Of a call that fails for a passing reason, without any progress between them."""
    pause_s: float = 0.25
    """Before the second attempt; doubles each time."""
    longest_pause_s: float = 10.0
    beat_s: float = 5.0
    """How often a silent command says that it still runs."""
    silence_s: float = 20.0
    """A stream without any sign for this long counts as dropped."""
    kill_s: float = 10.0
    """Given to the killing of a command whose call was cancelled."""
    leak_s: float = 600.0
    """A machine younger than this is never taken for a leak."""
    least_lease_s: float = 120.0
    """See Fleet.lease_s; twice the configured idle time when that is more."""

    def lease_s(self, *, idle_s: float) -> float:
        return max(self.least_lease_s, 2 * idle_s)

    def pause(self, attempt: int, error: SandboxError) -> float:
        """Seconds to wait after the `attempt`-th failure in a row, 0 for the first."""
        wanted = error.retry_after_s if error.retry_after_s is not None else self.pause_s * 2**attempt
        return min(wanted, self.longest_pause_s)
