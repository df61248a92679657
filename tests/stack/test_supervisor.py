"""What the supervisor promises about the parts it keeps."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scripts.stack.health import banner, get_health
from scripts.stack.plan import Plan
from scripts.stack.running import Stopped
from scripts.stack.supervisor import StackError
from tests.stack.conftest import HERE, Launch, StartStack, family, gone, stand_in


async def until_back(started_pid: int, pid: object, *, timeout_s: float = 10) -> int:
    """The pid of a part once it runs again as another process."""
    async with asyncio.timeout(timeout_s):
        while True:
            now = pid() if callable(pid) else None
            if isinstance(now, int) and now != started_pid:
                return now
            await asyncio.sleep(0.02)


async def test_a_stack_starts_and_stops_in_order_leaving_no_process(plan: Plan, start_stack: StartStack) -> None:
    async with start_stack(plan) as started:
        await started.said("worker waits")
        children = family(plan.data_dir)
        assert len(children) == 3
    assert await gone(children, within_s=0) == []
    log = started.log
    assert log.index("gateway stops") < log.index("worker stops")
    assert "gateway  │ gateway listens" in log


@pytest.mark.parametrize("name", ["gateway", "worker", "redis"])
async def test_a_part_that_dies_is_started_again(plan: Plan, start_stack: StartStack, name: str) -> None:
    async with start_stack(plan) as started:
        supervisor = started.stack.supervisor
        pid = supervisor.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until_back(pid, lambda: supervisor.pid(name))
        assert f"{name} died (SIGKILL, perhaps for want of memory); starting it again in 0.05 s" in started.log


async def test_a_part_that_keeps_dying_is_started_less_and_less_often(plan: Plan, start_stack: StartStack) -> None:
    async with start_stack(plan) as started:
        supervisor = started.stack.supervisor
        for delay in ("0.05", "0.1", "0.2", "0.2"):
            pid = supervisor.pid("worker")
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
            await until_back(pid, lambda: supervisor.pid("worker"))
            assert f"starting it again in {delay} s" in started.log


async def test_a_part_that_never_stays_up_stops_the_start_with_its_last_words(
    plan: Plan, start_stack: StartStack
) -> None:
    with pytest.raises(StackError, match=r"worker does not stay up \(exit status 3\). It last said:\n  no such luck"):
        async with start_stack(replace(plan, worker=stand_in("dies"), gateway=stand_in("gateway", "503"))):
            pass
    assert family(plan.data_dir) == []


async def test_a_command_that_does_not_exist_is_said_so(plan: Plan, start_stack: StartStack) -> None:
    with pytest.raises(StackError, match="gateway cannot be started: /no/such: No such file"):
        async with start_stack(replace(plan, gateway=("/no/such",))):
            pass


async def test_a_part_that_ignores_term_is_killed_with_all_its_children(plan: Plan, start_stack: StartStack) -> None:
    settings = plan.loaded.settings
    short = settings.worker.model_copy(update={"soft_shutdown_s": 0.001})
    loaded = replace(plan.loaded, settings=settings.model_copy(update={"worker": short}))
    plan = Plan(loaded, plan.gateway, stand_in("worker", "stubborn", "child"))
    async with start_stack(plan) as started:
        await started.said("worker waits")
        children = family(plan.data_dir)
        assert len(children) == 4
    assert await gone(children, within_s=0) == []
    assert "worker did not stop within 3.001 s; killed" in started.log


async def test_stopping_while_starting_ends_at_once(plan: Plan, start_stack: StartStack) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, stop.set)
    started = time.monotonic()
    with pytest.raises(Stopped):
        async with start_stack(replace(plan, gateway=stand_in("gateway", "503")), stop=stop):
            pass
    assert time.monotonic() - started < 3
    assert family(plan.data_dir) == []


async def test_a_health_check_can_be_cancelled_at_any_moment(unused_tcp_port: int) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n{}")
        writer.close()

    async def cancelled_after(steps: int) -> bool:
        """Whether the check was still under way then; if so, that it ended at once."""
        check = asyncio.create_task(get_health("127.0.0.1", unused_tcp_port))
        for _ in range(steps):
            await asyncio.sleep(0)
        if check.done():
            return False
        check.cancel()
        await asyncio.wait({check}, timeout=5)
        assert check.cancelled()
        return True

    async with await asyncio.start_server(answer, "127.0.0.1", unused_tcp_port):
        steps = 0
        while await cancelled_after(steps):
            steps += 1
    assert steps > 5


async def test_long_and_odd_lines_are_passed_on(plan: Plan, start_stack: StartStack) -> None:
    lines = r"b'x' * 200_000 + b'\n\xff\xfe end\nAPI_KEY=hunter2hunter2\nlast\n'"
    talk = (sys.executable, "-c", f"import os, time; os.write(1, {lines}); time.sleep(60)")
    async with start_stack(replace(plan, worker=talk)) as started:
        await started.said("last")
    assert started.log.count("x") >= 200_000
    assert "\\xff\\xfe end" in started.log
    assert "hunter2" not in started.log


async def test_several_processes_of_a_part_have_numbers(plan: Plan, start_stack: StartStack) -> None:
    settings = plan.loaded.settings
    two = settings.model_copy(update={"worker": settings.worker.model_copy(update={"processes": 2})})
    async with start_stack(replace(plan, loaded=replace(plan.loaded, settings=two))) as started:
        assert started.stack.supervisor.pid("worker-1") != started.stack.supervisor.pid("worker-2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
async def test_a_signal_to_the_supervisor_leaves_no_process_within_five_seconds(
    launch: Launch, number: signal.Signals
) -> None:
    # With KILL a part cannot end its own children any more; those of a real worker are bound to it by the sandbox.
    words = () if number == signal.SIGKILL else ("child",)
    beside = await launch(sys.executable, str(HERE / "driver.py"), *words)
    await beside.until_all("is ready", "worker waits")
    processes = beside.descendants()
    assert len(processes) == 3 + len(words)
    beside.process.send_signal(number)
    assert await gone(processes, within_s=5) == []
    status = await beside.end(timeout_s=5) if number != signal.SIGKILL else 0
    assert status == 0


async def test_a_second_signal_does_not_wait_for_anybody(launch: Launch) -> None:
    beside = await launch(sys.executable, str(HERE / "driver.py"), "stubborn")
    await beside.until_all("is ready", "worker waits")
    processes = beside.descendants()
    beside.process.send_signal(signal.SIGINT)
    await beside.until("gateway stops")
    beside.process.send_signal(signal.SIGINT)
    assert await beside.end(timeout_s=3) == 130
    assert await gone(processes, within_s=1) == []


async def test_lines_are_json_when_nobody_watches(launch: Launch) -> None:
    beside = await launch(sys.executable, str(HERE / "driver.py"), "talk", '{"message": "mine"}')
    await beside.until_all("is ready", "mine")
    beside.process.terminate()
    assert await beside.end() == 0
    assert all(line.startswith("{") and line.endswith("}") for line in beside.lines)
    assert '{"message": "mine"}' in beside.lines


async def test_the_banner_says_where_what_model_and_which_sandbox(launch: Launch, environ: dict[str, str]) -> None:
    beside = await launch(sys.executable, str(HERE / "driver.py"), DIALTONE_LOG__FORMAT="color")
    await beside.until("is ready")
    await beside.until("Ctrl-C")
    shown = "\n".join(beside.lines)
    port = environ["DIALTONE_GATEWAY__PORT"]
    assert f"http://127.0.0.1:{port}/docs" in shown
    assert "scripted (no key)" in shown
    assert "T1" in shown
    assert "embedded, version" in shown


async def test_data_survive_a_restart_and_a_kill(plan: Plan, start_stack: StartStack) -> None:
    socket = Path(plan.data_dir / "redis" / "redis.sock")

    async def ask(command: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(f"{command}\r\n".encode())
        answer = await reader.readline()
        answer += await reader.readline() if answer.startswith(b"$") else b""
        writer.close()
        return answer

    async with start_stack(plan):
        assert socket.stat().st_mode & 0o777 == 0o700
        assert (plan.data_dir / "redis").stat().st_mode & 0o777 == 0o700
        assert await ask("SET a 1") == b"+OK\r\n"
    async with start_stack(plan) as started:
        assert await ask("GET a") == b"$1\r\n1\r\n"
        assert await ask("CONFIG SET appendfsync always") == b"+OK\r\n"
        assert await ask("SET b 2") == b"+OK\r\n"
        pid = started.stack.supervisor.pid("redis")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until_back(pid, lambda: started.stack.supervisor.pid("redis"))
    async with start_stack(plan):
        assert await ask("GET b") == b"$1\r\n2\r\n"


async def test_health_of_a_gateway_that_is_not_there_or_talks_nonsense_is_nothing(unused_tcp_port: int) -> None:
    assert await get_health("127.0.0.1", unused_tcp_port) == (0, {})

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", unused_tcp_port)
    async with server:
        assert await get_health("127.0.0.1", unused_tcp_port) == (0, {})


def test_a_machine_where_no_tier_holds_is_told_what_to_do() -> None:
    lines = banner({"sandbox": "local/T3"}, url="http://127.0.0.1:8080", redis="embedded", data_dir="var")
    assert any("commands are refused; ./run.sh sandbox check says why" in line for line in lines)


async def test_a_reader_that_leaves_does_not_stop_the_stack(launch: Launch, environ: dict[str, str]) -> None:
    driver = f"{sys.executable} {HERE / 'driver.py'}"
    beside = await launch("bash", "-c", f"{driver} 2>&1 | head -n 1; sleep 600")
    await beside.until("")  # the only line that anybody reads
    port = int(environ["DIALTONE_GATEWAY__PORT"])
    async with asyncio.timeout(20):
        while (await get_health("127.0.0.1", port))[0] != 200:  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(0.05)
    own = psutil.Process(beside.process.pid).children()  # not theirs: a part may be about to become itself
    assert len([process for process in own if "driver" in " ".join(process.cmdline())]) == 1
