"""Attacks on what a sandbox may use: memory, processors, descriptors, output. Limits are those of conftest.py."""

import asyncio
from time import monotonic
from typing import cast

import pytest

from tests.sandboxes.conftest import MEGABYTE
from tests.sandboxes.holding import report, why_not
from tests.sandboxes.inside import left, python
from tests.until import until
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import BackgroundProcess
from workflow.sandboxes.commands import BURST_BYTES, BURST_S
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.probes import interpreter
from workflow.sandboxes.tiers import TIERS, Tier


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    name = cast(Tier, request.param)
    if reason := why_not(name):
        pytest.skip(reason)
    return name


async def test_one_process_cannot_take_more_memory_than_there_is(sandbox: LocalSandbox) -> None:
    result = await python(sandbox, "x = [bytearray(10_000_000) for _ in range(60)]")
    assert result.exit_code != 0
    assert (await sandbox.exec("echo fine")).stdout == b"fine\n"


async def test_many_processes_together_cannot_either(sandbox: LocalSandbox) -> None:
    result = await python(
        sandbox,
        """
        import os, time
        for _ in range(4):
            if os.fork() == 0:
                x = bytearray(b"x") * 80_000_000
                time.sleep(300)
        pid, status = os.wait()  # the first that the kernel kills
        os._exit(os.waitstatus_to_exitcode(status) + 128 + 2 * 9)
        """,
        timeout_s=60,  # On a starved machine the kernel kills in time, but the killed are slow to die.
    )
    assert result.killed_by == "memory" and result.exit_code == 128 + 9
    await until(lambda: nothing_left(sandbox), timeout_s=30, what="the killed to be dead")


async def nothing_left(sandbox: LocalSandbox) -> bool:
    return await left(sandbox) == 0


async def test_memory_that_looks_like_files_counts_as_well(sandbox: LocalSandbox, tier: Tier) -> None:
    if tier == "T2":
        pytest.skip("T2 has no memory file systems of its own: its temporary folder is on disk")
    result = await sandbox.exec(
        "head -c 500M /dev/zero > /tmp/fill; head -c 500M /dev/zero > /dev/shm/fill; du -sm /tmp /dev/shm"
    )
    sizes = [int(line.split()[0]) for line in result.stdout.splitlines()]
    assert sizes == [] or sum(sizes) <= 50 + 70


SHARED = {
    "mapped": "kept.append(mmap.mmap(-1, 40_000_000)); kept[-1].write(bytes(40_000_000))",
    "in files": "kept.append(os.memfd_create('x')); os.write(kept[-1], bytes(40_000_000))",
}


@pytest.mark.parametrize("take", SHARED.values(), ids=SHARED)
async def test_memory_that_processes_may_share_counts_as_well(sandbox: LocalSandbox, take: str) -> None:
    result = await python(
        sandbox,
        f"""
        import mmap, os, time
        kept = []
        for number in range(20):
            {take}
            time.sleep(0.1)
        """,
    )
    assert result.killed_by == "memory", result


async def test_memory_that_many_processes_share_counts_once(sandbox: LocalSandbox) -> None:
    result = await python(
        sandbox,
        """
        import mmap, os, time
        shared = mmap.mmap(-1, 80_000_000)
        shared.write(bytes(80_000_000))
        for child in range(5):
            if os.fork() == 0:
                sum(shared[place] for place in range(0, 80_000_000, 4096))
                time.sleep(1)
                os._exit(0)
        for child in range(5):
            os.wait()
        """,
    )
    assert result.exit_code == 0, result


async def test_spinning_processes_share_the_processors_allowed(sandbox: LocalSandbox, tier: Tier) -> None:
    if tier != "T1":
        pytest.skip(f"{tier} says so among its gaps: CPU time is not limited")
    result = await sandbox.exec(
        "for i in 1 2 3 4; do timeout 1 bash -c 'while :; do :; done' & done; wait; cat /proc/$$/stat", timeout_s=10
    )
    fields = result.stdout.rpartition(b")")[2].split()
    children_cpu_s = (int(fields[13]) + int(fields[14])) / 100
    assert 0 < children_cpu_s <= 0.5 * result.duration_s + 0.1  # with a quota of half a processor


async def test_a_command_that_cannot_be_started_for_the_limit_leaves_the_sandbox_alive(
    sandbox: LocalSandbox, tier: Tier
) -> None:
    if tier == "T2":
        pytest.skip("in T2 processes are counted by looking, so a command can always be started")
    bomb = await sandbox.start(f"exec {interpreter()} -I -S -c '{BOMB}'")
    await until(lambda: printed(bomb), what="the limit to be reached")
    refused = await sandbox.exec("true")
    assert refused.exit_code == 126 and b"cannot be started" in refused.stderr, refused
    await bomb.kill()
    assert (await sandbox.exec("echo fine")).stdout == b"fine\n"


BOMB = """
import os, time
while True:
    try:
        if os.fork() == 0:
            time.sleep(300)
    except OSError:
        break
print(1, flush=True)
time.sleep(300)
"""


async def printed(process: BackgroundProcess) -> bytes:
    return (await process.output())[0]


async def test_descriptors_run_out(sandbox: LocalSandbox) -> None:
    result = await python(
        sandbox,
        """
        import os
        try:
            for count in range(100_000):
                os.open("/dev/null", os.O_RDONLY)
        except OSError as error:
            print(count, error.errno)
        """,
    )
    count, error = map(int, result.stdout.split())
    assert count < 5000 and error == 24


async def test_a_flood_of_output_is_stopped(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("yes", timeout_s=20, max_output=1000)
    assert result.killed_by == "output" and len(result.stdout) == 1000
    assert result.dropped_bytes < 6 * MEGABYTE


async def test_a_flood_of_a_background_command_is_slowed(sandbox: LocalSandbox) -> None:
    """Nothing ends it, and reading it as fast as it comes would take the worker's time from all other threads."""
    started = monotonic()
    process = await sandbox.start("yes")
    await asyncio.sleep(1)
    _, printed = await process.output()
    assert 0 < printed <= 2 * BURST_BYTES * (1 + (monotonic() - started) / BURST_S)
    await process.kill()


async def test_a_watcher_that_is_slow_slows_the_command_not_the_worker(sandbox: LocalSandbox) -> None:
    """Nothing is read while the watcher is busy, so the flood waits in its pipe and costs no memory here."""
    held = asyncio.Event()

    async def show(stream: str, chunk: bytes) -> None:
        await held.wait()

    command = asyncio.create_task(
        sandbox.exec("head -c 2M /dev/zero; echo end >&2", on_output=show, max_output=4_000_000)
    )
    done, _ = await asyncio.wait([command], timeout=0.3)
    assert not done
    held.set()
    assert len((await asyncio.wait_for(command, 5)).stdout) == 2 << 20


async def test_a_watcher_that_is_slow_when_its_command_is_cancelled_gets_no_output_of_another_thread(
    provider: LocalProvider, sandbox: LocalSandbox
) -> None:
    """The pipe of the next command may have the number of the one that was closed."""
    other = await provider.open(ThreadId("other"))
    await other.exec("true")
    got, has_begun, may_end = [], asyncio.Event(), asyncio.Event()

    async def show(stream: str, chunk: bytes) -> None:
        got.append(chunk)
        has_begun.set()
        await may_end.wait()

    command = asyncio.create_task(sandbox.exec("echo ours; sleep 60", on_output=show))
    await has_begun.wait()
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    theirs = asyncio.create_task(other.exec("touch begun; until [ -e go ]; do sleep 0.02; done; echo theirs"))
    await until(lambda: other.stat("begun"))
    may_end.set()
    await other.write("go", b"")
    assert (await theirs).stdout == b"theirs\n" and got == [b"ours\n"]


async def test_a_watcher_that_fails_ends_its_command(sandbox: LocalSandbox) -> None:
    async def show(stream: str, chunk: bytes) -> None:
        raise ConnectionError("nobody is there")

    async with asyncio.timeout(10):
        with pytest.raises(ConnectionError):
            await sandbox.exec("echo; sleep 60", on_output=show)
    assert await left(sandbox) == 0


async def test_a_command_without_end_does_not_delay_others(sandbox: LocalSandbox) -> None:
    endless = asyncio.create_task(sandbox.exec("while :; do :; done", timeout_s=2))
    assert (await sandbox.exec("echo quick", timeout_s=2)).stdout == b"quick\n"
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless


def test_every_gap_of_a_tier_is_said(tier: Tier) -> None:
    assert report(tier).gaps, f"{tier} must say what it does not promise"
