"""The container files: linted, and where an engine is not needed, run."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ports import free_port
from workflow.core.config_load import load
from workflow.core.config_toml import read_toml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
BIN = Path(sys.executable).parent


def lint(*command: str) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_has_no_lint() -> None:
    lint("hadolint", str(DOCKER / "Dockerfile"))


def test_the_compose_file_follows_its_specification() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DOCKER / "compose.yaml"))


def test_variables_set_in_containers_are_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    text = (DOCKER / "Dockerfile").read_text() + (DOCKER / "compose.yaml").read_text()
    found = dict(re.findall(r"(DIALTONE_\w+)[=:] ?'?([^\s'\n]+)", text))
    assert len(found) >= 4
    assert load(tmp_path / "config.toml", found).settings.gateway.host == "0.0.0.0"


def test_everything_that_runs_is_copied_into_the_image() -> None:
    copied = re.findall(r"^COPY (\w+) \1$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    packages = read_toml(DOCKER.parent / "pyproject.toml").values["tool"]["uv"]["build-backend"]["module-name"]
    assert set(copied) == {*packages, "scripts"}
    ignored = (DOCKER.parent / ".dockerignore").read_text().splitlines()
    assert {f"!{name}/" for name in copied} <= set(ignored)


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[tuple[int, Path]]:
    """Our configuration on a free port, in front of a gateway that streams one event and then waits."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: seen\ndata: ")
        writer.write(b"|".join(head.splitlines()) + b"\n\n")
        await writer.drain()
        await reader.read()  # until the client leaves
        writer.close()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    port, behind = free_port(), server.sockets[0].getsockname()[1]
    log = tmp_path / "access.log"
    text = (DOCKER / "nginx.conf").read_text()
    text = text.replace("gateway:8080", f"127.0.0.1:{behind}").replace("listen 80;", f"listen 127.0.0.1:{port};")
    text = text.replace("/tmp/", f"{tmp_path}/").replace("/dev/stdout", str(log))
    config = tmp_path / "nginx.conf"
    config.write_text(text)
    process = await asyncio.create_subprocess_exec("nginx", "-c", str(config), "-g", "daemon off;")
    async with server, asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                assert process.returncode is None, "nginx refuses the configuration"
                await asyncio.sleep(0.02)
        writer.close()
        yield port, log
        process.terminate()
        await process.wait()


async def test_nginx_passes_events_on_at_once_and_logs_no_ticket(nginx: tuple[int, Path]) -> None:
    port, log = nginx
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /api/agent/t1/stream?ticket=hunter2 HTTP/1.1\r\nHost: a.example:8080\r\nConnection: keep-alive\r\n\r\n"
    )
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"event: seen\n")
        seen = (await reader.readuntil(b"\n\n")).decode()
    assert b"200 OK" in answer
    assert "GET /api/agent/t1/stream?ticket=hunter2 HTTP/1.1" in seen
    assert "Host: a.example:8080" in seen
    assert "X-Forwarded-For: 127.0.0.1" in seen
    writer.close()
    async with asyncio.timeout(5):
        while not log.exists() or "/stream" not in log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    assert "hunter2" not in log.read_text()


async def test_nginx_passes_websockets_on(nginx: tuple[int, Path]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", nginx[0])
    writer.write(b"GET /api/agent/t1/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    async with asyncio.timeout(5):
        seen = (await reader.readuntil(b"\n\n")).decode()
    assert "Upgrade: websocket|Connection: upgrade" in seen
    writer.close()
