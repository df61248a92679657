"""The whole line as real processes: a Redis server, gateways and workers, started and killed by tests."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.until import until_sync

ROOT = Path(__file__).parent.parent


@dataclass
class Process:
    """One part of the line, with its output in a file."""

    name: str
    popen: subprocess.Popen[bytes]
    output: Path

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        self.popen.send_signal(sig)

    def wait(self, timeout_s: float = 15) -> int:
        return self.popen.wait(timeout=timeout_s)

    def log(self) -> str:
        return self.output.read_text(errors="replace")


@dataclass
class Line:
    """A line that tests build up and break; `stop()`, or the end of a `with`, ends every process it started."""

    settings: dict[str, str] = field(default_factory=dict)
    """Environment of all parts, e.g. `DIALTONE_RUNS__LEASE_S`."""
    redis: RedisServer = field(default_factory=RedisServer)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dt-line-")))
    processes: list[Process] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, workers: int = 1, gateways: int = 1) -> "Line":
        """Starts everything and waits until it serves."""
        self.redis.start()
        for _ in range(workers):
            self.worker()
        for _ in range(gateways):
            self.gateway()
        self.wait_ready(workers=workers)
        return self

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DIALTONE_", "ANTHROPIC_", "OPENAI_"))}
        return clean | {
            "DIALTONE_REDIS__URL": self.redis.url,
            "DIALTONE_DATA_DIR": str(self.folder / "data"),
            "DIALTONE_GATEWAY__PORT": str(self.port),
            **self.settings,
        }

    def worker(self) -> Process:
        return self.spawn("worker", [sys.executable, "-m", "modem.worker"])

    def gateway(self, port: int | None = None) -> Process:
        extra = {} if port is None else {"DIALTONE_GATEWAY__PORT": str(port)}
        return self.spawn("gateway", [sys.executable, "-m", "gateway"], extra)

    def spawn(self, name: str, command: list[str], extra: dict[str, str] | None = None) -> Process:
        """Starts one part of the line."""
        output = self.folder / f"{name}-{len(self.processes)}.log"
        with output.open("wb") as file:
            popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment() | (extra or {}),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process = Process(name, popen, output)
        self.processes.append(process)
        return process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def health(self) -> dict[str, Any]:
        """What `/health` says; empty while nothing answers."""
        try:
            answer: dict[str, Any] = httpx.get(f"{self.url}/health", timeout=2, trust_env=False).json()
        except (httpx.HTTPError, json.JSONDecodeError):
            return {}
        return answer

    def wait_ready(self, *, workers: int = 1, timeout_s: float = 30) -> None:
        def ready() -> bool:
            for process in self.processes:
                assert process.popen.poll() in {None, -9, 0}, f"{process.name} ended:\n{process.log()}"
            return int(self.health().get("workers", {}).get("alive", 0)) >= workers

        until_sync(ready, timeout_s=timeout_s, what="the line to be ready")

    def alive(self, name: str) -> list[Process]:
        return [p for p in self.processes if p.name == name and p.popen.poll() is None]

    def children(self) -> list[psutil.Process]:
        """Everything that the line's processes have started and that still lives."""
        found: list[psutil.Process] = []
        for process in self.processes:
            if process.popen.poll() is None:
                found += psutil.Process(process.popen.pid).children(recursive=True)
        return found

    def commands(self, text: str) -> list[psutil.Process]:
        """Those of `children` whose command line holds `text`."""
        found = []
        for process in self.children():
            with suppress(psutil.Error):  # it has ended, or is a zombie, since it was listed
                if text in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def logs(self) -> str:
        return "\n".join(f"--- {p.name} {p.popen.pid}\n{p.log()}" for p in self.processes)

    def stop(self) -> None:
        """Ends everything; hard after 15 s."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill(signal.SIGCONT)
                process.kill(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self.redis.stop()


def script(*turns: dict[str, Any], task: str = "Play this.") -> str:
    """A task whose turns the scripted model plays word for word; see docs/models.md."""
    return f"{task}\n```script\n{json.dumps(list(turns))}\n```\n"


def bash(command: str, **arguments: Any) -> dict[str, Any]:
    """A turn that runs one command."""
    return {
        "text": f"I run {command.split()[0]}.",
        "tool_calls": [{"name": "bash", "arguments": {"command": command} | arguments}],
    }
