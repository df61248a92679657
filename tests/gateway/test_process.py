"""The gateway as an operator runs it: `python -m gateway`, signals, several processes on one port."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import make_settings
from tests.ports import free_port
from workflow.core.config import Settings


class Process:
    """One `python -m gateway`."""

    def __init__(self, settings: Settings, port: int, *, processes: int = 1) -> None:
        self.port = port
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DIALTONE")} | {
            "DIALTONE_REDIS__URL": settings.redis.url,
            "DIALTONE_DATA_DIR": settings.data_dir,
            "DIALTONE_GATEWAY__PORT": str(port),
            "DIALTONE_GATEWAY__PROCESSES": str(processes),
            "DIALTONE_LIMITS__REQUESTS_PER_MINUTE": "0",
        }
        # A file, not a pipe: a pipe that nobody empties stops the process at its next line.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `close`
        self.process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stderr=self._log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ready(self) -> None:
        """Returns once it answers; itself, not another one on the same port."""
        async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as http:
            while True:
                assert self.process.poll() is None, self.log()
                if not self._listens():
                    await asyncio.sleep(0.05)
                    continue
                try:
                    await http.get(f"{self.url}/health")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return

    def _listens(self) -> bool:
        sockets = psutil.Process(self.process.pid).net_connections("tcp")
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == self.port for one in sockets)

    async def end(self, number: int, *, timeout_s: float) -> tuple[int, str]:
        """Sends the signal and waits; gives back exit status and log."""
        self.process.send_signal(number)
        status = await asyncio.to_thread(self.process.wait, timeout=timeout_s)
        return status, self.log()

    def log(self) -> str:
        """What it wrote so far."""
        self._log.seek(0)
        return self._log.read().decode()

    def close(self) -> None:
        """Ends it, however it stands."""
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for one in started:
        one.close()


async def test_stopping_gateway_hands_two_hundred_streams_over_and_nothing_is_lost(
    redis_url: str, tmp_path: Path, processes: list[Process]
) -> None:
    settings = make_settings(redis_url, tmp_path)
    processes += [Process(settings, free_port()), Process(settings, free_port())]
    first, second = processes
    async with Worker(settings) as worker:
        await asyncio.gather(first.ready(), second.ready())
        thread = await worker.thread()
        turn = await worker.running(thread)
        path = f"/api/agent/{thread}/stream"
        readers = [await Reader.open(first.url + path) for _ in range(200)]
        for reader in readers:
            await reader.until(2)
        started = time.monotonic()
        _, (status, log) = await asyncio.gather(
            asyncio.gather(*(reader.until_end() for reader in readers)), first.end(signal.SIGTERM, timeout_s=10)
        )
        assert time.monotonic() - started < 10
        assert status in (0, -signal.SIGTERM)
        assert "Traceback" not in log
        await turn.say(*map(str, range(20)))
        last = await turn.finish()
        ids = await worker.ids(thread)
        for reader in readers:
            assert reader.parser.retry_ms is not None
            async with await Reader.open(second.url + path, headers={"Last-Event-ID": reader.last_id}) as resumed:
                await resumed.until_id(last)
                assert reader.ids + resumed.ids == ids
            await reader.close()


async def test_several_processes_share_one_port(redis_url: str, tmp_path: Path, processes: list[Process]) -> None:
    settings, port = make_settings(redis_url, tmp_path), free_port()
    processes += [Process(settings, port, processes=2) for _ in range(2)]
    async with Worker(settings) as worker:
        await asyncio.gather(*(one.ready() for one in processes))
        thread = await worker.thread()
        turn = await worker.running(thread)
        readers = [await Reader.open(f"{processes[0].url}/api/agent/{thread}/stream") for _ in range(40)]
        last = await turn.finish()
        for reader in readers:
            await reader.until_id(last)
            assert reader.ids == await worker.ids(thread)
        assert [one.process.poll() for one in processes] == [None, None]
        assert (await processes[0].end(signal.SIGTERM, timeout_s=10))[0] in (0, -signal.SIGTERM)
        cut = [reader for reader in readers if await _has_ended(reader)]
        assert 0 < len(cut) < 40
        for reader in readers:
            await reader.close()


async def _has_ended(reader: Reader) -> bool:
    try:
        await reader.until_end(timeout_s=0.05)
    except TimeoutError:
        return False
    return True


async def test_taken_port_is_said_in_one_line(redis_url: str, tmp_path: Path, processes: list[Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        processes.append(Process(make_settings(redis_url, tmp_path), taken.getsockname()[1]))
        assert await asyncio.to_thread(processes[0].process.wait, timeout=30) == 2
    assert "cannot listen" in processes[0].log()
    assert "Traceback" not in processes[0].log()
