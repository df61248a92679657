"""Fixtures of the client's tests: a scripted gateway and clients of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from dialtone.client import AsyncClient
from tests.client.real_stack import real_stack
from tests.client.stub_gateway import StubGateway, serving


@pytest.fixture
def gateway() -> Iterator[StubGateway]:
    with serving(StubGateway()) as stub:
        yield stub


@pytest.fixture
async def client(gateway: StubGateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.url, timeout_s=5, patience_s=5) as it:
        yield it


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real stack, shared by the tests of this process."""
    with real_stack(tmp_path_factory.mktemp("stack")) as url:
        yield url
