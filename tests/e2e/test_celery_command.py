"""A worker started with Celery's own command line, as an operator of Celery is used to."""

import sys
from pathlib import Path

from dialtone.client import AsyncClient
from tests.line import Line, bash, script
from workflow.core.events import RunFinished, ToolResulted


async def test_celery_s_own_command_line_starts_a_worker_that_runs_tasks() -> None:
    with Line() as line:
        line.redis.start()
        line.gateway()
        line.spawn(
            "worker",
            [str(Path(sys.executable).with_name("celery")), "-A", "modem.app", "worker", "-P", "custom"],
            {"CELERY_CUSTOM_WORKER_POOL": "modem.loop:AioPool"},
        )
        line.wait_ready()
        async with AsyncClient(line.url) as client:
            run = await client.execute(await client.initiate(), script(bash("echo it runs"), {"text": "done"}))
            events = [event async for event in client.stream(run.thread_id, run_id=run.run_id, deltas=False)]
        assert isinstance(events[-1], RunFinished)
        assert any("it runs" in event.output for event in events if isinstance(event, ToolResulted))
