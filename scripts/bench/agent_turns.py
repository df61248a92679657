"""A single run, measured: what its prompt weighs and keeps, what a turn costs, what a command costs."""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.llm import server
from scripts.bench.llm_client import httpx_client
from tests.agent.bench import Bench, bench
from tests.servers.answers import Answer, Call
from tests.servers.anthropic_server import AnthropicServer
from tests.servers.openai_server import OpenAiServer
from tests.tools.harness import Bench as ToolBench
from workflow.agent.prompt import system_prompt
from workflow.core.config import LlmSettings, ModelSettings, SandboxSettings, ToolSettings
from workflow.core.events import ToolCall, Usage
from workflow.core.ids import CallId, ThreadId
from workflow.llm.base import Completion, ModelEvent, ModelRequest
from workflow.llm.models import build_llm
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.memory import MemoryProvider
from workflow.sandboxes.tiers import TIERS, Tier
from workflow.tools.build import build_registry

TURNS = 60
MAX_CHARS = 32_000
COMMANDS = 20
_SOURCE = "".join(f"def step_{n}(value: int) -> int:\n    return value * {n} + 1\n\n\n" for n in range(400))


async def prompt() -> None:
    """Characters that every call carries, and how much of a long run's prompts a cache would have found."""
    registry, _ = build_registry(ToolSettings(), environ={})
    schemas = sum(len(json.dumps({"name": s.name, "description": s.description, "parameters": s.parameters}))
                  for s in registry.specs())  # fmt: skip
    async with MemoryProvider() as sandboxes:
        system = len(system_prompt(bench().settings.agent, (await sandboxes.open(ThreadId("bench"))).info, ""))
    print(
        f"\nprompt: {system:,} characters of system prompt + {schemas:,} of schemas for {len(registry.names)} tools "
        f"= {system + schemas:,} (limit {MAX_CHARS:,})"
    )
    print(f"prefix of a run of {TURNS} turns, as the provider's cache counts it (target 95 %)")
    print(f"{'wire':<12}{'prompt tokens':>15}{'read from cache':>17}{'share':>8}")
    for wire in (OpenAiServer, AnthropicServer):
        spent = await _played(wire)
        total = spent.input_tokens + spent.cache_read_tokens + spent.cache_write_tokens
        share = spent.cache_read_tokens / total
        print(f"{wire.__name__.removesuffix('Server'):<12}{total:>15,}{spent.cache_read_tokens:>17,}{share:>8.1%}")


async def _played(kind: type[OpenAiServer] | type[AnthropicServer]) -> Usage:
    """What a run of reading, planning and editing comes to, over the direct driver."""
    async with kind([*map(_answer, range(TURNS - 1)), Answer(text="All steps are done.")]) as provider:
        name = "openai/bench" if kind is OpenAiServer else "anthropic/claude-sonnet-5-5"
        model = ModelSettings(model=name, api_base=provider.base_url, api_key_env="BENCH", driver="direct")
        settings = LlmSettings(default="m", models={"m": model})
        subject = bench()
        subject.models = build_llm(settings, environ={"BENCH": "bench"})
        sandbox = await subject.sandboxes.open(ThreadId("t1"))
        await sandbox.write("steps.py", _SOURCE.encode())
        await subject.attempt("Go through steps.py, function by function, and make each return its square.")
        await subject.models.close()
    end = subject.journal.events[-1]
    assert end.type == "run.finished", end
    assert len(subject.journal.of("context.compacted")) == 0
    return end.usage


def _answer(turn: int) -> Answer:
    """One turn of the run: a plan every tenth, else a page read and a function edited side by side."""
    if turn % 10 == 0:
        done = turn // 10
        last = turn + 10 >= TURNS
        steps = [
            {"id": str(n), "title": f"Functions {n * 10} to {n * 10 + 9}", "status": _status(n, done, last=last)}
            for n in range(TURNS // 10)
        ]
        return Answer(text="I note where I am.", calls=(Call("job_plan", json.dumps({"steps": steps})),))
    read = json.dumps({"path": "steps.py", "offset": turn * 4 + 1, "limit": 30})
    edit = {"path": "steps.py", "old": f"return value * {turn} + 1\n", "new": f"return (value * {turn} + 1) ** 2\n"}
    return Answer(text=f"Step {turn}.", calls=(Call("file_read", read), Call("file_edit", json.dumps(edit))))


def _status(step: int, done: int, *, last: bool) -> str:
    return "done" if step < done or last else "in_progress" if step == done else "pending"


@dataclass
class Instant:
    """A model that answers at once, so that all time left is the agent's own."""

    turns: int
    turn: int = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.turn += 1
        calls = (ToolCall(id=CallId(f"call_{self.turn}"), name="todo_read", arguments="{}"),)
        if self.turn < self.turns:
            yield Completion(f"Step {self.turn}.", tool_calls=calls, finish_reason="tool_calls", usage=Usage())
        else:
            yield Completion("Done.")

    async def close(self) -> None:
        """Nothing to release."""


async def overhead() -> None:
    """A turn's own cost with a model and a tool that cost nothing, beside one streamed call by raw httpx."""
    call_ms = await _httpx_ms()
    print("\na turn's own cost: the agent with an instant model, an instant tool and a log in memory")
    print(f"{'turns':<8}{'wall ms/turn':>14}{'CPU ms/turn':>13}{'of an httpx call':>18}")
    for turns in (10, TURNS, 4 * TURNS):
        wall_ms, cpu_ms = await _own_ms(turns)
        print(f"{turns:<8}{wall_ms:>14.2f}{cpu_ms:>13.2f}{cpu_ms / call_ms:>17.2f}x")
    print(f"(raw httpx, one answer of 40 pieces from a local server: {call_ms:.1f} ms of CPU)")


async def _own_ms(turns: int) -> tuple[float, float]:
    best = (float("inf"), float("inf"))
    for _ in range(3):
        subject = _instant(turns)
        wall, cpu = time.perf_counter(), time.process_time()
        await subject.attempt()
        figures = (time.perf_counter() - wall) / turns * 1000, (time.process_time() - cpu) / turns * 1000
        assert subject.journal.events[-1].type == "run.finished", subject.journal.events[-1]
        best = min(best, figures)
    return best


def _instant(turns: int) -> Bench:
    subject = bench(max_turns=turns + 1, stuck_repeats=turns + 1)
    subject.llm = Instant(turns)
    return subject


async def _httpx_ms() -> float:
    with server(40, 0.001) as url:
        take, close = await httpx_client(url)
        await take()
        cpu = time.process_time()
        for _ in range(20):
            await take()
        cpu = time.process_time() - cpu
        await close()
    return cpu / 20 * 1000


async def shell() -> None:
    """`true` again and again through the bash tool, in a folder and with a variable set by the first command."""
    print(f"\n{COMMANDS} x `true` through the bash tool, folder and variable kept (target 0.4 s on the plain tier)")
    print(f"{'tier':<14}{'total s':>9}{'median ms':>11}")
    for tier in (*TIERS, "unsafe_host"):
        figures = await _commands(tier)
        print(f"{tier:<14}" + ("does not hold here" if figures is None else f"{figures[0]:>9.3f}{figures[1]:>11.1f}"))


async def _commands(tier: Tier) -> tuple[float, float] | None:
    with tempfile.TemporaryDirectory(prefix="dt-bench-") as folder:
        await asyncio.to_thread(Path(folder).chmod, 0o755)
        async with LocalProvider(SandboxSettings(mode=tier), data_dir=Path(folder)) as provider:
            if (await provider.check()).tier != tier:
                return None
            call: Any = ToolBench(await provider.open(ThreadId("bench")))
            await call("bash", command="mkdir -p deep && cd deep && export KEPT=yes")
            took = []
            for _ in range(COMMANDS):
                started = time.perf_counter()
                await call("bash", command="true")
                took.append(time.perf_counter() - started)
            kept = await call("bash", command="echo $KEPT; pwd")
            assert kept.text.startswith("yes\n/workspace/deep") or "deep" in kept.text, kept.text
    return sum(took), statistics.median(took) * 1000
