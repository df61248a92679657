"""Lets a sandbox start when its tenant has a place for it, over all workers; else it waits, and then is refused."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from time import monotonic

from workflow.core.errors import LimitExceeded, SandboxError, Unavailable
from workflow.core.ids import ThreadId
from workflow.core.ports import Quota

log = logging.getLogger(__name__)

PAUSE_S = 0.25
ANSWER_S = 1.0
"""Other workers have at least this long to put an idle sandbox away."""
HasIdle = Callable[[Collection[ThreadId]], bool]
Free = Callable[[Collection[ThreadId]], Awaitable[bool]]
"""Puts the sandbox of these threads away that was idle for longest; False if this worker has none."""


class Admission:
    """The gate of one provider. Without a quota it is always open."""

    def __init__(self, quota: Quota | None, *, wait_s: float, has_idle: HasIdle, free: Free) -> None:
        """has_idle: whether `free` would find one."""
        self._quota = quota
        self._wait_s = max(wait_s, ANSWER_S)
        self._has_idle = has_idle
        self._free = free
        self._leaving: set[asyncio.Task[None]] = set()

    async def enter(self, thread_id: ThreadId) -> None:
        """Returns when the thread's sandbox may start. Raises: LimitExceeded, Unavailable."""
        if self._quota is None:
            return
        has_waited = False
        deadline = monotonic() + self._wait_s
        try:
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
                has_waited = True
                await self._quota.wait(thread_id, is_over=False)
                await asyncio.sleep(min(PAUSE_S, max(0.0, deadline - monotonic())))
        finally:
            if has_waited:
                with contextlib.suppress(Unavailable):  # The run's next step, or its end, says the same.
                    await self._quota.wait(thread_id, is_over=True)

    async def yield_place(self, thread_ids: Collection[ThreadId]) -> None:
        """Puts one idle sandbox of these threads away for another worker, unless a third one was faster."""
        if self._quota is None:
            return
        try:
            if self._has_idle(thread_ids) and await self._quota.choose(thread_ids):
                await self._free(thread_ids)
        except (Unavailable, SandboxError) as error:
            log.warning("no place was made for another sandbox: %s", error)

    async def keep(self, thread_ids: Collection[ThreadId]) -> None:
        """Keeps the places of what is live."""
        if self._quota is None or not thread_ids:
            return
        try:
            await self._quota.keep(thread_ids)
        except Unavailable as error:
            log.warning("places of sandboxes were not kept: %s", error)

    async def weigh(self, thread_id: ThreadId, disk_bytes: Callable[[], Awaitable[int]]) -> None:
        """Has what a thread's files take noted, where that is limited."""
        if self._quota is None or not self._quota.limits_disk:
            return
        try:
            await self._quota.weigh(thread_id, await disk_bytes())
        except (Unavailable, SandboxError) as error:
            log.warning("the size of a workspace was not noted: %s", error, extra={"thread_id": thread_id})

    async def check_disk(self, thread_id: ThreadId, disk_bytes: Callable[[], Awaitable[int]]) -> None:
        """Raises: LimitExceeded while the tenant's files take more than they may, this thread's as they are now."""
        if self._quota is None or not self._quota.limits_disk:
            return
        try:
            await self._quota.check_disk(thread_id)
        except LimitExceeded:
            await self.weigh(thread_id, disk_bytes)
            await self._quota.check_disk(thread_id)

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
