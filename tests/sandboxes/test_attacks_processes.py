"""Attacks on the rule that nothing of a command outlives it: daemons, bombs, killed and stopped keepers."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandboxes.inside import left, python
from tests.until import until
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.guard import usage
from workflow.sandboxes.init import descendants
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.tiers import Tier

ROOT = Path(__file__).parent.parent.parent


async def test_a_command_that_ignores_every_signal_dies_at_its_time(sandbox: LocalSandbox) -> None:
    result = await python(
        sandbox,
        """
        import os, signal, time
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(300)
        time.sleep(300)
        """,
        timeout_s=0.5,
    )
    assert result.timed_out and result.duration_s < 3
    assert await left(sandbox) == 0


async def test_a_command_that_kills_its_keeper_only_ends_itself(sandbox: LocalSandbox, tier: Tier) -> None:
    if tier == "T2":
        pytest.skip("in T2 a command may not even signal its keeper; the test below shows it")
    other = await sandbox.start("exec sleep 300")
    result = await python(
        sandbox,
        """
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(300)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(300)
        """,
        timeout_s=5,
    )
    assert result.exit_code == 128 + 9 and not result.timed_out
    assert other.exit_code is None
    assert await left(sandbox) == 2  # the other command and its keeper
    assert (await sandbox.exec("echo fine")).stdout == b"fine\n"


async def test_a_command_that_stops_its_keeper_is_still_killed(sandbox: LocalSandbox, tier: Tier) -> None:
    stop = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); time.sleep(300)"
    result = await python(sandbox, stop, timeout_s=0.5)
    if tier == "T2":
        assert result.exit_code == 1 and b"PermissionError" in result.stderr
    else:
        assert result.timed_out and result.duration_s < 3
    assert await left(sandbox) == 0


async def test_init_cannot_be_killed_or_stopped_from_inside(sandbox: LocalSandbox, tier: Tier) -> None:
    if tier == "T2":
        pytest.skip("in T2 process 1 is the host's; signalling it is one of the refused canary attacks")
    await python(sandbox, "import os\nfor n in range(1, 65):\n    os.kill(1, n) if n not in (32, 33) else None")
    assert (await sandbox.exec("echo alive")).stdout == b"alive\n"


async def test_a_command_that_takes_inits_descriptors_away_leaves_nothing_behind(
    sandbox: LocalSandbox, tier: Tier
) -> None:
    """Without any, init would see no processes to clear away."""
    init = 1 if tier != "T2" else (await sandbox.cell()).init_pid
    result = await python(
        sandbox,
        f"""
        import contextlib, os, resource, time
        with contextlib.suppress(OSError):
            resource.prlimit({init}, resource.RLIMIT_NOFILE, (2, 2))
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        os.wait()
        """,
    )
    assert result.exit_code == 0 and await left(sandbox) == 0


async def test_a_subreaper_of_its_own_keeps_nothing_alive(sandbox: LocalSandbox) -> None:
    await python(
        sandbox,
        """
        import ctypes, os, time
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
                if os.fork() == 0:
                    time.sleep(300)
                os._exit(0)
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
            if os.fork() == 0:
                os.setsid()
                time.sleep(300)
            time.sleep(300)
        """,
    )
    assert await left(sandbox) == 0


async def test_a_fork_bomb_is_held_at_its_limit_and_cleared_away(sandbox: LocalSandbox, tier: Tier) -> None:
    bomb = asyncio.create_task(sandbox.exec("bomb() { bomb | bomb & }; bomb; sleep 300", timeout_s=0.7))
    cell = await sandbox.cell()
    highest = 0
    while not bomb.done():
        await asyncio.wait([bomb], timeout=0.02)
        # The kernel's own count, where there is one: processes that come and go while we look are counted twice.
        highest = max(highest, cell.group.processes() if cell.group else usage(cell.init_pid)[1])
    result = await bomb
    assert result.killed_by in ("timeout", "processes")
    if tier != "T2":
        assert highest <= 40
    assert await left(sandbox) == 0
    assert (await sandbox.exec("echo fine")).stdout == b"fine\n"


async def test_a_process_that_hops_from_child_to_child_is_caught(sandbox: LocalSandbox) -> None:
    """It is never the same process twice: each one forks the next and ends."""
    hop = """
    import os
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            while True:
                if os.fork():
                    os._exit(0)
    """
    result = await python(sandbox, hop, timeout_s=3)
    assert result.duration_s < 2
    assert await left(sandbox) == 0


async def test_many_daemons_of_many_commands_at_once_are_all_gone(sandbox: LocalSandbox) -> None:
    await asyncio.gather(*(sandbox.exec("setsid -f sleep 300; (sleep 300 &)") for _ in range(5)))
    assert await left(sandbox) == 0


async def test_a_sandbox_that_kills_itself_is_replaced(sandbox: LocalSandbox) -> None:
    await sandbox.write("kept", b"here")
    cell = await sandbox.cell()
    cell.kill_now()
    await until(lambda: _dead(cell), what="the sandbox to be gone")
    assert (await sandbox.exec("cat kept")).stdout == b"here"


async def _dead(cell: object) -> bool:
    return not cell.is_alive  # type: ignore[attr-defined]  # a Cell


async def test_nothing_survives_if_the_host_kills_the_first_process(sandbox: LocalSandbox) -> None:
    gap = "commands survive if the host kills the sandbox's own first process"
    if gap in sandbox.info.gaps:
        pytest.skip(f"{sandbox.info.tier} says so among its gaps: {gap}")
    await sandbox.start("setsid -f sleep 300; sleep 300")
    init = (await sandbox.cell()).init_pid
    tree = await until(lambda: _tree(init, at_least=4), what="the command to run")
    os.kill(init, signal.SIGKILL)
    await until(lambda: _gone([init, *tree]), what="every process to be gone")


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.sandboxes.holding import report
from workflow.core.config import SandboxSettings
from workflow.sandboxes.base import TierReport
from workflow.sandboxes.local import LocalProvider

async def main():
    tier, folder = sys.argv[1:]
    provider = LocalProvider(SandboxSettings(mode=tier), data_dir=Path(folder), report=TierReport("local", tier))
    sandbox = await provider.open("killed")
    await sandbox.start("setsid -f sleep 300; sleep 300")
    print((await sandbox.cell()).init_pid, flush=True)
    await sandbox.exec("setsid -f sleep 300; trap '' TERM HUP; sleep 300")

asyncio.run(main())
"""


async def test_nothing_survives_a_first_process_that_fails(folder: Path) -> None:
    """Where neither a PID namespace nor a control group ends with it, as in T2 without one."""
    async with LocalProvider(SandboxSettings(mode="unsafe_host"), data_dir=folder) as provider:
        sandbox = await provider.open(ThreadId("fails"))
        await sandbox.start("setsid sh -c 'echo $$ > made; mv made daemon; exec sleep 60' & setsid sleep 60 & wait")
        await until(lambda: sandbox.stat("daemon"))
        daemon = int(await sandbox.read("daemon"))
        cell = await sandbox.cell()
        assert daemon in descendants(cell.init_pid)
        await cell._send("what it does not know")

        async def is_gone() -> bool:
            return not Path(f"/proc/{daemon}").exists()

        await until(is_gone)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_survives_the_worker(tier: Tier, folder: Path, how: signal.Signals) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, tier, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert worker.stdout is not None
        init = int(await asyncio.to_thread(worker.stdout.readline))
        tree = await until(lambda: _tree(init, at_least=6), what="the commands to run")
        worker.send_signal(how)
        await until(lambda: _gone([init, *tree]), timeout_s=1.5, what="every process to be gone")
    finally:
        worker.kill()
        worker.communicate()


async def _tree(init: int, *, at_least: int) -> list[int]:
    from workflow.sandboxes.init import descendants

    found = descendants(init)
    return found if len(found) >= at_least else []


async def _gone(pids: list[int]) -> bool:
    return not [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and " Z " not in _stat(pid)]


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return " Z "
