"""`./run.sh demo "<task>"`: a stack for one task, the terminal client on it, and everything stopped again."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TextIO

from scripts.stack.embedded_redis import is_in_use
from scripts.stack.health import sandbox
from scripts.stack.output import Output
from scripts.stack.part import leash
from scripts.stack.plan import ROOT, Plan
from scripts.stack.preflight import check_data_dir, check_port, free_port
from scripts.stack.running import Stack, Stopped, running
from scripts.stack.supervisor import StackError

CLIENT = (sys.executable, "-m", "dialtone", "run")


async def demo(plan: Plan, task: str, output: Output, *, stop: asyncio.Event, client: tuple[str, ...] = CLIENT) -> int:
    """Runs `task` and shows it on the terminal; gives back the client's exit status. Raises: StackError."""
    with _elsewhere_if_busy(_on_loopback(plan), output) as plan, _log(plan) as log_file:
        quiet = Output(log_file, plan.loaded.settings.log)
        try:
            async with running(plan, quiet, stop=stop) as stack:
                health = await stack.ready(quiet)
                output.say(f"model: {health.get('model')}")
                output.say(f"sandbox: {sandbox(health)}")
                return await stack.unless_stopped(_run_client(stack, client, task))
        except StackError as exc:
            raise StackError(f"{exc}\n(the whole log: {log_file.name})") from exc
        except Stopped:
            return 130


def _on_loopback(plan: Plan) -> Plan:
    """`plan` for this machine alone, on a port that is free."""
    settings = plan.loaded.settings
    host, port = "127.0.0.1", settings.gateway.port
    try:
        check_port(host, port)
    except StackError:
        port = free_port(host)
    gateway = settings.gateway.model_copy(update={"host": host, "port": port, "processes": 1})
    return replace(plan, loaded=replace(plan.loaded, settings=settings.model_copy(update={"gateway": gateway})))


@contextmanager
def _elsewhere_if_busy(plan: Plan, output: Output) -> Iterator[Plan]:
    """`plan`, in a temporary folder if another stack works in its own."""
    settings = plan.loaded.settings
    check_data_dir(plan.data_dir)
    if settings.redis.url or not is_in_use(plan.data_dir):
        yield plan
        return
    output.say("another Dialtone uses this data folder; the demo works in a temporary one, removed at the end")
    folder = tempfile.mkdtemp(prefix="dialtone-demo-")
    try:
        settings = settings.model_copy(update={"data_dir": folder})
        yield replace(plan, loaded=replace(plan.loaded, settings=settings))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _log(plan: Plan) -> Iterator[TextIO]:
    """Where the parts' lines go, so that the terminal shows the run alone."""
    path = plan.data_dir / "logs" / "demo.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yield file


async def _run_client(stack: Stack, client: tuple[str, ...], task: str) -> int:
    """The exit status of the terminal client, which inherits our terminal."""
    env = {**os.environ, "DIALTONE_URL": stack.url}
    # `--` so that a task may begin with a dash; its own session is not wanted: it belongs to this terminal.
    process = await asyncio.create_subprocess_exec(*client, "--", task, env=env, cwd=ROOT, preexec_fn=leash())
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(2):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
