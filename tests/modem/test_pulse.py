"""A server that stands still: nobody waits for it, and nobody is refused without need."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modem import keys
from modem.broker import Broker
from modem.pool import Connections, translated
from modem.send import Hints
from tests.redis_server import RedisServer
from tests.until import until
from workflow.core.config import RedisSettings, Settings
from workflow.core.errors import Unavailable
from workflow.core.ids import RunId

STALL_S = 0.3
RUN = RunId("0" * 20 + ".00000000")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One of this test's own, for it is stopped."""
    server = RedisServer()
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def watched(server: RedisServer) -> AsyncIterator[Connections]:
    connections = Connections.open(RedisSettings(url=server.url, stall_s=STALL_S, max_connections=2))
    watch = asyncio.create_task(connections.watch())
    try:
        yield connections
    finally:
        watch.cancel()
        await asyncio.wait({watch})
        await connections.close()


async def get(connections: Connections, *, value: bytes = b"") -> None:
    async with translated():
        await (connections.commands.set("k", value) if value else connections.commands.get("k"))


async def test_what_waits_when_the_server_freezes_is_cut_and_what_comes_is_refused(server: RedisServer) -> None:
    async with watched(server) as connections:
        await get(connections)
        blocking: Any = connections.blocking_client(block_s=30)
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(blocking.blpop(["nothing"], timeout=30))]
        await until(lambda: _is_blocked(server), what="the blocking read to reach the server")
        with server.frozen():
            # More than there are connections, and one that the server's socket does not take whole.
            waits += [asyncio.create_task(get(connections, value=b"x" * 8_000_000)) for _ in range(5)]
            async with asyncio.timeout(10):  # less than any of them would wait by itself
                ends = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(end).__name__ for end in ends] == ["ConnectionError", *["Unavailable"] * 5]
            assert connections.pulse.is_stalled
            for _ in range(3):
                with pytest.raises(Unavailable) as refused:
                    await get(connections)
                assert refused.value.retry_after_s == 1
        await until(lambda: _answers(connections), timeout_s=5, what="the server to be used again")
        await blocking.aclose(close_connection_pool=True)


async def test_a_hint_that_the_server_does_not_take_gives_its_thread_back(server: RedisServer) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    async with watched(server) as connections:
        hints = Hints(Broker.of(Settings(redis=RedisSettings(url=server.url))), connections.pulse, timeout_s=0.3)
        await hints.send(RUN)
        with server.frozen():
            await hints.send(RUN)
            async with asyncio.timeout(10):
                assert await asyncio.to_thread(lambda: "the only thread is free")
        await until(lambda: _answers(connections), timeout_s=5, what="the server to be used again")
        await hints.send(RUN)
        assert await connections.commands.llen(keys.HINTS) >= 2
        hints.close()


async def test_a_stall_that_ends_in_a_restart_is_over_when_the_new_server_answers(server: RedisServer) -> None:
    async with watched(server) as connections:
        with server.frozen():
            with pytest.raises(Unavailable):
                await get(connections)
            server.kill()
        with pytest.raises(Unavailable):
            await get(connections)
        server.start()
        await until(lambda: _answers(connections), timeout_s=5, what="the new server to be used")


async def test_a_loop_that_was_busy_itself_takes_nobody_for_stalled(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(server) as connections:
        for _ in range(5):
            await get(connections)
            time.sleep(3 * STALL_S)  # noqa: ASYNC251  # this is what is tested
            for _ in range(20):
                await get(connections)
    assert "stands still" not in caplog.text


async def test_a_server_that_answers_with_an_error_is_not_taken_for_stalled(server: RedisServer) -> None:
    async with watched(server) as connections:
        await get(connections)
        with server.client() as admin:
            admin.config_set("requirepass", "secret")
            admin.execute_command("AUTH", "secret")
            admin.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(3 * STALL_S)  # a few beats; there is nothing to see
            assert not connections.pulse.is_stalled
            admin.config_set("requirepass", "")
        await until(lambda: _answers(connections), timeout_s=5, what="the server to be used again")


async def _is_blocked(server: RedisServer) -> bool:
    def blocked() -> int:
        with server.client() as client:
            return int(client.info("clients")["blocked_clients"])

    return await asyncio.to_thread(blocked) == 1


async def _answers(connections: Connections) -> bool:
    try:
        await get(connections)
    except Unavailable:
        return False
    return True
