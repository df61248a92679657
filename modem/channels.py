"""The hub's courier: one pub/sub connection for all the threads that somebody in this process watches.

The log is the truth, the courier is only fast: it may lose messages whenever the connection breaks. So it says
aloud when it is lost and when each subscription is confirmed again, and the listener reads the log from there.
redis-py's own PubSub reconnects without a word (65 gaps in a first version, measured); hence the bare connection.
"""

import asyncio
import logging
import random
from collections import deque
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from modem import keys
from modem.pool import Connections
from workflow.core.ids import ThreadId

_log = logging.getLogger(__name__)

BATCH = 256
"""Channels in one SUBSCRIBE."""
PING_S = 10.0
"""A connection that stays silent for three of these is given up."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Listener(Protocol):
    """What the courier tells; all calls come from the event loop and return at once."""

    def heard(self, thread_id: ThreadId, payload: bytes) -> None:
        """A message: `<id>|<envelope>` or `|<delta>`, in the order of the log."""

    def confirmed(self, thread_id: ThreadId) -> None:
        """From now on nothing of this thread is missed, until `lost`."""

    def lost(self) -> None:
        """The connection is gone: anything may be missed until the next `confirmed`."""


class Channels:
    """Subscriptions to the live channels of threads."""

    def __init__(self, connections: Connections, listener: Listener) -> None:
        self._client = connections.pubsub_client()
        self._listener = listener
        self._threads: dict[bytes, ThreadId] = {}
        self._orders: deque[tuple[str, bytes]] = deque()
        self._ordered = asyncio.Event()
        self._heard_at = 0.0

    def watch(self, thread_id: ThreadId) -> None:
        """Subscribes; `confirmed` follows as soon as Redis says so."""
        channel = keys.live(thread_id).encode()
        self._threads[channel] = thread_id
        self._order("SUBSCRIBE", channel)

    def unwatch(self, thread_id: ThreadId) -> None:
        """Unsubscribes; messages under way are dropped."""
        channel = keys.live(thread_id).encode()
        if self._threads.pop(channel, None) is not None:
            self._order("UNSUBSCRIBE", channel)

    async def run(self) -> None:
        """Carries messages until it is cancelled; reconnects with growing pauses."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                started = asyncio.get_running_loop().time()
                try:
                    await self._session()
                except* (RedisError, OSError, TimeoutError) as group:
                    _log.warning("the pub/sub connection is lost: %s", group.exceptions[0])
                self._listener.lost()
                if asyncio.get_running_loop().time() - started > _LONGEST_PAUSE_S:
                    pause_s = _FIRST_PAUSE_S
                await asyncio.sleep(pause_s * (0.5 + random.random()))  # jitter, no secret
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            await self._client.aclose(close_connection_pool=True)

    async def _session(self) -> None:
        """One connection, from the first SUBSCRIBE to the error that ends it."""
        connection: AbstractConnection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
            self._heard_at = asyncio.get_running_loop().time()
            self._orders.clear()
            for channel in self._threads:
                self._order("SUBSCRIBE", channel)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(connection))
                group.create_task(self._send(connection))
        finally:
            await connection.disconnect(nowait=True)

    async def _receive(self, connection: AbstractConnection) -> None:
        loop, threads, listener = asyncio.get_running_loop(), self._threads, self._listener
        while True:
            reply: Any = await connection.read_response(disconnect_on_error=False, push_request=True)
            self._heard_at = loop.time()
            if not isinstance(reply, list) or len(reply) < 3:
                continue
            thread_id = threads.get(reply[1])
            if thread_id is None:
                continue
            if reply[0] == b"message":
                listener.heard(thread_id, reply[2])
            elif reply[0] == b"subscribe":
                listener.confirmed(thread_id)

    async def _send(self, connection: AbstractConnection) -> None:
        """Sends orders in batches, and a PING when there is nothing else to say."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(PING_S):
                    await self._ordered.wait()
            except TimeoutError:
                if loop.time() - self._heard_at > 3 * PING_S:
                    raise ConnectionError("no word from Redis") from None
                await connection.send_command("PING", check_health=False)
            while self._orders:
                verb = self._orders[0][0]
                channels: list[bytes] = []
                while self._orders and self._orders[0][0] == verb and len(channels) < BATCH:
                    channels.append(self._orders.popleft()[1])
                await connection.send_command(verb, *channels, check_health=False)
            self._ordered.clear()

    def _order(self, verb: str, channel: bytes) -> None:
        self._orders.append((verb, channel))
        self._ordered.set()
