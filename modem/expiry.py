"""Deletes threads in which nothing has happened for `runs.keep_days`."""

import asyncio
import logging

from modem import keys
from modem.pool import Connections, translated
from modem.threads import Threads
from workflow.core.errors import Conflict, NotFound, Unavailable
from workflow.core.ids import TenantId, ThreadId, UserId
from workflow.core.records import Caller

log = logging.getLogger(__name__)

EVERY_S = 3600.0
AT_ONCE = 200
"""Threads deleted in one pass; the others follow in the next."""
_DAY_MS = 86_400_000


class Expiry:
    """One pass an hour, by one process of the installation."""

    def __init__(self, connections: Connections, threads: Threads, *, keep_days: float) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._threads = threads
        self._keep_ms = int(keep_days * _DAY_MS)

    async def serve(self) -> None:
        """Goes round until cancelled."""
        while True:
            try:
                async with translated():
                    mine = await self._redis.set(keys.EXPIRY_LOCK, "1", nx=True, px=int(EVERY_S * 900))
                if mine and (count := await self.once()):
                    log.info("%d threads deleted: nothing happened in them for too long", count)
            except Unavailable:
                log.warning("expiry: Redis is away")
            await asyncio.sleep(EVERY_S)

    async def once(self) -> int:
        """One pass; how many threads were deleted. Raises: Unavailable."""
        until = await self._connections.now_ms() - self._keep_ms
        async with translated():
            indexes = [index async for index in self._redis.scan_iter(match=keys.ALL_TENANT_THREADS, count=1000)]
        deleted = 0
        for index in indexes:
            tenant = TenantId(index.decode().partition("{")[2].partition("}")[0])
            async with translated():
                old = await self._redis.zrangebyscore(index, "-inf", until)
            for thread_id in old:
                deleted += await self._expire(tenant, ThreadId(thread_id.decode()), until)
                if deleted == AT_ONCE:
                    return deleted
        return deleted

    async def _expire(self, tenant: TenantId, thread_id: ThreadId, until: int) -> int:
        owner = Caller(tenant=tenant, user=UserId("expiry"), credential="expiry")
        try:
            record = await self._threads.get(owner, thread_id)
            if record.updated_at > until or record.active_run is not None:
                return 0
            await self._threads.delete(owner, thread_id)
        except (NotFound, Conflict):
            return 0
        return 1
