"""One line of real processes for all end-to-end tests of a session."""

from collections.abc import AsyncIterator, Iterator

import pytest

from dialtone.client import AsyncClient
from tests.line import Line


@pytest.fixture(scope="session")
def line() -> Iterator[Line]:
    with Line(settings={"DIALTONE_RUNS__LEASE_S": "2"}) as line:
        yield line.start()


@pytest.fixture
async def client(line: Line) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(line.url) as client:
        yield client
