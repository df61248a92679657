"""Behind nginx as it comes: nothing but `proxy_pass`, so HTTP/1.0 upstream, buffered answers, one idle limit."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway
from tests.ports import free_port
from tests.until import until_sync

IDLE_LIMIT_S = 1
"""In place of nginx's 60 s, as the heartbeat of these tests (0.3 s) is in place of ours (10 s)."""


@pytest.fixture
async def proxied(gateway: Gateway, tmp_path: Path) -> AsyncIterator[str]:
    """The gateway's address behind nginx."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    temporary = "".join(f"{one}_temp_path {tmp_path}/{one}; " for one in ("proxy", "fastcgi", "uwsgi", "scgi"))
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; gzip on; client_body_temp_path {tmp_path}/body; {temporary}\n"
        f"proxy_read_timeout {IDLE_LIMIT_S}s;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {gateway.url}; }} }} }}\n"
    )
    with subprocess.Popen(["nginx", "-c", str(config), "-e", f"{tmp_path}/error.log"]) as process:
        try:
            await asyncio.to_thread(until_sync, lambda: _is_open(port), what="nginx")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_first_event_comes_within_a_second(proxied: str, worker: Worker) -> None:
    thread = await worker.thread()
    url = f"{proxied}/api/agent/{thread}/stream"
    async with await Reader.open(url, headers={"Accept-Encoding": "gzip"}) as reader:
        turn = await worker.running(thread)
        await reader.until_id((await worker.ids(thread))[-1], timeout_s=1)
        for number in range(5):
            said = await turn.say(f"event {number}")
            await reader.until_id(said[0], timeout_s=1)
        assert reader.ids == await worker.ids(thread)
        assert "content-encoding" not in reader.headers


async def test_an_idle_stream_outlives_the_idle_limit_and_is_still_live(proxied: str, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with await Reader.open(f"{proxied}/api/agent/{thread}/stream") as reader:
        clock = asyncio.get_running_loop().time
        started = clock()
        while clock() - started < 3 * IDLE_LIMIT_S:
            await reader.until_heartbeats(reader.heartbeats + 1)
        said = await turn.say("after the silence")
        await reader.until_id(said[0], timeout_s=1)
        assert reader.ids == await worker.ids(thread)


async def test_resume_and_the_end_pass_through(proxied: str, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say("one", "two")
    ids = await worker.ids(thread)
    url = f"{proxied}/api/agent/{thread}/stream"
    async with await Reader.open(url, headers={"Last-Event-ID": ids[1]}) as reader:
        last = await turn.finish()
        await reader.until_id(last)
        assert reader.ids == [*ids[2:], last]
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url, headers={"Last-Event-ID": last})).status_code == 204
