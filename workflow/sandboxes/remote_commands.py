"""Commands in a remote sandbox: in the foreground, followed over dropped connections, and in the background."""

import asyncio
import contextlib
import logging
import marshal
import secrets
from collections.abc import Mapping
from time import monotonic
from typing import Any

from workflow.core.errors import SandboxError, ToolError
from workflow.core.ports import OnOutput
from workflow.sandboxes.base import ExecResult
from workflow.sandboxes.machines import Dropped, Machine
from workflow.sandboxes.output import Kept
from workflow.sandboxes.remote_answers import ENDED, NOTHING, PRINTED, Ended, checked
from workflow.sandboxes.remote_call import MARSHAL, Call, Piece
from workflow.sandboxes.remote_line import Line

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
}
"""On top of what the template sets."""
WAIT_S = 20.0
"""One long poll for the end of a background process."""
BROKEN = {
    "close": "the sandbox was closed while the command ran",
    "taken_over": "another worker took the thread over while the command ran",
    "lost": "the command was lost with its supervisor",
}
LATE_OUTPUT = 16_000_000
"""More than the program inside lets through beyond the limit: then somebody else speaks for it."""
KILLED = 137


def payload(
    command: str | list[str], *, env: Mapping[str, str] | None, stdin: bytes, timeout_s: float, limit: int
) -> bytes:
    """What to run, as the program inside takes it."""
    script = command.encode("utf-8", "surrogateescape") if isinstance(command, str) else None
    job = {
        "script": script,
        "argv": command if script is None else None,
        "env": {**ENVIRONMENT, **(env or {})},
        "stdin": stdin,
        "timeout_s": timeout_s,
        "max_bytes": limit,
    }
    return marshal.dumps(job, MARSHAL)


class Foreground:
    """One `exec`. However often its connection drops, the command runs once and its output is shown once."""

    def __init__(self, line: Line, *, max_output: int, limit: int, on_output: OnOutput | None) -> None:
        """limit: bytes of output after which the program inside is to end the command."""
        self.key = secrets.token_hex(8)
        self._line = line
        self._kept = {"stdout": Kept(max_output), "stderr": Kept(max_output)}
        self._left = limit + LATE_OUTPUT
        self._on_output = on_output
        self._signs = 0
        self._heard_at = monotonic()
        self._is_shown = True
        self._is_first = True
        self._failure: Exception | None = None

    async def run(self, job: bytes, *, cwd: str, timeout_s: float, forget: list[str]) -> ExecResult:
        """Runs to the end. Cancelled or failed, it kills the command with all that it started before it returns."""
        started = monotonic()
        try:
            async with asyncio.timeout(timeout_s + self._line.timeout_s), self._line.staged(job) as (inline, at):
                args = {"key": self.key, "cwd": cwd, "forget": forget, "beat_s": self._line.pace.beat_s}
                ended = await self._to_end(args, inline=inline, at=at)
        except TimeoutError as error:
            await self._kill()
            raise SandboxError("the command went on beyond its time, and its sandbox did not end it") from error
        except ToolError:
            raise
        except BaseException:
            await self._kill()
            raise
        return self._result(ended, monotonic() - started)

    async def _to_end(self, args: dict[str, Any], *, inline: bytes, at: str) -> Ended:
        async def follow(machine: Machine) -> Ended | None:
            is_brief = self._is_first and machine.brief_s > 0
            places = [self._kept["stdout"].total, self._kept["stderr"].total]
            patience_s = machine.brief_s if is_brief else None
            call = self._line.call("exec", {**args, "after": places, "patience_s": patience_s}, inline=inline, at=at)
            if is_brief:
                await self._take(call, await machine.call(self._line.command(call)))
            else:
                await self._watch(machine, call)
            self._is_first = False
            ended = checked(ENDED, call.result)
            if ended is None and not is_brief:
                raise SandboxError("the sandbox's answer is damaged")
            return ended

        ended: Ended | None = None
        while ended is None:
            ended = await self._line.attempt(follow, progress=lambda: self._signs)
        return ended

    async def _watch(self, machine: Machine, call: Call) -> None:
        """Streams until the end. Raises: Dropped when nothing is heard for too long."""
        self._heard_at, self._failure = monotonic(), None
        stream = asyncio.ensure_future(machine.stream(self._line.command(call), lambda text: self._take(call, text)))
        silence_s = self._line.pace.silence_s
        try:
            while not stream.done():
                await asyncio.wait([stream], timeout=silence_s / 4)
                if not stream.done() and self._is_shown and monotonic() - self._heard_at > silence_s:
                    raise Dropped(f"the sandbox was silent for {silence_s:g} s")
                await self._line.extend(machine)
        finally:
            if not stream.done():
                stream.cancel()
                await asyncio.wait([stream])
        if self._failure is not None:
            stream.exception()
            raise self._failure
        await stream

    async def _take(self, call: Call, text: str) -> None:
        """Keeps and shows what came; while the receiver is busy, nothing more is read."""
        before = call.signs
        self._is_shown = False
        try:
            pieces = call.take(text)
            self._signs += call.signs - before
            for piece in pieces:
                await self._show(piece)
        except Exception as error:
            self._failure = error  # The vendor's library would wrap it.
            raise
        finally:
            self._is_shown, self._heard_at = True, monotonic()

    async def _show(self, piece: Piece) -> None:
        stream, chunk = piece
        self._left -= len(chunk)
        if self._left < 0:
            raise SandboxError("more output came from the sandbox than a command may print")
        self._kept[stream].add(chunk)
        if self._on_output is not None:
            shown = self._on_output(stream, chunk)
            if shown is not None:
                await shown

    async def _kill(self) -> None:
        """Ends the command wherever it stands; not interrupted by a second cancel."""
        machine = self._line.machine
        if machine is None:
            return
        task = asyncio.ensure_future(self._ended_by_us())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=self._line.pace.kill_s)
        if not task.done():
            log.warning("a command in sandbox %s was not killed in time", machine.id)
            task.cancel()
            await asyncio.wait([task])

    async def _ended_by_us(self) -> None:
        try:
            await self._line.ask("kill_key", ENDED, key=self.key, reason="cancel")
        except (SandboxError, ToolError) as error:
            log.warning("a command could not be killed: %s", error)

    def _result(self, ended: Ended, duration_s: float) -> ExecResult:
        killed_by = ended.killed_by
        if killed_by in BROKEN:
            why = f": {ended.why}" if ended.why else ""
            raise SandboxError(BROKEN[killed_by] + why)
        stdout, stderr = self._kept.values()
        return ExecResult(
            exit_code=ended.code,
            stdout=stdout.value(),
            stderr=stderr.value(),
            timed_out=killed_by == "timeout",
            killed_by=killed_by,
            dropped_bytes=stdout.dropped + stderr.dropped,
            duration_s=duration_s,
        )


class RemoteProcess:
    """A background process. It is known by its number to every worker, as long as its sandbox lives."""

    def __init__(self, line: Line, pid: int, ended: Ended | None = None) -> None:
        self.pid = pid
        self._line = line
        self._ended = ended

    @property
    def exit_code(self) -> int | None:
        """As of the last call; `wait(timeout_s=0)` asks again."""
        return None if self._ended is None else self._ended.code

    async def output(self, *, after: int = 0) -> tuple[bytes, int]:
        output, answer = await self._line.fetch("output", PRINTED, name=str(self.pid), after=after)
        self._ended = answer.ended
        return output, answer.place

    async def write(self, chunk: bytes) -> None:
        """Sends to its standard input. Raises: SandboxError if it does not read."""
        await self._line.ask("write_input", NOTHING, payload=chunk, name=str(self.pid))

    async def wait(self, *, timeout_s: float) -> int | None:
        deadline = monotonic() + timeout_s
        while self._ended is None:
            left = max(0.0, deadline - monotonic())
            try:
                self._ended = await self._line.ask("wait", ENDED, name=str(self.pid), timeout_s=min(left, WAIT_S))
            except ToolError:  # its sandbox is another one by now
                self._ended = Ended(KILLED, "lost")
            if monotonic() >= deadline:
                break
        return self.exit_code

    async def kill(self) -> None:
        self._ended = await self._line.ask("kill", ENDED, name=str(self.pid), reason="cancel")
