"""A data folder and a port of its own for every test, and stacks that run in the test or in a process beside it."""

import asyncio
import io
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from scripts.stack.output import Output
from scripts.stack.plan import Plan
from scripts.stack.running import Stack, running
from scripts.stack.supervisor import Backoff
from tests.ports import free_port
from workflow.core.config_load import load

HERE = Path(__file__).parent
QUICK = Backoff(first_s=0.05, longest_s=0.2, steady_s=60, patience=3)


def stand_in(*words: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "stand_ins.py"), *words)


def own_environ(folder: Path) -> dict[str, str]:
    """The environment of a stack of its own in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIALTONE_", "REDIS_URL", "ENV"))}
    (folder / "config.toml").touch()
    return {
        **kept,
        "DIALTONE_CONFIG": str(folder / "config.toml"),
        "DIALTONE_DATA_DIR": str(folder / "var"),
        "DIALTONE_GATEWAY__PORT": str(free_port()),
    }


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return own_environ(tmp_path)


@pytest.fixture
def plan(environ: dict[str, str]) -> Plan:
    """The real supervisor and Redis, with stand-ins for gateway and worker."""
    return Plan(load(None, environ), stand_in("gateway"), stand_in("worker"))


@dataclass
class Started:
    """A stack inside this test."""

    stack: Stack
    written: io.StringIO

    @property
    def log(self) -> str:
        return self.written.getvalue()

    async def said(self, text: str, *, timeout_s: float = 10) -> None:
        """Returns once the log holds `text`."""
        async with asyncio.timeout(timeout_s):
            while text not in self.log:  # noqa: ASYNC110 - a StringIO has no event to wait for
                await asyncio.sleep(0.02)


StartStack = Callable[..., AbstractAsyncContextManager[Started]]


@pytest.fixture
def start_stack() -> StartStack:
    """Runs a plan inside the test: `async with start_stack(plan) as started`."""

    @asynccontextmanager
    async def start(plan: Plan, *, stop: asyncio.Event | None = None) -> AsyncIterator[Started]:
        written = io.StringIO()
        output = Output(written, plan.loaded.settings.log.model_copy(update={"format": "color"}))
        async with running(plan, output, stop=stop or asyncio.Event(), backoff=QUICK) as stack:
            await stack.ready(output)
            yield Started(stack, written)

    return start


@dataclass
class Beside:
    """A program beside this test, with everything that it has printed."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, text: str, *, timeout_s: float = 60) -> str:
        """The first further line that holds `text`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line.rstrip())
                if text in line:
                    return line.rstrip()
        raise AssertionError(f"{text!r} never came:\n" + "\n".join(self.lines))

    async def until_all(self, *texts: str) -> None:
        """Returns once every one of `texts` has come, in whatever order."""
        for text in texts:
            if not any(text in line for line in self.lines):
                await self.until(text)

    async def end(self, *, timeout_s: float = 60) -> int:
        """Its exit status, once it and its output have ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line.rstrip())
            return await self.process.wait()

    def descendants(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []


Launch = Callable[..., Awaitable[Beside]]


@pytest.fixture
async def launch(environ: dict[str, str]) -> AsyncIterator[Launch]:
    """Starts a program with this test's environment; whatever is left of it at the end is killed."""
    started: list[Beside] = []
    seen: list[psutil.Process] = []

    async def start(*argv: str, cwd: Path | None = None, **more: str) -> Beside:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**environ, **more},
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(Beside(process))
        return started[-1]

    yield start
    for beside in started:
        if beside.process.returncode is None:
            seen += beside.descendants()
            with suppress(ProcessLookupError):
                beside.process.kill()
            await beside.process.wait()
    for process in seen:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def family(folder: Path) -> list[psutil.Process]:
    """The processes under this one that work in `folder`; other tests' stacks may run beside."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(process)
    return found


async def gone(processes: Iterable[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    """Those of `processes` that still run after `within_s`; what only waits to be reaped by init has ended."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + within_s
    while (left := [process for process in processes if runs(process)]) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return left
