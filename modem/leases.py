"""The heartbeat: keeps the leases of all runs of this process from a thread of its own.

A busy event loop must not starve it, so it has its own thread and its own connection. A lease counts as lost
when the server says so, or when it could not be renewed for as long as it lasts.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from modem import keys
from modem.pool import Connections
from modem.scripts import register_sync
from workflow.core.ids import RunId, thread_of

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lease:
    """One held run. The callbacks are called from the heartbeat's thread."""

    run_id: RunId
    fence: int
    renewed: float
    """Monotonic seconds of the last renewal's beginning."""
    on_lost: Callable[[], None]
    on_cancel: Callable[[], None]
    lost: bool = False


class Heartbeat:
    """Renews every lease each `lease_s / 3`."""

    def __init__(self, connections: Connections, *, lease_s: float) -> None:
        self._lease_s = lease_s
        self._client = connections.sync_client()
        self._renew = register_sync(self._client, "renew")
        self._leases: dict[RunId, Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=self._lease_s)
        self._client.close()

    def hold(self, run_id: RunId, fence: int, *, on_lost: Callable[[], None], on_cancel: Callable[[], None]) -> Lease:
        """Keeps this lease from now on."""
        lease = Lease(run_id, fence, time.monotonic(), on_lost, on_cancel)
        with self._lock:
            self._leases[run_id] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """Keeps it no longer, and says nothing of it any more; for a run that is about to end or be given back."""
        with self._lock:
            if self._leases.get(lease.run_id) is lease:
                del self._leases[lease.run_id]

    def alive(self, lease: Lease) -> bool:
        """True while nobody else can own the run."""
        return not lease.lost and time.monotonic() - lease.renewed < self._lease_s

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / 3):
            with self._lock:
                leases = list(self._leases.values())
            started = time.monotonic()
            try:
                answers = self._renew_all(leases)
            except (redis.RedisError, OSError) as error:
                log.warning("heartbeat missed: %s", error)
                answers = [-1] * len(leases)
            for lease, answer in zip(leases, answers, strict=True):
                self._take(lease, answer, started)

    def _renew_all(self, leases: list[Lease]) -> list[int]:
        if not leases:
            return []
        pipe = self._client.pipeline(transaction=False)
        for lease in leases:
            thread_id = thread_of(lease.run_id)
            self._renew(
                keys=[keys.metadata(thread_id)],
                args=[keys.thread(thread_id), lease.run_id, lease.fence, int(self._lease_s * 1000)],
                client=pipe,
            )
        return [int(answer) for answer in pipe.execute()]

    def _take(self, lease: Lease, answer: int, started: float) -> None:
        with self._lock:
            if self._leases.get(lease.run_id) is not lease:
                return
        if answer > 0:
            lease.renewed = started
        elif not lease.lost and (answer == 0 or not self.alive(lease)):
            lease.lost = True
            log.warning("lease lost", extra={"run_id": lease.run_id})
            lease.on_lost()
        if answer == 2:
            lease.on_cancel()
