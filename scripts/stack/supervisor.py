"""Starts parts, passes their lines on, starts the dead again, and ends them in the order asked for."""

import asyncio
import signal
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from scripts.stack.output import Output
from scripts.stack.part import Part, end_group, how_it_ended, spawn

LINE_BYTES = 64 * 1024
"""A longer line is passed on in pieces."""


class StackError(Exception):
    """The stack cannot run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a part that died stays down."""

    first_s: float = 0.5
    longest_s: float = 30.0
    steady_s: float = 20.0
    """A part that lived this long starts afresh with `first_s`."""
    patience: int = 3
    """So many deaths before the stack was ever ready, and it gives up."""


@dataclass(slots=True)
class _Kept:
    part: Part
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=15))
    process: Process | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps parts running until told otherwise; use as an async context, which leaves no process behind."""

    def __init__(self, output: Output, *, backoff: Backoff | None = None) -> None:
        self._output = output
        self._backoff = backoff or Backoff()
        self._kept: dict[str, _Kept] = {}
        self.is_ready = False
        """Set by the owner; from then on a dead part is started again for ever."""
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the stack cannot run, once that is known."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for kept in self._kept.values():
            kept.stopping.set()
        self.kill()
        await asyncio.gather(*(kept.task for kept in self._kept.values() if kept.task), return_exceptions=True)
        self.failed.cancel()

    def start(self, part: Part) -> None:
        """Starts `part` and keeps it running."""
        kept = self._kept[part.name] = _Kept(part)
        kept.task = asyncio.create_task(self._keep(kept), name=f"keep {part.name}")

    def pid(self, name: str) -> int | None:
        """The process id of a part; None while it is down."""
        process = self._kept[name].process
        return None if process is None or process.returncode is not None else process.pid

    async def stop(self, names: Iterable[str]) -> None:
        """Ends the parts `names` together: SIGTERM, and after each one's `stop_s` SIGKILL."""
        await asyncio.gather(*(self._stop(self._kept[name]) for name in names if name in self._kept))

    def kill(self) -> None:
        """Ends everything at once."""
        for kept in self._kept.values():
            if kept.process is not None and kept.process.returncode is None:
                end_group(kept.process, signal.SIGKILL)

    async def _stop(self, kept: _Kept) -> None:
        kept.stopping.set()
        if kept.task is None:
            return
        if kept.process is not None and kept.process.returncode is None:
            with suppress(ProcessLookupError):
                kept.process.terminate()
        done, _ = await asyncio.wait({kept.task}, timeout=kept.part.stop_s)
        if not done and kept.process is not None:
            self._output.say(f"{kept.part.name} did not stop within {kept.part.stop_s:g} s; killed", level="WARNING")
            end_group(kept.process, signal.SIGKILL)
            await asyncio.wait({kept.task}, timeout=5)

    async def _keep(self, kept: _Kept) -> None:
        delay_s, deaths, name = self._backoff.first_s, 0, kept.part.name
        while not kept.stopping.is_set():
            started = asyncio.get_running_loop().time()
            try:
                kept.process = await spawn(kept.part)
            except OSError as exc:
                self._fail(f"{name} cannot be started: {kept.part.argv[0]}: {exc.strerror}")
                return
            status = await self._follow(kept, kept.process)
            if kept.stopping.is_set():
                return
            if asyncio.get_running_loop().time() - started > self._backoff.steady_s:
                delay_s, deaths = self._backoff.first_s, 0
            deaths += 1
            if not self.is_ready and deaths >= self._backoff.patience:
                self._fail(f"{name} does not stay up ({how_it_ended(status)}){_last_words(kept)}")
                return
            words = f"{name} died ({how_it_ended(status)}); starting it again in {delay_s:g} s"
            self._output.say(words, level="ERROR")
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await kept.stopping.wait()
            delay_s = min(delay_s * 2, self._backoff.longest_s)

    async def _follow(self, kept: _Kept, process: Process) -> int:
        """Passes the lines of `process` on until it ends; gives back its status."""
        if kept.stopping.is_set():  # asked to stop while it was being started: it holds nothing yet
            end_group(process, signal.SIGKILL)
        relay = asyncio.create_task(self._relay(kept, process))
        try:
            status = await process.wait()
            end_group(process, signal.SIGKILL)  # what a dead part left behind
            await asyncio.wait({relay}, timeout=1)
        finally:
            relay.cancel()
        return status

    async def _relay(self, kept: _Kept, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._pass_on(kept, line)
        self._pass_on(kept, rest)

    def _pass_on(self, kept: _Kept, line: bytes) -> None:
        if line:
            kept.tail.append(line.decode("utf-8", "backslashreplace").rstrip())
            self._output.line(kept.part.name, line)

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(reason)


def _last_words(kept: _Kept) -> str:
    """The end of a part's log, for the message that it does not stay up."""
    if kept.part.log_file is not None and kept.part.log_file.exists():
        lines = kept.part.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        return ". Its log says:\n  " + "\n  ".join(lines)
    return f". It last said:\n  {kept.tail[-1]}" if kept.tail else ""
