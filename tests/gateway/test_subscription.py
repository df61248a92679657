"""How a subscription goes from reading the log to riding along, event by event."""

import asyncio

from gateway.frames import Frame, fact
from gateway.subscription import Subscription, Wish
from modem.stream import START, StreamId
from tests.gateway.playing import LOCAL
from workflow.core.ids import RunId, ThreadId


class Log:
    """A thread's feed at the test's word. `late`: comes while a reader waits for a page that was read before it."""

    thread_id = ThreadId("t")
    is_settled = True

    def __init__(self, *, late: int = 0) -> None:
        self.position = START
        self.waiting: dict[RunId, Frame] = {}
        self.events: list[Frame] = []
        self.live: set[Subscription] = set()
        self.late = late
        self.joined = asyncio.Event()

    def append(self) -> Frame:
        """One more event, which nobody is offered."""
        self.position = StreamId(1, self.position.seq + 1)
        self.events.append(fact(self.position, b"{}"))
        return self.events[-1]

    async def page(self, after: StreamId) -> tuple[list[Frame], bool]:
        page = self.events[after.seq :]
        for _ in range(self.late):
            self.append()
        self.late = 0
        return page, True

    def join(self, subscription: Subscription) -> StreamId:
        self.live.add(subscription)
        self.joined.set()
        return self.position

    def demote(self, subscription: Subscription) -> None:
        self.live.discard(subscription)

    def is_live(self, subscription: Subscription) -> bool:
        return subscription in self.live

    async def foreign(self, cursor: StreamId) -> Frame | None:
        return None

    async def previews(self) -> list[Frame]:
        return []


class Wire:
    """A connection that always takes more."""

    def is_ready(self) -> bool:
        return True

    def write(self, chunk: bytes) -> None:
        raise AssertionError("nothing follows what this client has seen")

    def abort(self) -> None:
        raise AssertionError("nothing is wrong with this client")


async def test_an_event_that_passes_by_just_before_a_reader_joins_is_read() -> None:
    log = Log(late=1)
    batches = Subscription(log, LOCAL, Wish(), max_bytes=1000).batches()
    async with asyncio.timeout(1):  # else it is read with the next event, which may never come
        assert await anext(batches) == log.events


async def test_a_reader_that_an_event_does_not_fit_reads_the_log_at_once() -> None:
    log = Log()
    subscription = Subscription(log, LOCAL, Wish(), max_bytes=1000)
    subscription.wire = Wire()
    batch = asyncio.ensure_future(anext(subscription.batches()))
    async with asyncio.timeout(1):
        await log.joined.wait()
        log.append()
        subscription.offer(log.append())
        assert await batch == log.events
