"""What runs cost: memory of waiting ones, loop lag of streaming ones, CPU of their commits; and the whole line
(gateway, worker, Redis) beside a prefork + `asyncio.run` worker with LiteLLM.

`python -m scripts.bench runs` prints one table per question. The model server and the clients are processes of
their own and counted apart. Absolute times say little: this machine is shared.
"""

import argparse
import asyncio
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from scripts.bench.llm import server
from scripts.bench.run_commits import commits
from scripts.bench.run_load import Watched, start_all, watch_all
from scripts.bench.run_subjects import Subject, dialtone, plain
from scripts.bench.stream_subjects import raise_limits
from tests.until import until_sync

PARTS = ("gateway", "worker", "redis")
"""What the sums are of; the commands and their sandboxes are told beside them."""


def waiting(count: int) -> None:
    """Memory of runs whose model says nothing."""
    with server(1, 3600.0) as url, dialtone(url, WORKER__CONCURRENCY=count + 100) as line:
        worker = line.parts["worker"]
        begin(line, 50)
        before = worker.own_memory()
        begin(line, count)
        time.sleep(3.0)
        after = worker.own_memory()
        idle_cpu_s = worker.cpu_s()
        time.sleep(5.0)
        busy = (worker.cpu_s() - idle_cpu_s) / 5 * 100
        print(
            f"{count} waiting runs in one worker process: {(after - before) * 1000 / count:.0f} KB each, "
            f"{after:.0f} MB in all, {busy:.0f} % CPU"
        )


def begin(line: Subject, count: int) -> None:
    """Starts `count` more runs and returns when the worker holds them."""
    held = line.running()
    asyncio.run(start_all(line.url, count, timeout_s=300))
    until_sync(lambda: line.running() >= held + count, timeout_s=300, what="the worker to hold the runs")


def streaming(count: int, words: int, pace_s: float) -> None:
    """The worst delay of the event loop while many models speak at once."""
    with server(words, pace_s) as url, dialtone(url, WORKER__CONCURRENCY=count + 100) as line:
        begin_s, cpu_s = time.monotonic(), line.parts["worker"].cpu_s()
        lags: list[float] = []
        with idle_lag() as beside:
            asyncio.run(start_all(line.url, count, timeout_s=300))
            while line.running() or len(lags) < 5:
                lags.append(line.worst_lag_ms())
                time.sleep(0.5)
        took_s, cpu_s = time.monotonic() - begin_s, line.parts["worker"].cpu_s() - cpu_s
        print(
            f"{count} streaming runs at once, {words} words at {1 / pace_s:.0f} a second each: worst loop lag "
            f"{max(lags):.0f} ms, p50 of the seconds {statistics.median(lags):.0f} ms "
            f"(a loop that does nothing, beside it: {max(beside):.0f} ms); {took_s:.1f} s, worker {cpu_s:.1f} CPU s"
        )


@contextmanager
def idle_lag() -> Iterator[list[float]]:
    """How late a thread that only sleeps wakes up meanwhile: what the machine itself takes away."""
    late_ms = [0.0]

    def sleep(stop: threading.Event) -> None:
        while not stop.is_set():
            before = time.monotonic()
            time.sleep(0.05)
            late_ms.append((time.monotonic() - before - 0.05) * 1000)

    with meanwhile(sleep):
        yield late_ms


@contextmanager
def meanwhile(look: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `look` on a thread of its own; its event says when to stop."""
    stop = threading.Event()
    thread = threading.Thread(target=look, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def whole_line(
    make: Callable[[str], AbstractContextManager[Subject]], runs: int, calls: int, words: int, pace_s: float
) -> dict[str, float]:
    """Figures of one line under `runs` runs at once."""
    with server(words, pace_s, calls) as url, make(url) as line:
        asyncio.run(watch_all(line.url, 2, timeout_s=120))  # what a first run alone pays for is not a cost of each
        model_before = model_seen(url)
        before, load_before = line.cpu_s(), time.process_time()
        with peak(line) as memory:
            seen = asyncio.run(watch_all(line.url, runs, timeout_s=300))
        load_s = time.process_time() - load_before
        time.sleep(1.0)
        after, model = line.cpu_s(), model_seen(url)
    figures = {f"{part}_cpu": (after[part] - before[part]) / runs for part in after}
    figures |= {f"{part}_mb": memory[part] for part in after}
    figures |= {kind: sum(figures[f"{part}_{kind}"] for part in PARTS) for kind in ("cpu", "mb")}
    figures |= {"model_cpu": (model["cpu_s"] - model_before["cpu_s"]) / runs, "load_cpu": load_s / runs}
    return figures | turns(model["pauses_ms"]) | watched(seen)


def turns(pauses_ms: list[float]) -> dict[str, float]:
    """What lies between the end of one answer and the next request: commits, the command, the next prompt."""
    pauses_ms = sorted(pauses_ms) or [float("nan")]
    return {"turn_p50": statistics.median(pauses_ms), "turn_p99": pauses_ms[len(pauses_ms) * 99 // 100]}


def watched(seen: list[Watched]) -> dict[str, float]:
    return {
        "first": statistics.median(one.first_s for one in seen),
        "ended": max(one.ended_s for one in seen),
        "failed": sum(one.end != "run.finished" for one in seen),
        "facts": statistics.mean(one.facts for one in seen),
        "deltas": statistics.mean(one.deltas for one in seen),
    }


def model_seen(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        seen: dict[str, Any] = json.load(answer)
    return seen


@contextmanager
def peak(line: Subject) -> Iterator[dict[str, float]]:
    """The most memory that each part takes meanwhile; looked at twice a second."""
    most: dict[str, float] = {}

    def look(stop: threading.Event) -> None:
        while not stop.wait(0.5):
            for name, megabytes in line.memory().items():
                most[name] = max(most.get(name, 0.0), megabytes)

    with meanwhile(look):
        yield most


ROWS = {
    "CPU s per run": "cpu",
    "  gateway": "gateway_cpu",
    "  worker": "worker_cpu",
    "  Redis": "redis_cpu",
    "  (commands in sandboxes)": "commands_cpu",
    "  (model server)": "model_cpu",
    "  (clients)": "load_cpu",
    "own time per turn p50 ms": "turn_p50",
    "own time per turn p99 ms": "turn_p99",
    "memory MB": "mb",
    "  gateway ": "gateway_mb",
    "  worker ": "worker_mb",
    "  Redis ": "redis_mb",
    "  (sandboxes)": "commands_mb",
    "first event s p50": "first",
    "all ended after s": "ended",
    "runs that failed": "failed",
    "events per run": "facts",
    "deltas per run": "deltas",
}


def table(columns: dict[str, dict[str, float]]) -> None:
    """One line per figure, one column per subject, and how many times ours the other takes."""
    print(f"{'':<28}" + "".join(f"{name:>12}" for name in columns) + f"{'ratio':>9}")
    for title, key in ROWS.items():
        cells = [figures[key] for figures in columns.values()]
        ratio = f"{cells[-1] / cells[0]:>8.1f}x" if len(cells) > 1 and cells[0] else ""
        print(f"{title:<28}" + "".join(f"{cell:>12.3f}" for cell in cells) + ratio)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench runs", description=__doc__)
    parser.add_argument("--waiting", type=int, default=2000, help="runs that wait for their model; 0 leaves it out")
    parser.add_argument("--streaming", type=int, default=500, help="runs that stream at once; 0 leaves it out")
    parser.add_argument("--commits", type=int, default=300, help="runs of 10 turns for the cost of commits")
    parser.add_argument("--runs", type=int, default=50, help="runs at once of the whole line; 0 leaves it out")
    parser.add_argument("--only", choices=["dialtone", "plain"], help="of the whole line")
    given = parser.parse_args(arguments)
    raise_limits()
    if given.waiting:
        waiting(given.waiting)
    if given.streaming:
        streaming(given.streaming, 40, 0.05)
    if given.commits:
        asyncio.run(commits(given.commits))
    if given.runs:
        calls, words, pace_s = 10, 50, 0.01
        subjects: dict[str, Callable[[str], AbstractContextManager[Subject]]] = {
            "dialtone": dialtone,
            "plain": lambda url: plain(url, runs=given.runs),
        }
        print(
            f"\n{given.runs} runs at once of {calls} model calls x {words} words at {pace_s * 1000:g} ms; SSE attached"
        )
        names = [given.only] if given.only else list(subjects)
        table({name: whole_line(subjects[name], given.runs, calls, words, pace_s) for name in names})


if __name__ == "__main__":
    main()
