"""Connections to Redis: one profile for commands, one for pub/sub, one for blocking reads, one for threads.

redis-py repeats a timed-out write by itself and so doubles it; commands here are tried once, and whoever can
repeat safely (the fenced scripts) does so itself. Source: measured, docs/decisions/0001-one-log-per-thread.md
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry

from modem.pulse import Pulse
from modem.scripts import Scripts
from workflow.core.config import RedisSettings
from workflow.core.errors import ConfigError, Unavailable

MIN_VERSION = (6, 2)


class Connections:
    """Everything a process needs to speak to Redis; open once, close once."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._url = broker_url(settings)
        # Else every new connection looks for the version of redis-py on the disk, 5 ms each.
        self._driver = DriverInfo()
        self.pulse = Pulse(stall_s=settings.stall_s)
        # Any: the stubs of redis-py cannot say that nothing is decoded here.
        self.commands: Any = self._client(max_connections=settings.max_connections, timeout_s=settings.timeout_s)
        self.scripts = Scripts(self.commands)

    @classmethod
    def open(cls, settings: RedisSettings) -> "Connections":
        """Connections for `settings`; nothing is sent before the first command."""
        return cls(settings)

    async def now_ms(self) -> int:
        """The server's clock, in milliseconds since 1970. Raises: Unavailable."""
        async with translated():
            return to_ms(await self.commands.time())

    async def watch(self) -> None:
        """Until cancelled: while the server stands still, cuts short what waits for it and refuses what comes."""
        client = self._client(max_connections=1, timeout_s=self._settings.timeout_s, is_guarded=False)
        try:
            await self.pulse.serve(client)
        finally:
            await client.aclose(close_connection_pool=True)

    def pubsub_client(self) -> aioredis.Redis:
        """A client of its own for pub/sub: reads wait for ever, also while the server stands still; writes do not."""
        return self._client(max_connections=2, timeout_s=None, is_guarded=False)

    def blocking_client(self, *, block_s: float) -> aioredis.Redis:
        """A client whose reads may block for `block_s` before they count as failed."""
        return self._client(max_connections=4, timeout_s=block_s + 5)

    def sync_client(self) -> redis.Redis:
        """A client for one thread of its own."""
        return redis.Redis.from_url(
            self._url,
            socket_timeout=self._settings.timeout_s,
            socket_connect_timeout=self._settings.timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    def _client(self, *, max_connections: int, timeout_s: float | None, is_guarded: bool = True) -> aioredis.Redis:
        pool = aioredis.BlockingConnectionPool.from_url(
            self._url,
            max_connections=max_connections,
            timeout=self._settings.timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=self._settings.timeout_s,
            retry=AsyncRetry(NoBackoff(), 0),
            health_check_interval=0,
            driver_info=self._driver,
        )
        mixins = (_Guarded, _Sends) if is_guarded else (_Sends,)
        pool.connection_class = type("Connection", (*mixins, pool.connection_class), {"pulse": self.pulse})
        return aioredis.Redis(connection_pool=pool)

    async def check(self) -> str:
        """The server's version. Raises: Unavailable when it does not answer, ConfigError when it is too old."""
        async with translated():
            info: dict[str, Any] = await self.commands.info("server")
        version = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
            need = ".".join(map(str, MIN_VERSION))
            raise ConfigError(f"Redis {version} is too old: {need} or newer is needed (XADD, Lua, streams)")
        return version

    async def close(self) -> None:
        await self.commands.aclose(close_connection_pool=True)


def to_ms(time: tuple[int, int]) -> int:
    """What the server answers to TIME, in milliseconds since 1970."""
    seconds, micros = time
    return seconds * 1000 + micros // 1000


class _Sends:
    """Mixed into redis-py's connections, which send inside `asyncio.wait_for`. Up to Python 3.11 that swallows a cancel
    when the send has just ended, so that a task goes on for ever; and it takes a task and two rounds of the loop.
    """

    async def send_packed_command(self: Any, command: str | bytes | Iterable[bytes], check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        packed = (
            [command.encode() if isinstance(command, str) else command] if isinstance(command, str | bytes) else command
        )
        try:
            self._writer.writelines(packed)
            async with asyncio.timeout(self.socket_timeout):
                await self._writer.drain()
        except BaseException as error:
            await self.disconnect(nowait=True)  # half of a command may be on its way
            if isinstance(error, TimeoutError):
                raise redis.TimeoutError("timeout writing to socket") from None
            if isinstance(error, OSError):
                raise redis.ConnectionError(f"cannot write to socket: {error}") from error
            raise


class _Guarded:
    """Mixed into connections of which none may wait for a server that stands still."""

    pulse: Pulse

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pulse.connections.add(self)

    async def connect(self) -> None:
        """Called by the pool before every command, also on a connection that is open already."""
        self.pulse.check()
        if not self.is_connected:  # type: ignore[attr-defined]  # of the class it is mixed into
            async with self.pulse.guard():
                await super().connect()  # type: ignore[misc]  # likewise

    def cut(self) -> None:
        """Closes the connection without a word: `disconnect` would first send what the server does not take."""
        writer: asyncio.StreamWriter | None = self._writer  # type: ignore[attr-defined]  # likewise
        if writer is not None:
            writer.transport.abort()


def broker_url(settings: RedisSettings) -> str:
    """`settings.url` as redis-py reads it, with the password from the environment when it has none."""
    url, password = settings.url, settings.password
    if password is None or urlsplit(url).password:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=f":{password.get_secret_value()}@{parts.netloc}").geturl()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turns what redis-py raises for an absent, stalled or full server into Unavailable."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, TimeoutError, OSError) as error:
        raise Unavailable("Redis does not answer; try again in a moment", retry_after_s=1) from error
    except redis.OutOfMemoryError as error:
        raise Unavailable("Redis is out of memory; nothing was stored", retry_after_s=5) from error
    except redis.ResponseError as error:
        if "OOM" in str(error):
            raise Unavailable("Redis is out of memory; nothing was stored", retry_after_s=5) from error
        if str(error).startswith(("LOADING", "READONLY", "MASTERDOWN", "MISCONF")):
            raise Unavailable("Redis is not ready; try again in a moment", retry_after_s=1) from error
        raise
