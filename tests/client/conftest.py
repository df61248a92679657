"""Fixtures of the client's tests: a scripted gateway and clients of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from dialtone.client import AsyncClient
from tests.client.stub_gateway import StubGateway, serving


@pytest.fixture
def gateway() -> Iterator[StubGateway]:
    with serving(StubGateway()) as stub:
        yield stub


@pytest.fixture
async def client(gateway: StubGateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.url, timeout_s=5, patience_s=5) as it:
        yield it
