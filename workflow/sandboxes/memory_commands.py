"""The few commands a memory sandbox imitates, and how a command runs there."""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from time import monotonic

from workflow.core.errors import SandboxError, ToolError
from workflow.core.ports import OnOutput
from workflow.sandboxes.base import ExecResult
from workflow.sandboxes.memory_files import MemoryFiles
from workflow.sandboxes.output import Kept

TIMED_OUT = 124
KILLED = 128 + 9
SHELL_SIGNS = "();<>|&`$\n"


@dataclass(frozen=True, slots=True)
class MemoryCall:
    """What an imitated command gets."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin: bytes
    files: MemoryFiles
    show: Callable[[str, bytes], Awaitable[None]]
    """Prints (`stdout` | `stderr`, bytes)."""


Command = Callable[[MemoryCall], Awaitable[int]]
"""Imitates one program; gives its exit status."""


class MemoryProcess:
    """An imitated command and what it printed."""

    def __init__(self, pid: int, *, on_output: OnOutput | None = None, max_output: int = 1_000_000) -> None:
        self.pid = pid
        self.streams = {"stdout": Kept(max_output), "stderr": Kept(max_output)}
        self._on_output = on_output
        self._printed = bytearray()
        self._task: asyncio.Task[ExecResult] | None = None

    def begin(self, work: Coroutine[None, None, ExecResult]) -> None:
        """Lets `work` run on its own."""
        self._task = asyncio.create_task(work)

    async def show(self, stream: str, chunk: bytes) -> None:
        self.streams[stream].add(chunk)
        self._printed += chunk
        if self._on_output is not None:
            shown = self._on_output(stream, chunk)
            if shown is not None:
                await shown

    @property
    def exit_code(self) -> int | None:
        if self._task is None or not self._task.done():
            return None
        return KILLED if self._task.cancelled() else self._task.result().exit_code

    async def output(self, *, after: int = 0) -> tuple[bytes, int]:
        return bytes(self._printed[after:]), len(self._printed)

    async def write(self, chunk: bytes) -> None:
        raise SandboxError("the memory sandbox has no standard input for background processes")

    async def wait(self, *, timeout_s: float) -> int | None:
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
        return self.exit_code

    async def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def run(
    process: MemoryProcess,
    commands: Mapping[str, Command],
    files: MemoryFiles,
    command: str | list[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    stdin: bytes,
    timeout_s: float | None,
) -> ExecResult:
    """Runs `command` to its end or its time. Raises: SandboxError for what is not imitated."""
    argv = _words(command)
    program = commands.get(argv[0])
    if program is None:
        raise SandboxError(f"the memory sandbox does not know the command {argv[0]!r}", known=sorted(commands))
    here = files.stat(files.resolve(cwd))
    if here is None or here.kind != "dir":
        raise ToolError(f"{cwd} is not a folder", kind="not_a_directory", path=cwd)
    call = MemoryCall(tuple(argv), here.path, env, stdin, files, process.show)
    started, timed_out = monotonic(), False
    try:
        async with asyncio.timeout(timeout_s):
            exit_code = await program(call)
    except TimeoutError:
        exit_code, timed_out = TIMED_OUT, True
    stdout, stderr = process.streams["stdout"], process.streams["stderr"]
    return ExecResult(
        exit_code=exit_code,
        stdout=stdout.value(),
        stderr=stderr.value(),
        timed_out=timed_out,
        killed_by="timeout" if timed_out else "",
        dropped_bytes=stdout.dropped + stderr.dropped,
        duration_s=monotonic() - started,
    )


def _words(command: str | list[str]) -> list[str]:
    """The words of a command without any shell syntax. Raises: SandboxError if it has some."""
    if isinstance(command, list):
        words = command
    else:
        lexer = shlex.shlex(command.strip(), posix=True, punctuation_chars=SHELL_SIGNS)
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
        try:
            words = list(lexer)
        except ValueError as error:
            raise SandboxError(f"not a plain command: {error}", command=command) from error
        if any(word and set(word) <= set(SHELL_SIGNS) for word in words):
            raise SandboxError("the memory sandbox has no shell", command=command)
    if not words:
        raise SandboxError("an empty command")
    return words


async def _echo(call: MemoryCall) -> int:
    await call.show("stdout", " ".join(call.argv[1:]).encode() + b"\n")
    return 0


async def _cat(call: MemoryCall) -> int:
    if len(call.argv) == 1:
        await call.show("stdout", call.stdin)
    for path in call.argv[1:]:
        try:
            content = call.files.read(path if path.startswith("/") else f"{call.cwd}/{path}")
        except ToolError as error:
            await call.show("stderr", f"cat: {error}\n".encode())
            return 1
        await call.show("stdout", content)
    return 0


async def _printenv(call: MemoryCall) -> int:
    values = [call.env[name] for name in call.argv[1:] if name in call.env]
    await call.show("stdout", "".join(f"{value}\n" for value in values).encode())
    return 0 if len(values) == len(call.argv) - 1 else 1


async def _sleep(call: MemoryCall) -> int:
    await asyncio.sleep(float(call.argv[1]))
    return 0


async def _exit(call: MemoryCall) -> int:
    return int(call.argv[1]) if len(call.argv) > 1 else 0


async def _true(call: MemoryCall) -> int:
    return 0


async def _false(call: MemoryCall) -> int:
    return 1


BUILT_IN: Mapping[str, Command] = {
    "echo": _echo,
    "cat": _cat,
    "printenv": _printenv,
    "sleep": _sleep,
    "exit": _exit,
    "true": _true,
    "false": _false,
}
