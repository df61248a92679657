"""A real worker, measured: how long it takes to start, what it holds, and hundreds of runs that stream at once."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from dialtone.client import AsyncClient
from modem.pool import Connections
from modem.workers import workers
from scripts.bench.llm import ROOT, server
from tests.line import Line, Process
from tests.until import until_sync
from workflow.core.config import RedisSettings

DRIVERS = ("direct", "litellm")
PIECES, PACE_S = 40, 0.25
UNLIMITED = {
    "DIALTONE_LIMITS__REQUESTS_PER_MINUTE": "0",
    "DIALTONE_LIMITS__EXECUTES_PER_MINUTE": "0",
    "DIALTONE_LIMITS__MAX_RUNNING_PER_TENANT": "0",
    "DIALTONE_LIMITS__MAX_QUEUED_PER_TENANT": "0",
}


def start() -> None:
    """From nothing to a worker that answers health, and what it then holds."""
    bare = _seconds("-c", "pass")
    imported = _seconds("-c", "import modem.worker, modem.tasks.host")
    with _line({}) as line:
        started = time.perf_counter()
        worker = line.worker()
        until_sync(lambda: line.health().get("workers", {}).get("alive", 0) == 1, timeout_s=60, what="the worker")
        ready_s = time.perf_counter() - started
        memory_mb = psutil.Process(worker.popen.pid).memory_info().rss / 1e6
    print("\na worker process")
    print(f"import {imported:.2f} s (a bare Python {bare:.2f} s); ready after {ready_s:.1f} s; {memory_mb:.0f} MB then")


def _seconds(*arguments: str) -> float:
    """Wall time of a Python process, the better of three."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)
        return time.perf_counter() - began

    return min(once() for _ in range(3))


@contextmanager
def _line(settings: dict[str, str]) -> Iterator[Line]:
    """A Redis server and a gateway; the worker is the caller's to start."""
    with Line(settings=settings) as line:
        line.redis.start()
        line.gateway()
        line.wait_ready(workers=0)
        until_sync(lambda: bool(line.health()), timeout_s=30, what="the gateway")
        yield line


@dataclass(slots=True)
class Watched:
    """What a worker process was seen to use."""

    peak_mb: float = 0.0
    most_running: int = 0
    lags_ms: list[float] = field(default_factory=list)


async def at_once(count: int) -> None:
    """Every run streams one answer; they are queued first, then the worker starts and takes them all."""
    print(f"\n{count} runs at once in one worker, each one answer of {PIECES} pieces, {1 / PACE_S:.0f} pieces/s")
    print(
        f"{'driver':<9}{'first to last s':>16}{'at best s':>11}{'CPU s':>8}{'ms/run':>8}{'most at once':>14}"
        f"{'peak MB':>9}{'p50 lag ms':>12}{'worst':>8}"
    )
    for driver in DRIVERS:
        with server(PIECES, PACE_S) as model_url:
            await _driver(driver, model_url, count)


async def _driver(driver: str, model_url: str, count: int) -> None:
    with _line(UNLIMITED | {"DIALTONE_WORKER__CONCURRENCY": str(count + 10), "OPENAI_API_KEY": "bench"}) as line:
        config = line.folder / "config.toml"
        config.write_text(
            f'[llm]\ndefault = "bench"\n[llm.models.bench]\nmodel = "openai/bench"\napi_base = "{model_url}"\n'
            f'driver = "{driver}"\n[sandbox]\nmax_live = {count + 10}\n'
        )
        line.settings["DIALTONE_CONFIG"] = str(config)
        async with AsyncClient(line.url) as client:
            threads = [await client.initiate() for _ in range(count)]
            for thread in threads:
                await client.execute(thread, "Say many words.")
            worker = line.worker()
            connections = Connections.open(RedisSettings(url=line.redis.url))
            watched, cpu_s = await _until_ended(client, connections, worker, threads)
            await connections.close()
            runs = [(await client.runs(thread)).items[0] for thread in threads]
    failed = [run for run in runs if run.status != "finished"]
    wall_s = (max(run.ended_at for run in runs) - min(run.started_at for run in runs)) / 1000
    lag, worst = statistics.median(watched.lags_ms), max(watched.lags_ms)
    print(
        f"{driver:<9}{wall_s:>16.1f}{PIECES * PACE_S:>11.1f}{cpu_s:>8.1f}{cpu_s / count * 1000:>8.1f}"
        f"{watched.most_running:>14}{watched.peak_mb:>9.0f}{lag:>12.0f}{worst:>8.0f}"
        + (f"   {len(failed)} DID NOT FINISH: {failed[0].reason}" if failed else "")
    )


async def _until_ended(
    client: AsyncClient, connections: Connections, worker: Process, threads: Sequence[str]
) -> tuple[Watched, float]:
    """What the worker used until the last run ended, and its CPU seconds without its start."""
    watched, process = Watched(), psutil.Process(worker.popen.pid)
    ready_cpu_s: float | None = None
    async with asyncio.timeout(300):
        while True:
            alive = await workers(connections)
            running = sum(one.running for one in alive)
            if running and ready_cpu_s is None:
                ready_cpu_s = sum(process.cpu_times()[:2])
            watched.most_running = max(watched.most_running, running)
            watched.peak_mb = max(watched.peak_mb, process.memory_info().rss / 1e6)
            watched.lags_ms += [one.loop_lag_ms for one in alive]
            if ready_cpu_s is not None and running == 0 and await _all_ended(client, threads):
                return watched, sum(process.cpu_times()[:2]) - ready_cpu_s
            await asyncio.sleep(0.25)


async def _all_ended(client: AsyncClient, threads: Sequence[str]) -> bool:
    for thread in threads:
        if (await client.thread(thread)).active_run or (await client.runs(thread)).items[0].status == "queued":
            return False
    return True
