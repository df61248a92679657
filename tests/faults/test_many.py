"""Many runs in one worker: what is harmless once must not happen a hundred times."""

import asyncio

from tests.faults.conftest import client_of, watch
from tests.line import Line, script


async def test_a_hundred_runs_that_end_at_once_are_not_taken_for_lost(line: Line) -> None:
    """The heartbeat finds runs that have just ended; their workers still have to pass their threads' turns on."""
    line.settings |= {"DIALTONE_RUNS__LEASE_S": "1", "DIALTONE_RUNS__STALE_QUEUED_S": "30"}
    line.settings |= {"DIALTONE_LIMITS__MAX_RUNNING_PER_TENANT": "0", "DIALTONE_LIMITS__EXECUTES_PER_MINUTE": "0"}
    line.start()
    task = script({"text": "Done.", "delay_ms": 100})
    async with client_of(line) as client:
        threads = await asyncio.gather(*(client.initiate() for _ in range(50)))
        runs = await asyncio.gather(*(client.execute(thread_id, task) for thread_id in threads * 2))
        for events in await asyncio.gather(*(watch(client, run.run_id, timeout_s=25) for run in runs)):
            assert [e.type for e in events if e.type.startswith("run.")] == [
                "run.queued",
                "run.started",
                "run.finished",
            ]
    assert "lease lost" not in line.logs()
    assert "broke outside" not in line.logs()
