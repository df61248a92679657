"""Lets a sandbox start when its tenant has a place for it, over all workers; else it waits, and then is refused."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from time import monotonic

from workflow.core.errors import LimitExceeded, Unavailable
from workflow.core.ids import ThreadId
from workflow.core.ports import Quota

log = logging.getLogger(__name__)

PAUSE_S = 0.25
Free = Callable[[Collection[ThreadId]], Awaitable[bool]]
"""Puts one idle sandbox of these threads away, if this worker has one."""


class Admission:
    """The gate of one provider. Without a quota it is always open."""

    def __init__(self, quota: Quota | None, *, wait_s: float, free: Free) -> None:
        self._quota = quota
        self._wait_s = wait_s
        self._free = free
        self._leaving: set[asyncio.Task[None]] = set()

    async def enter(self, thread_id: ThreadId) -> None:
        """Returns when the thread's sandbox may start. Raises: LimitExceeded, Unavailable."""
        if self._quota is None:
            return
        deadline = monotonic() + self._wait_s
        while holders := await self._quota.take(thread_id):
            if await self._free(holders):
                continue
            if monotonic() >= deadline:
                raise LimitExceeded(
                    f"{len(holders)} sandboxes of this tenant are live and no more fit into its limits; "
                    f"waited {self._wait_s:g} s for one to end",
                    limit=len(holders),
                    retry_after_s=5,
                )
            await asyncio.sleep(min(PAUSE_S, max(0.0, deadline - monotonic())))

    async def keep(self, thread_ids: Collection[ThreadId]) -> None:
        """Keeps the places of what is live, and frees idle ones that their tenant waits for."""
        if self._quota is None or not thread_ids:
            return
        try:
            wanted = await self._quota.keep(thread_ids)
        except Unavailable as error:
            log.warning("places of sandboxes were not kept: %s", error)
            return
        if wanted:
            await self._free(wanted)

    async def weigh(self, thread_id: ThreadId, disk_bytes: Callable[[], Awaitable[int]]) -> None:
        """Has what a thread's files take noted, where that is limited."""
        if self._quota is None or not self._quota.limits_disk:
            return
        try:
            await self._quota.weigh(thread_id, await disk_bytes())
        except Unavailable as error:
            log.warning("the size of a workspace was not noted: %s", error, extra={"thread_id": thread_id})

    def leave(self, thread_id: ThreadId) -> None:
        """Gives the place back soon."""
        if self._quota is not None:
            task = asyncio.create_task(self._leave(self._quota, thread_id))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Returns when all that left is counted out."""
        await asyncio.gather(*self._leaving)

    @staticmethod
    async def _leave(quota: Quota, thread_id: ThreadId) -> None:
        try:
            await quota.give(thread_id)
        except Unavailable as error:
            log.warning("a place was not given back: %s", error, extra={"thread_id": thread_id})
