"""What tests of tools share: a context around any sandbox, and a memory sandbox whose commands really run."""

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from workflow.core.config import ToolSettings
from workflow.core.errors import ToolError
from workflow.core.events import EventBase, ToolCall, ToolResulted
from workflow.core.ids import CallId, RunId, ThreadId
from workflow.core.state import ThreadState
from workflow.sandboxes.base import Sandbox
from workflow.sandboxes.memory import MemorySandbox
from workflow.sandboxes.memory_commands import MemoryCall
from workflow.tools.base import ToolContext, ToolOutput
from workflow.tools.build import build_registry
from workflow.tools.registry import Registry

THREAD = ThreadId("t1")
RUN = RunId("t1.r1")


class Locks:
    """One lock per name, as the agent hands them to tools."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    def __call__(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._locks.setdefault(name, asyncio.Lock())


def make_context(
    sandbox: Sandbox,
    *,
    state: ThreadState | None = None,
    settings: ToolSettings | None = None,
    turn: int = 1,
    call_id: str = "call_abcdef",
    lock: Any = None,
    output: list[tuple[str, bytes]] | None = None,
    services: Mapping[str, Any] | None = None,
) -> ToolContext:
    """A tool's context of thread `t1` and run `t1.r1`; `output` collects what is shown live."""
    shown = output if output is not None else []
    return ToolContext(
        thread_id=THREAD,
        run_id=RUN,
        turn=turn,
        call_id=CallId(call_id),
        sandbox=sandbox,
        state=state if state is not None else ThreadState(),
        settings=settings or ToolSettings(),
        emit_output=lambda stream, chunk: shown.append((stream, chunk)),
        lock=lock or Locks(),
        services=dict(services or {}),
    )


@cache
def shipped() -> Registry:
    """The tools as they come, without any search provider; describing them takes a while, so it is done once."""
    return build_registry(ToolSettings(), environ={})[0]


@dataclass
class Bench:
    """Calls tools by name the way the agent does, and folds their results into one state as the log would."""

    sandbox: Sandbox
    settings: ToolSettings = field(default_factory=ToolSettings)
    registry: Registry = field(default_factory=shipped)
    state: ThreadState = field(default_factory=ThreadState)
    lock: Locks = field(default_factory=Locks)
    live: list[tuple[str, bytes]] = field(default_factory=list)
    events: list[EventBase] = field(default_factory=list)
    services: dict[str, Any] = field(default_factory=dict)
    calls: int = 0

    async def __call__(self, tool: str, call_id: str = "", **arguments: Any) -> ToolOutput:
        """The tool's output. Raises: ToolError, as the tool or the argument check does."""
        self.calls += 1
        call = ToolCall(id=CallId(call_id or f"call_{self.calls:06d}"), name=tool, arguments=json.dumps(arguments))
        parsed = self.registry.parse(call, finish_reason="tool_calls")
        if isinstance(parsed, ToolError):
            raise parsed
        context = make_context(
            self.sandbox,
            state=self.state,
            settings=self.settings,
            call_id=call.id,
            lock=self.lock,
            output=self.live,
            services=self.services,
        )
        output = await parsed.tool.run(parsed.args, context)
        self._fold(call, output)
        return output

    async def attempt(self, tool: str, **arguments: Any) -> ToolOutput | ToolError:
        """What the call ends with, either way."""
        try:
            return await self(tool, **arguments)
        except ToolError as error:
            return error

    async def fails(self, tool: str, **arguments: Any) -> ToolError:
        """The error that the call ends with."""
        outcome = await self.attempt(tool, **arguments)
        assert isinstance(outcome, ToolError), f"{tool} should have failed, but gave: {outcome.text}"
        return outcome

    def _fold(self, call: ToolCall, output: ToolOutput) -> None:
        data = {**output.data, **({"facts": output.facts} if output.facts else {})}
        result = ToolResulted(
            thread_id=THREAD, run_id=RUN, turn=1, call_id=call.id, tool=call.name, ok=output.ok, output=output.text,
            data=data,
        )  # fmt: skip
        for event in (*output.events, result):
            self.events.append(event)
            self.state.apply(event)  # type: ignore[arg-type]  # tools emit events of the closed union only


async def _really(call: MemoryCall) -> int:
    """Runs the program on a copy of the memory files in a real folder, and takes its changes back."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _write_out(call, root)
        process = await asyncio.create_subprocess_exec(
            *call.argv,
            cwd=root / call.cwd,
            env={"PATH": "/usr/bin:/bin", "HOME": str(root), **call.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            stdout, stderr = await process.communicate(call.stdin)
        except asyncio.CancelledError:
            os.killpg(process.pid, 9)
            await process.wait()
            raise
        finally:
            _take_back(call, root)
        # The memory workspace has no folder of its own: hide where the copy was.
        await call.show("stdout", stdout.replace(bytes(root), b"/workspace"))
        await call.show("stderr", stderr.replace(bytes(root), b"/workspace"))
        return process.returncode if process.returncode is not None and process.returncode >= 0 else 137


def _write_out(call: MemoryCall, root: Path) -> None:
    for stat in call.files.list(".", depth=100):
        target = root / stat.path
        if stat.kind == "dir":
            target.mkdir(exist_ok=True)
        elif stat.kind == "symlink":
            target.symlink_to(call.files.target(stat.path))
        else:
            # The shell's saved state names folders by their absolute path.
            target.write_bytes(call.files.read(stat.path).replace(b"/workspace", bytes(root)))
            os.utime(target, ns=(stat.mtime_ns, stat.mtime_ns))


def _take_back(call: MemoryCall, root: Path) -> None:
    there = {str(path.relative_to(root)) for path in root.rglob("*")}
    for stat in reversed(call.files.list(".", depth=100)):
        if stat.path not in there:
            call.files.remove(stat.path)
    for name in sorted(there):
        path = root / name
        if path.is_dir() and not path.is_symlink():
            call.files.make_dir(name)
        elif path.is_file() and not path.is_symlink():
            content = path.read_bytes().replace(bytes(root), b"/workspace")
            if call.files.stat(name) is None or call.files.read(name) != content:
                call.files.write(name, content, mode=path.stat().st_mode & 0o777)


PROGRAMS = ("bash", "python3", "readlink", "rg", "xargs")


def memory_sandbox(files: Mapping[str, bytes | str] | None = None, *, without: str = "") -> MemorySandbox:
    """The memory twin with a few programs run for real on a copy of its files; all of `PROGRAMS` but `without`."""
    return MemorySandbox(files, commands={name: _really for name in PROGRAMS if name != without})
