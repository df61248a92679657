"""`./run.sh` with the real gateway, worker and Redis: what a newcomer types, and what is left afterwards."""

import asyncio
import os
import re
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from scripts.stack.health import get_health
from tests.stack.conftest import Beside, Launch, gone
from tests.stack.test_run_sh import ROOT, RUN, installed

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Without keys and without a model server, so that the scripted model plays."""
    keyless = {name: value for name, value in environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
    return {**installed(keyless, tmp_path), "OLLAMA_HOST": "127.0.0.1:9", "DIALTONE_LOG__FORMAT": "color"}


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
    assert " 202 " in await post(f"/api/agent/{found[1]}/execute", f'{{"task": "{task}"}}')


async def until_in_sandbox(beside: Beside) -> list[psutil.Process]:
    """The whole family, once the worker has a sandbox open."""
    async with asyncio.timeout(30):
        while True:
            processes = beside.descendants()
            if len(processes) > 5:
                return processes
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_ending_run_sh_amid_a_run_leaves_no_process_within_five_seconds(
    launch: Launch, environ: dict[str, str], number: signal.Signals
) -> None:
    beside = await launch(str(RUN))
    await beside.until_all("is ready")
    await execute(int(environ["DIALTONE_GATEWAY__PORT"]), "count words")
    processes = await until_in_sandbox(beside)
    os.kill(beside.process.pid, number)
    assert await gone(processes, within_s=5) == []


async def serves_again(beside: Beside, port: int, name: str, old: psutil.Process) -> None:
    """Returns once another process of the part `name` runs and all are well."""
    async with asyncio.timeout(20):
        while True:
            children = psutil.Process(beside.process.pid).children()
            is_back = any(name in " ".join(child.cmdline()) for child in children if child.pid != old.pid)
            if is_back and (await get_health("127.0.0.1", port))[1].get("status") == "ok":
                return
            await asyncio.sleep(0.1)


async def test_every_part_comes_back_after_a_kill(launch: Launch, environ: dict[str, str]) -> None:
    beside = await launch(str(RUN))
    await beside.until("is ready")
    for process in psutil.Process(beside.process.pid).children():
        name = next(name for name in ("gateway", "modem", "valkey") if name in " ".join(process.cmdline()))
        process.kill()
        await beside.until("starting it again")
        await serves_again(beside, int(environ["DIALTONE_GATEWAY__PORT"]), name, process)


async def test_a_demo_shows_the_run_and_ends_with_status_0(launch: Launch) -> None:
    beside = await launch(str(RUN), "demo", "count the words of a text")
    assert await beside.end(timeout_s=60) == 0
    shown = "\n".join(beside.lines)
    assert sum("scripted demo model" in line for line in beside.lines[:3]) == 1
    assert "count the words of a text" in shown
    assert "finished" in beside.lines[-1]
    assert '"level"' not in shown


async def test_a_demo_beside_a_running_stack_takes_another_port_and_folder(launch: Launch) -> None:
    stack = await launch(str(RUN))
    await stack.until("is ready")
    beside = await launch(str(RUN), "demo", "count words")
    assert await beside.end(timeout_s=60) == 0
    assert "works in a temporary one" in beside.lines[0]
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("dialtone-demo-*"))


async def test_leaving_a_demo_leaves_no_process(launch: Launch) -> None:
    beside = await launch(str(RUN), "demo", "count words")
    await beside.until("turn 1")
    processes = beside.descendants()
    beside.process.send_signal(signal.SIGINT)
    assert await beside.end(timeout_s=10) == 130
    assert await gone(processes, within_s=1) == []


async def test_a_second_stack_on_the_port_says_what_to_do(launch: Launch) -> None:
    first = await launch(str(RUN))
    await first.until("is ready")
    second = await launch(str(RUN))
    assert await second.end() == 1
    assert len(second.lines) == 1
    assert "is taken by another program; stop it, or choose another: DIALTONE_GATEWAY__PORT=8081" in second.lines[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_curl_lines_of_the_readme_work(launch: Launch, environ: dict[str, str], tmp_path: Path) -> None:
    stack = await launch(str(RUN))
    await stack.until("is ready")
    block = re.search(r"```sh\n(api=.*?)```", README, flags=re.DOTALL)
    assert block
    script = block[1].replace("8080", environ["DIALTONE_GATEWAY__PORT"]).replace("curl -s", "curl -sf -w '\\n'")
    assert len(script.splitlines()) == 10
    beside = await launch("bash", "-euo", "pipefail", "-c", script, cwd=tmp_path)
    assert await beside.end(timeout_s=60) == 0, beside.lines
    shown = "\n".join(beside.lines)
    assert "event: task_agent_execute" in shown
    assert '"type":"run.finished"' in shown.replace(": ", ":")
    assert "demo/" in shown


def test_the_readme_names_only_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
