"""Links to servers in sandboxes: made by a run, found by the secret in their address, revoked by their owner.

A link holds exactly as long as its record stands in the thread's hash and has not expired, by the clock of Redis.
"""

import base64
import secrets

from modem import keys
from modem.pool import Connections, to_ms, translated
from modem.tickets import digest
from workflow.core.errors import Gone, NotFound
from workflow.core.ids import RunId, ThreadId, thread_of
from workflow.core.records import PreviewLink

MAX_LINKS = 50
"""Of one thread; a further one ends the oldest."""
REMEMBERED_S = 86_400
"""How long a link that ended is still told apart from one that never was."""


class Links:
    """All links of the installation. Raises everywhere: Unavailable."""

    def __init__(self, connections: Connections, *, template: str, worker: str = "") -> None:
        """template: the address, `{id}` standing for the secret. worker: the one that makes links with `expose`."""
        self._connections = connections
        self._redis = connections.commands
        self._template = template
        self._worker = worker

    async def expose(self, run_id: RunId, *, port: int, path: str, ttl_s: float) -> PreviewLink:
        """A new link to `port` of the run's sandbox. Raises: NotFound when the thread is gone."""
        thread_id = thread_of(run_id)
        # Base32 in small letters: 130 random bits that survive a host name, which knows no capitals.
        secret = base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
        hashed = digest(secret)
        async with translated():
            tenant = await self._redis.hget(keys.metadata(thread_id), "tenant")
            if tenant is None:
                raise NotFound(f"no thread {thread_id}")
            now_ms = await self._connections.now_ms()
            link = PreviewLink(
                id=hashed[:16],
                thread_id=thread_id,
                run_id=run_id,
                tenant=tenant.decode(),
                port=port,
                url=self._template.replace("{id}", secret) + path,
                created_at=now_ms,
                expires_at=now_ms + int(ttl_s * 1000),
                worker=self._worker,
            )
            await self._make_room(thread_id)
            await self._redis.hset(keys.links(thread_id), link.id, link.model_dump_json())
            await self._redis.set(keys.link(hashed), f"{thread_id} {link.id}", ex=int(ttl_s) + REMEMBERED_S)
        return link

    async def find(self, secret: str) -> PreviewLink:
        """The link with this secret. Raises: NotFound if there never was one; Gone if it does not hold any more."""
        async with translated():
            found = await self._redis.get(keys.link(digest(secret)))
            if found is None:
                raise NotFound("there is no such preview")
            thread_id, link_id = found.decode().split()
            link = await self._load(ThreadId(thread_id), link_id)
        if link is None:
            raise Gone("this preview has expired or was revoked")
        return link

    async def holds(self, link: PreviewLink) -> bool:
        """Whether a link that was found before still holds."""
        async with translated():
            return await self._load(link.thread_id, link.id) is not None

    async def of_thread(self, thread_id: ThreadId) -> list[PreviewLink]:
        """The thread's links that hold, oldest first."""
        async with translated():
            stored = await self._redis.hvals(keys.links(thread_id))
            now_ms = await self._connections.now_ms()
        links = [PreviewLink.model_validate_json(value) for value in stored]
        return sorted((link for link in links if link.expires_at > now_ms), key=lambda link: (link.created_at, link.id))

    async def revoke(self, thread_id: ThreadId, link_id: str) -> None:
        """Ends a link at once. Raises: NotFound if the thread has none of this id."""
        async with translated():
            if not await self._redis.hdel(keys.links(thread_id), link_id):
                raise NotFound(f"no preview {link_id}")

    async def _load(self, thread_id: ThreadId, link_id: str) -> PreviewLink | None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(keys.links(thread_id), link_id)
        pipe.time()
        stored, time = await pipe.execute()
        if stored is None:
            return None
        link = PreviewLink.model_validate_json(stored)
        return link if link.expires_at > to_ms(time) else None

    async def _make_room(self, thread_id: ThreadId) -> None:
        """Ends expired links, and the oldest ones where there are too many."""
        stored = await self._redis.hvals(keys.links(thread_id))
        if len(stored) >= MAX_LINKS:
            links = sorted(map(PreviewLink.model_validate_json, stored), key=lambda link: link.expires_at)
            doomed = [link.id for link in links[: len(links) - MAX_LINKS + 1]]
            await self._redis.hdel(keys.links(thread_id), *doomed)
