"""What a local sandbox costs: a command in it beside a bare subprocess, making one, snapshots, memory, many at once.

`python -m scripts.bench sandbox` prints one line per question. Ratios are of one run on one machine; absolute times
say little where others work too.
"""

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.init import descendants
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.tiers import TIERS, Tier

FILES = 10_000


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench sandbox", description=__doc__)
    parser.add_argument("--tiers", default=",".join(TIERS))
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--sandboxes", type=int, default=100)
    options = parser.parse_args(arguments)
    for tier in options.tiers.split(","):
        with tempfile.TemporaryDirectory(prefix="dt-bench-") as folder:
            Path(folder).chmod(0o755)
            asyncio.run(_measure(tier, Path(folder), commands=options.commands, sandboxes=options.sandboxes))


async def _measure(tier: Tier, folder: Path, *, commands: int, sandboxes: int) -> None:
    settings = SandboxSettings(mode=tier, max_live=sandboxes + 10)
    async with LocalProvider(settings, data_dir=folder) as provider:
        started = time.perf_counter()
        report = await provider.check()
        print(f"{tier}: check {_ms(time.perf_counter() - started)}, {len(report.probes)} probes → {report.tier}")
        if report.tier != tier:
            return
        sandbox = await provider.open(ThreadId("bench"))
        await _commands(tier, sandbox, commands)
        await _creation(tier, provider)
        await _snapshots(tier, sandbox)
        await _many(tier, provider, sandboxes)


async def _commands(tier: Tier, sandbox: LocalSandbox, count: int) -> None:
    """In turns, so that both feel the same weather."""
    await sandbox.exec("true")
    bare: list[float] = []
    inside: list[float] = []
    bare_cpu_s = inside_cpu_s = 0.0
    for _ in range(20):
        start = _cpu_s(sandbox)
        for _ in range(count // 20):
            bare.append(await _timed(_bare))
        middle = _cpu_s(sandbox)
        for _ in range(count // 20):
            inside.append(await _timed(lambda: sandbox.exec("true")))
        bare_cpu_s, inside_cpu_s = bare_cpu_s + middle - start, inside_cpu_s + _cpu_s(sandbox) - middle
    added = statistics.median(inside) - statistics.median(bare)
    print(
        f"{tier}: a command p50 {_ms(statistics.median(inside))}, p99 {_ms(_p99(inside))}; "
        f"bare subprocess p50 {_ms(statistics.median(bare))}, p99 {_ms(_p99(bare))}; "
        f"added at p50 {_ms(added)}; CPU {inside_cpu_s / bare_cpu_s:.2f}× ({_ms(inside_cpu_s / count)} each)"
    )


async def _bare() -> None:
    """What one would write without a sandbox."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "--noprofile", "--norc", "-c", "true"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )
    await process.communicate()


async def _creation(tier: Tier, provider: LocalProvider) -> None:
    times = []
    for number in range(10):
        sandbox = await provider.open(ThreadId(f"new-{number}"))
        times.append(await _timed(lambda sandbox=sandbox: sandbox.exec("true")))  # type: ignore[misc]
        await provider.remove(ThreadId(f"new-{number}"))
    print(f"{tier}: made and first command p50 {_ms(statistics.median(times))}, slowest {_ms(max(times))}")


async def _snapshots(tier: Tier, sandbox: LocalSandbox) -> None:
    made = await _timed(
        lambda: sandbox.exec(
            f"for d in {{1..100}}; do mkdir d$d; for f in {{1..{FILES // 100}}}; do echo $d $f > d$d/f$f; done; done"
        )
    )
    ids: list[str] = []

    async def take() -> None:
        ids.append(await sandbox.snapshot("bench"))

    first, again = await _timed(take), await _timed(take)
    await sandbox.exec("for d in {1..100}; do echo new > d$d/f1; done")
    changed = await _timed(take)
    few = await _timed(lambda: sandbox.restore(ids[0]))
    await sandbox.exec("rm -r d*")
    whole = await _timed(lambda: sandbox.restore(ids[0]))
    stored = sum(path.stat().st_size for path in (sandbox.place.state / "snapshots").rglob("*") if path.is_file())
    print(
        f"{tier}: {FILES} files: snapshot {_ms(first)} (bash writing them took {_ms(made)}), unchanged {_ms(again)}, "
        f"100 changed {_ms(changed)}; restore 100 files {_ms(few)}, all {_ms(whole)}; {stored / 1e6:.1f} MB stored"
    )


async def _many(tier: Tier, provider: LocalProvider, count: int) -> None:
    sandboxes = [await provider.open(ThreadId(f"many-{number}")) for number in range(count)]
    together = await _timed(lambda: _all(sandboxes))
    cells = [await sandbox.cell() for sandbox in sandboxes]
    pids = [pid for cell in cells for pid in (cell.init_pid, cell.host_pid)]
    memory = sum(map(_private_bytes, set(pids)))
    again = await _timed(lambda: _all(sandboxes))
    closed = await _timed(lambda: _close(sandboxes))
    left = [pid for pid in pids if descendants(pid)]
    print(
        f"{tier}: {count} at once: made and first command {_ms(together)} ({_ms(together / count)} each), next command "
        f"{_ms(again)}; {memory / count / 1e6:.1f} MB of its own per idle sandbox; "
        f"closed in {_ms(closed)}, {len(left)} left"
    )


async def _all(sandboxes: list[LocalSandbox]) -> None:
    await asyncio.gather(*(sandbox.exec("true") for sandbox in sandboxes))


async def _close(sandboxes: list[LocalSandbox]) -> None:
    await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))


def _private_bytes(pid: int) -> int:
    """Memory that would be free without this process; shared pages of libraries are not its own."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _cpu_s(sandbox: LocalSandbox) -> float:
    """CPU of this process, of what it waited for, and of the sandbox."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    init_pid = Path(sandbox.place.state / "lock").read_text().split()[0]
    fields = Path(f"/proc/{init_pid}/stat").read_text().rpartition(")")[2].split()
    return total + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    main(sys.argv[1:])
