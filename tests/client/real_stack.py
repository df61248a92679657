"""The whole of Dialtone beside a test: embedded Redis, gateway and worker with the scripted model."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port

READY_S = 60.0
STOP_S = 20.0


@contextmanager
def real_stack(folder: Path, **settings: str) -> Iterator[str]:
    """The address of a stack with its data in `folder`; stopped, and gone, at the end.

    settings: environment overrides, e.g. `DIALTONE_GATEWAY__HEARTBEAT_S="1"`.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIALTONE_", "REDIS_URL"))}
    keys = [name for name in kept if name.endswith("_API_KEY")]
    port = free_port()
    environ = {
        **{name: value for name, value in kept.items() if name not in keys},
        "DIALTONE_CONFIG": str(folder / "config.toml"),
        "DIALTONE_DATA_DIR": str(folder / "var"),
        "DIALTONE_GATEWAY__PORT": str(port),
        "DIALTONE_LLM__DEFAULT": "scripted",
        **settings,
    }
    (folder / "config.toml").touch()
    url = f"http://127.0.0.1:{port}"
    with (folder / "stack.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.stack", "up"],
            env=environ,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(url, process, folder / "stack.log")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            try:
                if client.get(f"{url}/health").json().get("status") == "ok":
                    return
            except httpx.TransportError:
                pass
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)


def script(*turns: dict[str, Any]) -> str:
    """A task that the scripted model plays turn by turn."""
    return f"Play this.\n\n```script\n{json.dumps(turns)}\n```"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """A tool call of a turn."""
    return {"name": name, "arguments": arguments}
