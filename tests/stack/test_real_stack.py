"""`./run.sh` with the real gateway, worker and Redis: what a newcomer types, and what is left afterwards."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from scripts.stack.health import get_health
from tests.line import bash, script
from tests.stack.conftest import Beside, Launch, gone, own_environ
from tests.stack.test_run_sh import ROOT, RUN, installed

README = (ROOT / "README.md").read_text(encoding="utf-8")


def keyless(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """`environ` without keys and without a model server, so that the scripted model plays."""
    kept = {name: value for name, value in environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
    return {**installed(kept, folder), "OLLAMA_HOST": "127.0.0.1:9", "DIALTONE_LOG__FORMAT": "color"}


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return keyless(environ, tmp_path)


@dataclass(frozen=True)
class Standing:
    """A stack that several tests use."""

    environ: dict[str, str]
    log: Path
    pid: int = 0

    def parts(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    async def says(self, text: str, *, timeout_s: float = 60) -> None:
        """Returns once its log holds `text`."""
        async with asyncio.timeout(timeout_s):
            while text not in self.log.read_text(encoding="utf-8"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("standing")
    environ = keyless(own_environ(folder), folder)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([str(RUN)], env=environ, stdout=out, stderr=out, start_new_session=True)
        try:
            asyncio.run(Standing(environ, log).says("is ready"))
            yield Standing(environ, log, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


async def execute(port: int, task: str) -> None:
    """Starts a run through the API; nothing but a socket is needed for that."""

    async def post(path: str, body: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = [f"POST {path} HTTP/1.0", "Host: localhost", "Content-Type: application/json"]
        writer.write("\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer

    found = re.search(r'"thread_id": ?"(\w+)"', await post("/api/agent/initiate", "{}"))
    assert found
    assert " 202 " in await post(f"/api/agent/{found[1]}/execute", json.dumps({"task": task}))


async def until_asleep(beside: Beside) -> list[psutil.Process]:
    """The whole family, once a command sleeps in a sandbox."""
    async with asyncio.timeout(60):
        while True:
            processes = beside.descendants()
            if any(_is_asleep(process) for process in processes):
                return processes
            await asyncio.sleep(0.05)


def _is_asleep(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == "sleep"
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_ending_run_sh_amid_a_run_leaves_no_process_within_five_seconds(
    launch: Launch, environ: dict[str, str], number: signal.Signals
) -> None:
    beside = await launch(str(RUN))
    await beside.until_all("is ready")
    await execute(int(environ["DIALTONE_GATEWAY__PORT"]), script(bash("sleep 100")))
    processes = await until_asleep(beside)
    os.kill(beside.process.pid, number)
    assert await gone(processes, within_s=5) == []


WORKS = "modem.tasks.host: worker "
"""What a worker logs once it can work; /health counts one that was killed as alive for a while."""


async def serves_again(standing: Standing, name: str, old: psutil.Process, workers: int) -> None:
    """Returns once another process of the part `name` runs, all are well, and `workers` have said that they work."""
    port = int(standing.environ["DIALTONE_GATEWAY__PORT"])
    async with asyncio.timeout(60):
        while True:
            is_back = any(name in " ".join(child.cmdline()) for child in standing.parts() if child.pid != old.pid)
            is_well = (await get_health("127.0.0.1", port))[1].get("status") == "ok"
            if is_back and is_well and standing.log.read_text(encoding="utf-8").count(WORKS) >= workers:
                return
            await asyncio.sleep(0.1)


async def test_every_part_comes_back_after_a_kill(standing: Standing) -> None:
    for process in standing.parts():
        name = next(name for name in ("gateway", "modem", "valkey") if name in " ".join(process.cmdline()))
        worked = standing.log.read_text(encoding="utf-8").count(WORKS)
        process.kill()
        await serves_again(standing, name, process, worked + 1 if name == "modem" else worked)


async def test_a_demo_shows_the_run_and_ends_with_status_0_also_beside_a_running_stack(
    launch: Launch, standing: Standing
) -> None:
    beside = await launch(str(RUN), "demo", "count the words of a text", **standing.environ)
    assert await beside.end(timeout_s=100) == 0
    shown = "\n".join(beside.lines)
    assert "works in a temporary one" in beside.lines[0]
    assert sum("scripted demo model" in line for line in beside.lines[:4]) == 1
    assert "count the words of a text" in shown
    assert "finished" in beside.lines[-1]
    assert '"level"' not in shown
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("dialtone-demo-*"))


async def test_leaving_a_demo_leaves_no_process(launch: Launch) -> None:
    beside = await launch(str(RUN), "demo", "count words")
    await beside.until("turn 1")
    processes = beside.descendants()
    beside.process.send_signal(signal.SIGINT)
    assert await beside.end(timeout_s=30) == 130
    assert await gone(processes, within_s=1) == []


async def test_a_second_stack_on_the_port_says_what_to_do(launch: Launch, standing: Standing) -> None:
    second = await launch(str(RUN), **standing.environ)
    assert await second.end() == 1
    assert len(second.lines) == 1
    assert "is taken by another program; stop it, or choose another: DIALTONE_GATEWAY__PORT=8081" in second.lines[0]


async def test_a_saved_configuration_reaches_the_worker(standing: Standing) -> None:
    config = Path(standing.environ["DIALTONE_CONFIG"])
    fresh = config.with_suffix(".new")
    fresh.write_text("[agent]\nmax_turns = 99\n[gateway]\nretry_ms = 999\n")
    fresh.replace(config)
    await standing.says("from the next run on: agent.max_turns")
    await standing.says("need a restart: gateway.retry_ms")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_curl_lines_of_the_readme_work(launch: Launch, standing: Standing, tmp_path: Path) -> None:
    block = re.search(r"```sh\n(api=.*?)```", README, flags=re.DOTALL)
    assert block
    script = (
        block[1].replace("8080", standing.environ["DIALTONE_GATEWAY__PORT"]).replace("curl -s", "curl -sf -w '\\n'")
    )
    assert len(script.splitlines()) == 10
    beside = await launch("bash", "-euo", "pipefail", "-c", script, cwd=tmp_path)
    assert await beside.end(timeout_s=100) == 0, beside.lines
    shown = "\n".join(beside.lines)
    assert "event: task_agent_execute" in shown
    assert '"type":"run.finished"' in shown.replace(": ", ":")
    assert "demo/" in shown


def test_the_readme_names_only_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
