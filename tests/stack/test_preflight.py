"""What keeps a stack from starting is said in one line with what to do."""

import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from scripts.stack.plan import Plan
from scripts.stack.preflight import check_data_dir, check_port, watch_disk
from scripts.stack.supervisor import StackError
from tests.ports import free_port
from tests.stack.conftest import StartStack

Usage = namedtuple("Usage", "total used free")


async def test_a_taken_port_is_named_with_the_way_out(plan: Plan, start_stack: StartStack) -> None:
    with socket.create_server(("127.0.0.1", plan.loaded.settings.gateway.port)):
        with pytest.raises(StackError, match=r"port \d+ on 127.0.0.1 is taken .*DIALTONE_GATEWAY__PORT=8081 ./run.sh"):
            async with start_stack(plan):
                pass


def test_a_port_in_time_wait_is_not_taken() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)):
        server.accept()[0].close()  # the side that closes first waits
    check_port("127.0.0.1", port)


def test_a_port_chosen_for_later_is_given_to_nobody_else() -> None:
    chosen = {free_port() for _ in range(50)}
    assert len(chosen) == 50
    given = set()
    for _ in range(50):
        with socket.create_server(("127.0.0.1", 0)) as server:
            given.add(server.getsockname()[1])
    assert not any(min(given) <= port <= max(given) for port in chosen)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_ours_is_said_so(host: str) -> None:
    with pytest.raises(StackError, match="is no address of this machine"):
        check_port(host, 8080)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"cannot use .*DIALTONE_DATA_DIR"):
        check_data_dir(tmp_path / "file" / "var")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_said_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StackError, match="cannot write to"):
        check_data_dir(tmp_path / "var")


def test_a_full_disk_stops_the_start_and_a_fuller_one_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**6))
    with pytest.raises(StackError, match=r"only 1 MB are free under .*make room"):
        check_data_dir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 5 * 10**8))
    assert "only 500 MB are free" in check_data_dir(tmp_path)[0]
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_runs_full_later_is_told_once_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**9, 10**6, 10**6, 10**9, 10**6])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, next(free)))
    told: list[str] = []
    with pytest.raises(RuntimeError):  # the figures have run out
        await watch_disk(tmp_path, told.append, every_s=0)
    assert [line.split()[0] for line in told] == ["only", "there", "only"]
    assert "make room" in told[0]
