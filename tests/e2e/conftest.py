"""One line of real processes for all end-to-end tests of a session."""

from collections.abc import AsyncIterator, Iterator

import pytest

from dialtone.client import AsyncClient
from tests.line import Line


@pytest.fixture(scope="session")
def line() -> Iterator[Line]:
    line = Line(settings={"DIALTONE_RUNS__LEASE_S": "2"})
    try:
        yield line.start()
    finally:
        line.stop()


@pytest.fixture
async def client(line: Line) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(line.url) as client:
        yield client
