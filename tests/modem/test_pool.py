"""Connections to Redis and the tasks that use them."""

import asyncio

from modem.pool import Connections
from tests.modem.conftest import Line


async def test_a_cancel_ends_a_task_at_whatever_moment_of_a_command_it_comes(line: Line) -> None:
    connections = Connections.open(line.settings.redis)

    async def ask_for_ever() -> None:
        while True:
            await connections.commands.ping()

    try:
        for ticks in range(120):
            task = asyncio.create_task(ask_for_ever())
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=1)
            assert done, f"it goes on when it is cancelled after {ticks} turns of the loop"
            assert task.cancelled()
            assert await connections.commands.ping()
    finally:
        await connections.close()
