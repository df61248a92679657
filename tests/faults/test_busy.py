"""Several executes on one thread: one run at a time, in order, whatever the policy."""

import asyncio

import psutil

from dialtone.client import AsyncClient
from tests.faults.conftest import client_of, serves, watch
from tests.line import Line, bash, script
from tests.ports import free_port
from tests.until import until


async def test_two_executes_at_once_over_two_gateways_run_one_after_the_other(line: Line) -> None:
    other = free_port()
    line.start(workers=2)
    line.gateway(other)
    async with client_of(line) as client, AsyncClient(f"http://127.0.0.1:{other}") as second:
        await until(lambda: serves(second), what="the second gateway")
        thread_id = await client.initiate()
        both = await asyncio.gather(
            client.execute(thread_id, script(bash("echo a-in >> log; sleep 1; echo a-out >> log"), {"text": "a"})),
            second.execute(thread_id, script(bash("echo b-in >> log; sleep 1; echo b-out >> log"), {"text": "b"})),
        )
        ends = [(await watch(client, run.run_id))[-1].type for run in both]
        assert ends == ["run.finished", "run.finished"]
        lines = (await client.get_file(thread_id, "log")).decode().split()
        assert lines in (["a-in", "a-out", "b-in", "b-out"], ["b-in", "b-out", "a-in", "a-out"])
        for run in both:
            await client.cancel(run.run_id)  # of a run that is over: changes nothing
        assert {(await client.run(run.run_id)).status for run in both} == {"finished"}


async def test_interrupt_ends_the_running_command_and_then_runs_the_new_task(line: Line) -> None:
    line.start()
    async with client_of(line) as client:
        thread_id = await client.initiate()
        first = await client.execute(thread_id, script(bash("sleep 755"), {"text": "no"}))

        async def sleeps() -> bool:
            return any(_command(p) == ["sleep", "755"] for p in line.children())

        await until(sleeps, timeout_s=30, what="the command")
        asked = asyncio.get_running_loop().time()
        second = await client.execute(thread_id, script({"text": "instead"}), policy="interrupt")
        assert (await watch(client, first.run_id, timeout_s=5))[-1].type == "run.cancelled"
        assert asyncio.get_running_loop().time() - asked < 3
        assert (await watch(client, second.run_id))[-1].type == "run.finished"
        assert not await sleeps()


def _command(process: psutil.Process) -> list[str]:
    """Its arguments; none once it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []
