"""What a stream costs: CPU per delivered event, delay, memory per idle reader; ours beside what one would write
first and, where it is installed, nginx with nchan.

`python -m scripts.bench stream` starts each server in turn over the same Redis and prints ratios. Absolute times
say little: this machine is shared. NCHAN_MODULE names nchan's module when it is not where Debian puts it.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from scripts.bench.stream_subjects import PADDING, ROOT, Store, Subject, raise_limits, store, subject, subjects

WARM_UP = 5
"""Rounds before the measured ones."""
TURNS = 3
"""How often readers are measured alone and beside stuck ones: other work on the machine comes and goes."""


@dataclass(frozen=True)
class Shape:
    """`readers` readers spread over `threads` threads, each of which gets `per_s` events a second for `seconds`."""

    threads: int
    readers: int
    per_s: float
    seconds: float
    padding: int = PADDING

    @property
    def rounds(self) -> int:
        return int(self.per_s * self.seconds)


@contextmanager
def readers(
    under_test: Subject, paths: Sequence[str], *, settle_s: float = 0.5, has_event: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Connected readers in a process of their own."""
    command = [sys.executable, "-m", "scripts.bench.stream_clients"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        order = {"port": under_test.port, "paths": list(paths), "settle_s": settle_s, "has_event": has_event}
        print(json.dumps(order), file=process.stdin, flush=True)
        assert process.stdout.readline().strip() == "ready", "the readers could not connect"
        try:
            yield process
        finally:
            process.kill()


def deliver(name: str, held: Store, shape: Shape) -> dict[str, float]:
    """CPU and delay per delivered event of one server under one load."""
    threads = held.make(shape.threads)
    with subject(name, held) as under_test:
        under_test.publish(held, threads)
        return measure(under_test, held, threads, shape)


def beside_stuck(name: str, held: Store, shape: Shape, count: int) -> dict[str, float]:
    """Delay of healthy readers of one thread, alone and beside `count` that take nothing; medians of turns."""
    alone, beside = [], []
    with subject(name, held) as under_test:
        for _ in range(TURNS):
            quiet, crowded = held.make(2)
            under_test.publish(held, [quiet, crowded])
            alone.append(measure(under_test, held, [quiet], shape))
            with stuck(under_test, under_test.path(crowded), count):
                beside.append(measure(under_test, held, [crowded], shape))
    alone_ms, beside_ms = (median(one["p99_ms"] for one in turns) for turns in (alone, beside))
    missing = sum(one["missing"] for one in (*alone, *beside))
    return {"alone_ms": alone_ms, "p99_ms": beside_ms, "ratio": beside_ms / alone_ms, "missing": missing}


@contextmanager
def stuck(under_test: Subject, path: str, count: int) -> Iterator[None]:
    """Readers that send their request and then take nothing."""
    with ExitStack() as opened:
        for _ in range(count):
            reader = opened.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", under_test.port))
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{under_test.port}\r\n\r\n".encode())
        yield


def measure(under_test: Subject, held: Store, threads: Sequence[str], shape: Shape) -> dict[str, float]:
    """CPU and delay per delivered event of a running server under one load."""
    paths = [under_test.path(threads[number % shape.threads]) for number in range(shape.readers)]
    with readers(under_test, paths, has_event=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pace(under_test, held, threads, shape, rounds=WARM_UP)
        before, began = under_test.cpu_s(), time.monotonic()
        pace(under_test, held, threads, shape, rounds=shape.rounds)
        took_s = time.monotonic() - began
        time.sleep(1.0)
        cpu_s = under_test.cpu_s() - before
        print("stop", file=process.stdin, flush=True)
        told: dict[str, Any] = json.loads(process.stdout.readline())
    expected = (shape.rounds + WARM_UP) * shape.readers
    return told | {
        "us": cpu_s * 1e6 / (shape.rounds * shape.readers),
        "missing": expected - told["received"],
        "per_s": shape.rounds * shape.readers / took_s,
    }


def pace(under_test: Subject, held: Store, threads: Sequence[str], shape: Shape, *, rounds: int) -> None:
    """`rounds` events to each thread, as often as `shape` says."""
    due = time.monotonic()
    for _ in range(rounds):
        under_test.publish(held, threads, shape.padding)
        due += 1 / shape.per_s
        time.sleep(max(0.0, due - time.monotonic()))


def idle(name: str, held: Store, count: int) -> dict[str, float]:
    """Memory and CPU of `count` readers of as many threads, to whom nothing happens."""
    threads = held.make(count)
    with subject(name, held) as under_test:
        with readers(under_test, [under_test.path(thread) for thread in threads[:50]], settle_s=1.0):
            before = under_test.memory()
        time.sleep(1.0)
        with readers(under_test, [under_test.path(thread) for thread in threads], settle_s=2.0):
            after, cpu_s = under_test.memory(), under_test.cpu_s()
            time.sleep(5.0)
            return {"kib": (after - before) / count / 1024, "cpu": (under_test.cpu_s() - cpu_s) / 5 * 100}


def table(title: str, rows: dict[str, dict[str, float]], columns: dict[str, str], cost: str) -> None:
    """Prints figures and, last, how many times `dialtone`'s cost each server has."""
    print(f"\n{title}", flush=True)
    print(f"{'server':<10}" + "".join(f"{head:>12}" for head in columns.values()) + f"{'of ours':>10}")
    ours = rows["dialtone"][cost]
    for name, figures in rows.items():
        cells = "".join(f"{figures.get(key, float('nan')):>12.1f}" for key in columns)
        print(f"{name:<10}{cells}{figures[cost] / ours if ours else float('nan'):>9.2f}x")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-K", type=int, default=1000, help="readers of one thread")
    parser.add_argument("-M", type=int, default=1000, help="threads with one reader each")
    parser.add_argument("--idle", type=int, default=2000, help="idle readers")
    parser.add_argument("--stuck", type=int, default=200, help="readers that take nothing, beside 50 that do")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--only", default="", help="servers, comma-separated")
    parser.add_argument("--loads", default=",".join(LOADS), help="which of them, comma-separated")
    given = parser.parse_args(arguments)
    raise_limits()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    names = given.only.split(",") if given.only else subjects()
    with store() as held:
        for load in given.loads.split(","):
            LOADS[load](given, held, names)


def wide(given: argparse.Namespace, held: Store, names: Sequence[str]) -> None:
    """Many readers of one thread."""
    shape = Shape(1, given.K, 5000 / given.K, given.seconds)
    rows = {name: deliver(name, held, shape) for name in names}
    table(f"{given.K} readers of one thread, about 5,000 deliveries a second", rows, DELIVERIES, "us")


def deep(given: argparse.Namespace, held: Store, names: Sequence[str]) -> None:
    """Many threads with a reader each."""
    shape = Shape(given.M, given.M, 1.0, given.seconds)
    rows = {name: deliver(name, held, shape) for name in names}
    table(f"{given.M} threads with one reader each, one event a second each", rows, DELIVERIES, "us")


def crowded(given: argparse.Namespace, held: Store, names: Sequence[str]) -> None:
    """Healthy readers beside stuck ones. Ours alone: the plain server lets nobody in for a while after them."""
    shape = Shape(1, 50, 100, given.seconds, padding=4000)
    rows = {name: beside_stuck(name, held, shape, given.stuck) for name in names if name == "dialtone"}
    columns = {"alone_ms": "p99 alone", "p99_ms": "p99 beside", "ratio": "ratio", "missing": "missing"}
    title = f"50 readers beside {given.stuck} stuck ones, 5,000 deliveries of 4 KB a second"
    table(title, rows, columns, "p99_ms")


def silent(given: argparse.Namespace, held: Store, names: Sequence[str]) -> None:
    """Readers to whom nothing happens."""
    rows = {name: idle(name, held, given.idle) for name in names}
    table(f"{given.idle} idle readers", rows, {"kib": "KiB each", "cpu": "% CPU"}, "kib")


LOADS = {"wide": wide, "deep": deep, "stuck": crowded, "idle": silent}
DELIVERIES = {"us": "us CPU/event", "p50_ms": "p50 ms", "p99_ms": "p99 ms", "per_s": "events/s", "missing": "missing"}


if __name__ == "__main__":
    main()
