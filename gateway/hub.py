"""All streams of this process: one courier, one feed per followed thread, one clock for everything periodic.

The clock gives every stream its heartbeat, its maximal age and its renewed check of the caller, a slice of them at
a time; so an idle stream costs no timer and no task of its own.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from gateway import frames
from gateway.courier_lag import CourierLag
from gateway.errors import problem_of
from gateway.feed import Feed
from gateway.frames import KEEP_ALIVE
from gateway.subscription import Subscription, Wish
from modem.channels import Channels
from modem.pool import Connections
from modem.threads import Threads
from workflow.core.config import AuthSettings, GatewaySettings
from workflow.core.errors import BadCursor, DialtoneError, LimitExceeded, Unavailable
from workflow.core.ids import ThreadId
from workflow.core.records import Caller, RunRecord

_log = logging.getLogger(__name__)

SLICES = 8
"""Heartbeats go out in this many portions, so that thousands of streams do not write at the same moment."""
STUCK_S = 20.0
"""A write that takes longer means a client that does not read; it is cut off."""
_AGE_JITTER = 0.1
_SETTLE_AT_ONCE = 8

Recheck = Callable[[Caller, ThreadId], Awaitable[None]]
"""Raises the error that ends a stream whose caller may no longer see the thread."""


class Hub:
    """Streams of this process. Open with `start`, close with `stop`; `drain` ends the streams before."""

    def __init__(
        self,
        connections: Connections,
        threads: Threads,
        *,
        settings: GatewaySettings,
        auth: AuthSettings,
        recheck: Recheck,
        max_per_tenant: int = 0,
    ) -> None:
        self._connections = connections
        self._threads = threads
        self._settings = settings
        self._recheck_s = auth.recheck_s
        self._recheck = recheck
        self.max_per_tenant = max_per_tenant
        """May be replaced while it works."""
        self._channels = Channels(connections, self)
        self._feeds: dict[ThreadId, Feed] = {}
        self._slices: list[set[Subscription]] = [set() for _ in range(SLICES)]
        self._per_tenant: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling = asyncio.Semaphore(_SETTLE_AT_ONCE)
        self.is_draining = False
        self.lag = CourierLag()
        self.delivered = 0
        """Frames handed to subscribers so far."""
        self.closed: Counter[str] = Counter()
        """Streams that ended so far, by reason."""

    def start(self) -> None:
        """Starts the courier and the clock."""
        self._spawn(self._channels.run())
        self._spawn(self._tick())

    async def stop(self) -> None:
        """Ends everything that `start` began."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """Ends all streams: their clients resume elsewhere. New ones are turned away with a short retry."""
        self.is_draining = True
        for subscription in list(self.subscriptions()):
            subscription.close("draining")

    def subscriptions(self) -> Iterable[Subscription]:
        """All open streams."""
        return (subscription for part in self._slices for subscription in part)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._per_tenant.total()

    @property
    def feeds(self) -> int:
        """How many threads are followed."""
        return len(self._feeds)

    def open(self, caller: Caller, thread_id: ThreadId, wish: Wish) -> Subscription:
        """A place in the thread's stream; `leave` gives it back. Raises: LimitExceeded, Unavailable."""
        if self.is_draining:
            raise Unavailable("this gateway is stopping; connect again", retry_after_s=1)
        if 0 < self.max_per_tenant <= self._per_tenant[caller.tenant]:
            raise LimitExceeded(f"{self.max_per_tenant} streams are open already", retry_after_s=5)
        feed = self._feeds.get(thread_id)
        if feed is None:
            feed = self._feeds[thread_id] = Feed(thread_id, self._connections, self._threads, caller)
            self._channels.watch(thread_id)
        subscription = Subscription(feed, caller, wish, max_bytes=self._settings.client_buffer_bytes)
        now = asyncio.get_running_loop().time()
        age = self._settings.stream_max_age_s * random.uniform(1 - _AGE_JITTER, 1)
        subscription.expires_at = now + age
        subscription.check_at = now + self._recheck_s
        subscription.slot = min(range(SLICES), key=lambda slot: len(self._slices[slot]))
        self._slices[subscription.slot].add(subscription)
        self._per_tenant[caller.tenant] += 1
        feed.subscriptions.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The stream is over; the last one to leave a thread ends its feed."""
        subscription.close("left")
        part = self._slices[subscription.slot]
        if subscription not in part:
            return
        part.remove(subscription)
        tenant = subscription.caller.tenant
        self._per_tenant[tenant] -= 1
        if not self._per_tenant[tenant]:
            del self._per_tenant[tenant]
        self.closed[subscription.closed] += 1
        feed = self._feeds[subscription.thread_id]
        feed.subscriptions.discard(subscription)
        if not feed.subscriptions:
            del self._feeds[feed.thread_id]
            self._channels.unwatch(feed.thread_id)

    def note_waiting(self, run: RunRecord) -> None:
        """Tells the followers of the run's thread, now and at every heartbeat, that it waits and what for."""
        feed = self._feeds.get(run.thread_id)
        if feed is not None:
            feed.note_waiting(run.run_id, run.position, run.waiting_for)

    def heard(self, thread_id: ThreadId, payload: bytes) -> None:
        """A message of the courier."""
        feed = self._feeds.get(thread_id)
        if feed is None:
            return
        try:
            self.delivered += feed.heard(payload)
            self.lag.heard(payload)
        except (ValueError, BadCursor) as error:  # a newer worker may say what we do not know; the log has the facts
            _log.warning("a message of the courier cannot be read: %s", error, extra={"thread_id": thread_id})
            self.confirmed(thread_id)

    def confirmed(self, thread_id: ThreadId) -> None:
        """The courier holds the thread's subscription (again): whatever was missed is in the log."""
        feed = self._feeds.get(thread_id)
        if feed is not None:
            feed.unsettle()
            self._spawn(self._settle(feed))

    def lost(self) -> None:
        """The courier is gone: nobody is live until it is back."""
        for feed in self._feeds.values():
            feed.unsettle()

    async def _settle(self, feed: Feed) -> None:
        async with self._settling:
            while self._feeds.get(feed.thread_id) is feed:
                try:
                    await feed.settle()
                except Unavailable:
                    await asyncio.sleep(0.5)
                else:
                    return

    async def _tick(self) -> None:
        """Visits every stream once per heartbeat."""
        loop = asyncio.get_running_loop()
        while True:
            for part in self._slices:
                await asyncio.sleep(self._settings.heartbeat_s / SLICES)
                now = loop.time()
                due = [subscription for subscription in list(part) if self._visit(subscription, now)]
                if due:
                    self._spawn(self._check(due))
            if waiting := [feed for feed in self._feeds.values() if feed.waiting]:
                self._spawn(self._refresh(waiting))

    def _visit(self, subscription: Subscription, now: float) -> bool:
        """Heartbeat, age and stuck writes; True when the caller is to be checked again."""
        if subscription.writing_since is not None and now - subscription.writing_since > STUCK_S:
            subscription.close("slow")
        elif now > subscription.expires_at:
            subscription.close("too_old")
        elif subscription.is_idle():
            subscription.offer(KEEP_ALIVE)
        if now < subscription.check_at:
            return False
        subscription.check_at = now + self._recheck_s
        return not subscription.closed

    async def _check(self, due: list[Subscription]) -> None:
        """Asks once per caller and thread whether the stream may go on."""
        groups: dict[tuple[str, str, ThreadId], list[Subscription]] = {}
        for one in due:
            groups.setdefault((one.caller.tenant, one.caller.credential, one.thread_id), []).append(one)
        for (_, _, thread_id), group in groups.items():
            try:
                await self._recheck(group[0].caller, thread_id)
            except Unavailable:
                continue  # nothing is known; asked again at the next check
            except DialtoneError as error:
                for one in group:
                    one.close("refused", frames.error(problem_of(error)))

    async def _refresh(self, feeds: list[Feed]) -> None:
        for feed in feeds:
            try:
                await feed.refresh_waiting()
            except DialtoneError as error:
                _log.info("cannot tell who waits: %s", error, extra={"thread_id": feed.thread_id})

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the hub failed: %s", error, exc_info=error)
