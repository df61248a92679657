"""A line per test, with short leases, because each test breaks it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dialtone.client import AsyncClient
from tests.line import Line
from workflow.core.events import Event, EventBase

LEASE_S = 1.0
SETTINGS = {
    "DIALTONE_RUNS__LEASE_S": str(LEASE_S),
    "DIALTONE_RUNS__REAP_EVERY_S": "0.2",
    "DIALTONE_RUNS__STALE_QUEUED_S": "0.5",
}


@pytest.fixture
def line() -> Iterator[Line]:
    with Line(settings=dict(SETTINGS)) as line:
        yield line


@asynccontextmanager
async def client_of(line: Line) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(line.url) as client:
        yield client


async def watch(client: AsyncClient, run_id: str, *, timeout_s: float = 40) -> list[Event]:
    """All facts of a run up to its end, as a client that resumes by itself sees them."""
    thread_id = run_id.split(".")[0]
    async with asyncio.timeout(timeout_s):
        items: list[Any] = [item async for item in client.stream(thread_id, run_id=run_id)]
    return [item for item in items if isinstance(item, EventBase)]  # type: ignore[misc]


def check_log(events: list[Event]) -> None:
    """Contiguous, ordered, once each, with exactly one end, which is the last."""
    seqs = [int(event.id.split("-")[1]) for event in events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), seqs
    assert [event.terminal for event in events] == [False] * (len(events) - 1) + [True]


async def serves(client: AsyncClient) -> bool:
    """True once the gateway behind `client` is up."""
    try:
        return bool((await client.health())["status"] == "ok")
    except Exception:  # noqa: BLE001  # not up yet, whatever the reason; `until` bounds it
        return False
