"""Notices for other servers: recorded with the event itself, queued for delivery, kept when they cannot be delivered.

The script that appends an event which somebody outside wants to hear of puts a copy into the thread's outbox, so
none is lost. `relay` carries it from there to the delivery queue; whoever ends, parks or reaps a run calls it before
the run is forgotten, so a crash in between is healed by the reaper. A notice's id is derived from its event: carried
over or delivered twice, it is the same notice.
"""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from modem import keys
from modem.pages import cursor_of, rank_after
from modem.pool import Connections, translated
from workflow.core.addresses import checked_url
from workflow.core.config import WebhookSettings
from workflow.core.errors import BadInput, Conflict, DialtoneError, NotFound
from workflow.core.ids import RunId, TenantId, ThreadId
from workflow.core.records import Record

KEEP_DEAD_MS = 14 * 86_400_000
MOST_DEAD = 1000
"""Per tenant; the oldest go first. A notice is a few kilobytes."""

_NOTICE_ID = re.compile(r"msg_[0-9a-f]{32}")

Outcome = Literal["delivered", "again", "later", "dead"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice that this worker holds until `lease` (ms)."""

    id: str
    tenant: TenantId
    url: str
    body: bytes
    attempts: int
    """Deliveries tried before."""
    lease: int


class DeadNotice(Record):
    """A notice that was given up; kept for 14 days. Times are milliseconds since 1970."""

    id: str = Field(description="the `webhook-id` that every delivery of it carried")
    type: str = Field(description="the event's type", examples=["run.finished"])
    tenant: TenantId
    thread_id: ThreadId
    run_id: RunId
    url: str
    attempts: int
    result: str = Field(description="how the last attempt ended", examples=["HTTP 503"])
    created_at: int
    died_at: int


def check_address(url: str, settings: WebhookSettings) -> None:
    """Raises: BadInput when notices to `url` are not possible here, as far as its text tells."""
    if not settings.enabled:
        raise BadInput("webhooks are switched off here", field="webhook")
    if settings.secret is None:
        raise BadInput("webhooks.secret is not set here, and no notice goes out unsigned", field="webhook")
    try:
        checked_url(url, allow_private=settings.allow_private)
    except DialtoneError as error:
        raise BadInput(f"webhook: {error.message}", field="webhook") from error


def is_notice_id(text: str) -> bool:
    """True if `text` has the form of a notice's id."""
    return _NOTICE_ID.fullmatch(text) is not None


class Webhooks:
    """The outboxes of all threads, the delivery queue and the dead notices. Raises everywhere: Unavailable."""

    def __init__(self, connections: Connections) -> None:
        self._redis = connections.commands
        self._scripts = connections.scripts
        self.news = asyncio.Event()
        """Set when this process put something on the queue."""

    async def relay(self, thread_id: ThreadId) -> None:
        """Carries a thread's outbox to the delivery queue; doing it twice, or half, does no harm."""
        async with translated():
            entries: dict[bytes, bytes] = await self._redis.hgetall(keys.outbox(thread_id))
            if not entries:
                return
            tenant = (await self._redis.hget(keys.metadata(thread_id), "tenant")).decode()
            for event_id, entry in sorted(entries.items()):
                fields = _fields(entry) | {"tenant": tenant}
                notice_id = _notice_id(thread_id, event_id)
                await self._scripts.hook_add(
                    keys=[keys.notice(notice_id), keys.HOOKS_DUE],
                    args=[notice_id, *(part for pair in fields.items() for part in pair)],
                )
            await self._redis.hdel(keys.outbox(thread_id), *entries)
        self.news.set()

    async def take(self, *, limit: int, lease_s: float) -> list[Delivery]:
        """At most `limit` notices that are due, held for `lease_s`."""
        async with translated():
            lease, *ids = await self._scripts.take_due(keys=[keys.HOOKS_DUE], args=[limit, int(lease_s * 1000)])
            pipe = self._redis.pipeline(transaction=False)
            for notice_id in ids:
                pipe.hmget(keys.notice(notice_id.decode()), "tenant", "url", "body", "attempts")
            found = await pipe.execute()
        return [
            Delivery(
                id=notice_id.decode(),
                tenant=TenantId(tenant.decode()),
                url=url.decode(),
                body=body,
                attempts=int(attempts),
                lease=int(lease),
            )
            for notice_id, (tenant, url, body, attempts) in zip(ids, found, strict=True)
            if tenant is not None
        ]

    async def settle(self, delivery: Delivery, outcome: Outcome, *, result: str = "", wait_s: float = 0) -> None:
        """Records how a delivery ended; nothing happens if another worker holds the notice by now."""
        async with translated():
            await self._scripts.hook_settle(
                keys=self._keys(delivery.tenant, delivery.id),
                args=[
                    delivery.id,
                    delivery.lease,
                    outcome,
                    result,
                    int(wait_s * 1000),
                    KEEP_DEAD_MS,
                    MOST_DEAD,
                    keys.notice(""),
                ],
            )

    async def dead(self, tenant: TenantId | None, *, limit: int = 50, cursor: str = "") -> tuple[list[DeadNotice], str]:
        """The dead notices of a tenant, or of all, newest first, and the cursor of the next page ('' at the end).

        Raises: BadInput for what is no cursor, Unavailable.
        """
        index = keys.HOOKS_DEAD if tenant is None else keys.dead_notices(tenant)
        async with translated():
            start = await rank_after(self._redis, index, cursor)
            page = await self._redis.zrevrange(index, start, start + limit - 1, withscores=True)
            ids = [name.decode() for name, _ in page]
            pipe = self._redis.pipeline(transaction=False)
            for notice_id in ids:
                pipe.hgetall(keys.notice(notice_id))
            found = await pipe.execute()
        notices = [
            DeadNotice.model_validate(
                {"id": notice_id} | {name.decode(): value.decode() for name, value in raw.items()}
            )
            for notice_id, raw in zip(ids, found, strict=True)
            if raw
        ]
        return notices, cursor_of(page[-1][1], ids[-1]) if len(ids) == limit else ""

    async def replay(self, tenant: TenantId, notice_id: str) -> None:
        """Delivers a dead notice again, from its first attempt on. Raises: NotFound, Conflict when it is not dead."""
        await self._own(tenant, notice_id)
        async with translated():
            done = await self._scripts.hook_replay(keys=self._keys(tenant, notice_id), args=[notice_id])
        if not done:
            raise Conflict(f"notice {notice_id} is still being delivered")
        self.news.set()

    async def delete(self, tenant: TenantId, notice_id: str) -> None:
        """Forgets a notice, dead or not. Raises: NotFound."""
        await self._own(tenant, notice_id)
        due, notice, *dead = self._keys(tenant, notice_id)
        async with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.unlink(notice)
            for index in (due, *dead):
                pipe.zrem(index, notice_id)
            await pipe.execute()

    async def backlog(self) -> tuple[int, int]:
        """How many notices wait to be delivered, and how many are dead."""
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zcard(keys.HOOKS_DUE)
            pipe.zcard(keys.HOOKS_DEAD)
            due, dead = await pipe.execute()
        return due, dead

    async def owner(self, notice_id: str) -> TenantId:
        """Whose notice it is. Raises: NotFound."""
        async with translated():
            owner = await self._redis.hget(keys.notice(notice_id), "tenant")
        if owner is None:
            raise NotFound(f"no notice {notice_id}")
        return TenantId(owner.decode())

    async def _own(self, tenant: TenantId, notice_id: str) -> None:
        if await self.owner(notice_id) != tenant:
            raise NotFound(f"no notice {notice_id}")

    @staticmethod
    def _keys(tenant: TenantId, notice_id: str) -> list[str]:
        return [keys.HOOKS_DUE, keys.notice(notice_id), keys.HOOKS_DEAD, keys.dead_notices(tenant)]


def _notice_id(thread_id: ThreadId, event_id: bytes) -> str:
    return "msg_" + hashlib.sha256(f"{thread_id} {event_id.decode()}".encode()).hexdigest()[:32]


def _fields(entry: bytes) -> dict[str, str | bytes]:
    """What a notice says, from its outbox entry `<url> <envelope>`."""
    url, _, envelope = entry.partition(b" ")
    event = json.loads(envelope)
    when = datetime.fromtimestamp(event["at"] / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = json.dumps({"type": event["type"], "timestamp": when})
    return {
        "url": url,
        "type": event["type"],
        "thread_id": event["thread_id"],
        "run_id": event["run_id"],
        "body": head[:-1].encode() + b', "data": ' + envelope + b"}",
    }
