"""A tenant's live sandboxes and disk, counted in Redis for all workers together."""

from collections.abc import Collection

from modem import keys
from modem.pool import Connections, translated
from workflow.core.config import SandboxSettings
from workflow.core.errors import LimitExceeded
from workflow.core.ids import TenantId, ThreadId

KEPT_MS = 120_000
"""A place is believed for this long after its worker last said so, which is every 30 s."""
ASKED_MS = 1000
"""Who waits asks the workers for a place again after this, if none of them has taken it on."""


class TenantQuota:
    """One worker's side. A thread that nobody knows, such as that of a check, has no tenant and no limit."""

    def __init__(self, connections: Connections, settings: SandboxSettings, *, owner: str) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._scripts = connections.scripts
        self._places = places(settings)
        self._disk_bytes = settings.tenant_disk_bytes
        self._worker, self._owner = owner, owner.replace(" ", "_")

    @property
    def is_limited(self) -> bool:
        """False when there is nothing to count."""
        return bool(self._places or self._disk_bytes)

    @property
    def limits_disk(self) -> bool:
        return bool(self._disk_bytes)

    async def take(self, thread_id: ThreadId) -> Collection[ThreadId]:
        tenant = await self._tenant(thread_id)
        if tenant is None:
            return ()
        async with translated():
            holders = await self._scripts.quota_take(
                keys=[keys.tenant_sandboxes(tenant), keys.tenant_waits(tenant)],
                args=[thread_id, self._owner, self._places, KEPT_MS, ASKED_MS, keys.SIGNALS],
            )
        return [ThreadId(held.decode()) for held in holders]

    async def wait(self, thread_id: ThreadId, *, is_over: bool) -> None:
        async with translated():
            await self._scripts.wait(
                keys=[keys.metadata(thread_id)],
                args=[keys.thread(thread_id), self._worker, "" if is_over else "quota"],
            )

    async def choose(self, thread_ids: Collection[ThreadId]) -> bool:
        for thread_id in thread_ids:
            tenant = await self._tenant(thread_id)
            if tenant is not None:
                async with translated():
                    return bool(await self._redis.delete(keys.tenant_waits(tenant)))
        return False

    async def keep(self, thread_ids: Collection[ThreadId]) -> None:
        until = f"{self._owner} {await self._connections.now_ms() + KEPT_MS}"
        for thread_id in thread_ids:
            tenant = await self._tenant(thread_id)
            if tenant is not None:
                async with translated():
                    await self._redis.hset(keys.tenant_sandboxes(tenant), thread_id, until)

    async def give(self, thread_id: ThreadId) -> None:
        tenant = await self._tenant(thread_id)
        if tenant is not None:
            async with translated():
                await self._scripts.quota_give(keys=[keys.tenant_sandboxes(tenant)], args=[thread_id, self._owner])

    async def check_disk(self, thread_id: ThreadId) -> None:
        tenant = await self._tenant(thread_id)
        if tenant is None or not self._disk_bytes:
            return
        async with translated():
            used = int(await self._redis.hget(keys.tenant_disk(tenant), "") or 0)
        if used >= self._disk_bytes:
            raise LimitExceeded(
                f"the files of this tenant take {used} bytes and {self._disk_bytes} is the limit; "
                "delete files or threads",
                limit=self._disk_bytes,
                retry_after_s=30,
            )

    async def weigh(self, thread_id: ThreadId, disk_bytes: int) -> None:
        tenant = await self._tenant(thread_id)
        if tenant is not None:
            async with translated():
                await self._scripts.quota_weigh(keys=[keys.tenant_disk(tenant)], args=[thread_id, disk_bytes])

    async def _tenant(self, thread_id: ThreadId) -> TenantId | None:
        async with translated():
            tenant = await self._redis.hget(keys.metadata(thread_id), "tenant")
        return None if tenant is None else TenantId(tenant.decode())


def places(settings: SandboxSettings) -> int:
    """How many sandboxes of one tenant may live at once; 0 means any number. Each counts with its own limits."""
    limits = [settings.max_live_per_tenant]
    limits.append(settings.tenant_memory_bytes // settings.memory_bytes)
    limits.append(int(settings.tenant_cpus / settings.cpus))
    return min((limit for limit in limits if limit), default=0)
