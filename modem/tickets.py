"""Secrets that stand for a caller for a while: stream tickets (one use, seconds) and browser sessions (days).

Redis holds only their hashes, so a copy of the database opens nothing.
"""

import hashlib
import secrets

from modem import keys
from modem.pool import Connections, translated
from workflow.core.ids import ThreadId
from workflow.core.records import Caller, Record


class _Ticket(Record):
    caller: Caller
    thread_id: ThreadId


class Tickets:
    """Issues and redeems. Raises everywhere: Unavailable."""

    def __init__(self, connections: Connections) -> None:
        self._redis = connections.commands

    async def issue(self, caller: Caller, thread_id: ThreadId, *, ttl_s: float) -> str:
        """A ticket for one connection to one thread."""
        ticket = secrets.token_urlsafe(32)
        value = _Ticket(caller=caller, thread_id=thread_id).model_dump_json()
        async with translated():
            await self._redis.set(keys.ticket(digest(ticket)), value, px=int(ttl_s * 1000))
        return ticket

    async def redeem(self, ticket: str) -> tuple[Caller, ThreadId] | None:
        """Whom a ticket stands for and where; None if it is unknown, too old or was used."""
        async with translated():
            value = await self._redis.getdel(keys.ticket(digest(ticket)))
        if value is None:
            return None
        held = _Ticket.model_validate_json(value)
        return held.caller, held.thread_id

    async def open_session(self, caller: Caller, *, ttl_s: float) -> str:
        """A secret for a browser's cookie that stands for `caller`."""
        secret = secrets.token_urlsafe(32)
        async with translated():
            await self._redis.set(keys.session(digest(secret)), caller.model_dump_json(), px=int(ttl_s * 1000))
        return secret

    async def session(self, hashed: str) -> Caller | None:
        """The caller of the session whose secret hashes to `hashed`; None if there is none (any more)."""
        async with translated():
            value = await self._redis.get(keys.session(hashed))
        return None if value is None else Caller.model_validate_json(value)

    async def end_session(self, hashed: str) -> None:
        """Forgets a session."""
        async with translated():
            await self._redis.delete(keys.session(hashed))


def digest(secret: str) -> str:
    """What is stored in place of a secret. The secrets are random and long, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()
