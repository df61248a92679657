"""A browser and a real stack for the console's tests, shared by the tests of a process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from dialtone import Client
from tests.client.real_stack import real_stack
from tests.client.stub_gateway import StubGateway, serving
from tests.console.watching import Watched, watched

CHROMIUM = Path("/usr/bin/chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Debian's Chromium the tests that drive it are skipped."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not CHROMIUM.exists() and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="needs Chromium (Debian package `chromium`)"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real stack."""
    with real_stack(tmp_path_factory.mktemp("stack"), DIALTONE_GATEWAY__HEARTBEAT_S="1") as url:
        yield url


@pytest.fixture
def gateway() -> Iterator[StubGateway]:
    """A scripted gateway that serves the console's modules as well."""
    with serving(StubGateway()) as stub:
        yield stub


@pytest.fixture
def client(stack: str) -> Iterator[Client]:
    with Client(stack) as it:
        yield it


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, stack: str) -> AsyncIterator[Page]:
    """A fresh page of the console; anything that the browser complains about fails the test."""
    context = await browser.new_context(base_url=stack, viewport={"width": 1440, "height": 900})
    try:
        page = await context.new_page()
        complaints: Watched = watched(page)
        yield page
        assert complaints == []
    finally:
        await context.close()
