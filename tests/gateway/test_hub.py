"""Many readers, one courier: what happens when connections, readers or Redis itself fail."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import redis

from modem import keys
from tests.gateway.playing import Turn, Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway, make_settings
from tests.redis_server import RedisServer
from workflow.core.config import Settings
from workflow.core.ids import ThreadId

EVENTS = int(os.environ.get("DIALTONE_TEST_EVENTS", "2000"))
"""Events that 50 dropping clients follow; 100000 for the long run."""


async def write_all(turn: Turn, count: int, *, at_once: int = 10) -> None:
    """`count` events and the end of the run."""
    for start in range(0, count, at_once):
        await turn.say(*(f"event {number}" for number in range(start, min(start + at_once, count))))
    await turn.finish()


async def drop_and_resume(url: str, last: asyncio.Future[str], *, chance: float) -> list[str]:
    """Follows a stream as an EventSource would, leaving at random; gives back the ids of all that came."""
    seen: list[str] = []
    last_id = ""
    while not last.done() or last_id != last.result():
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with await Reader.open(url, headers=headers) as reader:
            if reader.status == 204:
                break
            assert reader.status == 200
            while await reader.more():
                if random.random() < chance or (last.done() and reader.last_id == last.result()):
                    break
            seen += reader.ids
            last_id = reader.last_id or last_id
    return seen


async def test_readers_that_drop_and_resume_at_random_get_every_event_once_and_in_order(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    last: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    url = f"{gateway.url}/api/agent/{thread}/stream"
    async with asyncio.timeout(20 + EVENTS / 100), asyncio.TaskGroup() as group:
        readers = [group.create_task(drop_and_resume(url, last, chance=0.02)) for _ in range(50)]
        await write_all(turn, EVENTS)
        last.set_result((await worker.log.bounds(thread)).last_id.__str__())
    ids = await worker.ids(thread)
    assert len(ids) == EVENTS + 3
    assert all(reader.result() == ids for reader in readers)


async def test_nothing_is_lost_when_the_courier_is_cut_again_and_again(
    gateway: Gateway, worker: Worker, redis_url: str
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    killer = redis.Redis.from_url(redis_url)
    readers = [await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") for _ in range(20)]
    for reader in readers:
        await reader.until(2)
    kills = 0
    for number in range(60):
        await turn.say(*(f"event {number}.{part}" for part in range(5)))
        if number % 12 == 5:
            await until(lambda: bool(killer.client_list(_type="pubsub")))
            kills += killer.client_kill_filter(_type="pubsub")
    last = await turn.finish()
    ids = await worker.ids(thread)
    for reader in readers:
        await reader.until_id(last)
        assert reader.ids == ids
        await reader.close()
    killer.close()
    assert kills >= 3


async def test_a_message_that_nobody_understands_stops_no_stream(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(2)
        for payload in ("news|of a later version", "|no json", "no-mark", b"\xff|"):
            await worker.connections.commands.publish(keys.live(thread), payload)
            await turn.say("goes on")
        ids = await worker.ids(thread)
        await reader.until_id(ids[-1])
        assert reader.ids == ids


async def test_three_hundred_readers_cost_redis_ten_connections(
    gateway: Gateway, settings: Settings, redis_url: str
) -> None:
    async with Worker(settings) as worker:
        threads = [await worker.thread() for _ in range(30)]
        turns = [await worker.running(thread) for thread in threads]
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            opened = [
                group.create_task(Reader.open(f"{gateway.url}/api/agent/{thread}/stream"))
                for thread in threads
                for _ in range(10)
            ]
        readers = [task.result() for task in opened]
        for turn in turns:
            await turn.say("hello")
        for reader in readers:
            await reader.until(3)
    assert gateway.services.hub.streams == 300
    with redis.Redis.from_url(redis_url) as watcher:
        await until(lambda: len(watcher.client_list()) - 1 <= 10)  # the worker's go as it closes, ours is one
    for reader in readers:
        await reader.close()


async def test_a_thousand_connects_and_disconnects_leave_nothing_behind(
    gateway: Gateway, worker: Worker, redis_url: str
) -> None:
    thread = await worker.thread()
    await worker.running(thread)
    url = f"{gateway.url}/api/agent/{thread}/stream"
    await connect_and_leave(url, 50)
    await until(lambda: gateway.services.hub.streams == 0)
    with redis.Redis.from_url(redis_url) as watcher:
        before = (psutil.Process().num_fds(), len(asyncio.all_tasks()), len(watcher.client_list()))
        for _ in range(19):
            await connect_and_leave(url, 50)

        def is_back() -> bool:
            now = (psutil.Process().num_fds(), len(asyncio.all_tasks()), len(watcher.client_list()))
            return gateway.services.hub.feeds == 0 and all(b <= a + 2 for a, b in zip(before, now, strict=True))

        await until(is_back)


async def test_an_idle_stream_is_two_tasks(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    await worker.running(thread)
    before = len(asyncio.all_tasks())
    readers = [await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") for _ in range(50)]
    for reader in readers:
        await reader.until(2)
    await until(lambda: len(asyncio.all_tasks()) - before <= 2 * 50)  # what opened them has ended
    assert gateway.services.hub.streams == 50
    for reader in readers:
        await reader.close()


async def connect_and_leave(url: str, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(Reader.open(url)) for _ in range(count)]
    for task in opened:
        await task.result().until(1)
        await task.result().close()


async def until(claim: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Returns as soon as `claim()` holds."""
    async with asyncio.timeout(timeout_s):
        while not claim():  # noqa: ASYNC110  # what is watched lives in other processes and libraries
            await asyncio.sleep(0.02)


@pytest.fixture
def small_buffers(redis_url: str, tmp_path: Path) -> Settings:
    return make_settings(redis_url, tmp_path, gateway={"client_buffer_bytes": 200_000})


async def test_two_hundred_readers_that_do_not_read_are_cut_off_and_nobody_waits_for_them(
    small_buffers: Settings,
) -> None:
    async with Gateway(small_buffers) as gateway, Worker(small_buffers) as worker:
        thread = await worker.thread()
        turn = await worker.running(thread)
        url = f"{gateway.url}/api/agent/{thread}/stream"
        healthy = [await Reader.open(url) for _ in range(50)]
        stuck = [await open_and_never_read(url) for _ in range(200)]
        hub = gateway.services.hub
        await until(lambda: len(followers(gateway, thread)) == 250)
        for number in range(40):
            said = await turn.say(f"{number} " + "x" * 50_000)
            # The next event is written only after all healthy readers have this one, however the stuck ones stand.
            await asyncio.gather(*(reader.until_id(said[0]) for reader in healthy))
        await until(lambda: hub.closed["slow"] == 200)
        assert hub.streams == 50
        last = await turn.finish()
        ids = await worker.ids(thread)
        for reader in healthy:
            await reader.until_id(last)
            assert reader.ids == ids
            await reader.close()
        for client in stuck:
            client.close()


async def open_and_never_read(url: str) -> socket.socket:
    """A client that sends its request and then takes nothing."""
    parts = urlsplit(url)
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(client, (parts.hostname, parts.port))
    client.send(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return client


def followers(gateway: Gateway, thread: ThreadId) -> list[object]:
    return [one for one in gateway.services.hub.subscriptions() if one.thread_id == thread]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def over_own_redis(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[tuple[Gateway, Worker]]:
    settings = make_settings(own_redis.url, tmp_path, gateway={"heartbeat_s": 0.2})
    async with Gateway(settings) as gateway, Worker(settings) as worker:
        yield gateway, worker


async def test_streams_stay_open_while_redis_is_away_and_catch_up_when_it_is_back(
    over_own_redis: tuple[Gateway, Worker], own_redis: RedisServer
) -> None:
    gateway, worker = over_own_redis
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(2)
        await asyncio.to_thread(own_redis.sync)
        own_redis.kill()
        seen = reader.heartbeats
        await reader.until_heartbeats(seen + 3)
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
            answer = await http.get(f"/api/agent/{thread}/stream")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert "retry-after" in answer.headers
            assert (await http.get("/health")).status_code == 503
        own_redis.start()
        said = await turn.say("back")
        await reader.until(3)
        assert reader.ids[-1:] == said


async def test_log_that_lost_its_end_resets_its_readers(
    over_own_redis: tuple[Gateway, Worker], own_redis: RedisServer
) -> None:
    gateway, worker = over_own_redis
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say("kept")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(3)
        with redis.Redis.from_url(own_redis.url) as client:
            lost = reader.last_id
            client.xdel(f"thread:{{{thread}}}:stream", lost)
            client.hincrby(f"thread:{{{thread}}}:metadata", "seq", -1)
            client.client_kill_filter(_type="pubsub")
        message = await reader.until_event("reset")
        assert message.id is not None
        assert message.id != lost


async def test_who_comes_during_a_drain_is_told_to_come_back_as_an_event_source_understands_it(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    gateway.services.hub.drain()
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        assert (reader.status, reader.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (await reader.body()).startswith(b"retry: ")


async def test_no_stream_outlives_a_drain(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    await worker.running(thread)
    readers = [await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") for _ in range(20)]
    for reader in readers:
        await reader.until(2)
    await gateway.stop()
    for reader in readers:
        await reader.until_end()
        assert reader.parser.retry_ms is not None
        await reader.close()
