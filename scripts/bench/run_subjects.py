"""The lines that `runs.py` compares, as processes whose CPU and memory can be read part by part."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import psutil

from modem import keys
from scripts.bench.stream_subjects import is_open
from tests.line import Line
from tests.until import until_sync

T = TypeVar("T")

_READY = "plain:ready"


@dataclass
class Part:
    """One process of a line and all that it has started."""

    process: psutil.Process

    def own_cpu_s(self) -> float:
        """CPU that this process alone has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def cpu_s(self) -> float:
        """CPU that it and its descendants have used, those that have ended included."""
        return sum(
            sum(times[:4])  # user, system, and both of children that have ended
            for times in self._each(lambda one: one.cpu_times())
        )

    def memory(self) -> float:
        """Megabytes of it and its descendants, each shared page counted once (PSS)."""
        return sum(self._each(lambda one: one.memory_full_info().pss)) / 1e6

    def own_memory(self) -> float:
        """Megabytes of this process alone (PSS)."""
        return float(self.process.memory_full_info().pss / 1e6)

    def _each(self, look: Callable[[psutil.Process], T]) -> Iterator[T]:
        for one in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # commands come and go
                yield look(one)


@dataclass
class Subject:
    """A running line."""

    name: str
    url: str
    parts: dict[str, Part]
    line: Line

    commands: str
    """The part whose children are not part of the line but the commands of its runs, and their sandboxes."""

    def cpu_s(self) -> dict[str, float]:
        return self._with_commands(lambda part: part.cpu_s(), lambda part: part.own_cpu_s())

    def memory(self) -> dict[str, float]:
        return self._with_commands(lambda part: part.memory(), lambda part: part.own_memory())

    def _with_commands(self, every: Callable[[Part], float], own: Callable[[Part], float]) -> dict[str, float]:
        figures = {name: every(part) for name, part in self.parts.items()} | {"commands": 0.0}
        if self.commands:
            alone = own(self.parts[self.commands])
            figures |= {"commands": figures[self.commands] - alone, self.commands: alone}
        return figures

    def running(self) -> int:
        """Runs that workers hold, as `/health` says."""
        return int(self.line.health().get("workers", {}).get("running", 0))

    def worst_lag_ms(self) -> float:
        """The loop lag that the worker itself reports, of the last whole second."""
        with self.line.redis.client() as client:
            names = client.zrange(keys.WORKERS, 0, -1)
            records = [client.get(keys.worker_record(name.decode())) for name in names]
        return max((json.loads(record)["loop_lag_ms"] for record in records if record), default=0.0)


@contextmanager
def dialtone(model_url: str, **settings: object) -> Iterator[Subject]:
    """Ours: one gateway, one worker, one Redis with its AOF; the `direct` driver."""
    model = {"model": "openai/bench", "api_base": model_url, "driver": "direct", "api_key_env": "BENCH_KEY"}
    values = {
        "LLM__DEFAULT": "bench",
        "LLM__MODELS": json.dumps({"bench": model}),
        "LOG__LEVEL": "WARNING",
        "LIMITS__REQUESTS_PER_MINUTE": 0,
        "LIMITS__EXECUTES_PER_MINUTE": 0,
        "LIMITS__MAX_RUNNING_PER_TENANT": 0,
        "LIMITS__MAX_QUEUED_PER_TENANT": 0,
        **settings,
    }
    with Line(
        settings={f"DIALTONE_{name}": str(value) for name, value in values.items()} | {"BENCH_KEY": "bench"}
    ) as line:
        line.start()
        yield Subject("dialtone", line.url, _parts(line), line, "worker")


@contextmanager
def plain(model_url: str, *, runs: int) -> Iterator[Subject]:
    """What one would write first: a prefork worker with a process per run at once, and `plain_sse.py` before it."""
    line = Line()
    broker = line.redis.url.replace("unix://", "redis+socket://")
    line.settings = {"PLAIN_REDIS": broker, "PLAIN_MODEL": model_url, "PLAIN_READY": _READY, "LITELLM_LOG": "ERROR"}
    line.settings["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    celery = [sys.executable, "-m", "celery", "-A", "scripts.bench.plain_worker", "worker", "-P", "prefork"]
    celery += ["-c", str(runs), "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    try:
        line.redis.start()
        line.spawn("worker", celery)
        line.spawn("gateway", [sys.executable, "-m", "scripts.bench.plain_gateway", str(line.port), line.redis.url])
        with line.redis.client() as client:
            until_sync(lambda: bool(client.exists(_READY)) and is_open(line.port), timeout_s=120, what="the plain line")
        yield Subject("plain", line.url, _parts(line), line, "")
    finally:
        line.stop()


def _parts(line: Line) -> dict[str, Part]:
    redis: subprocess.Popen[bytes] | None = line.redis.process
    assert redis is not None
    pids = {process.name: process.popen.pid for process in line.processes} | {"redis": redis.pid}
    return {name: Part(psutil.Process(pid)) for name, pid in sorted(pids.items())}
