"""The console on a network that breaks while it follows a thread over a WebSocket: it says so, and loses nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from dialtone import Client
from tests.client.real_stack import call, script
from tests.console.watching import ended, open_thread, said, watched
from tests.console.wire import Wire
from tests.line import Line
from workflow.core.events import Message

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

WORDS = " ".join(f"word{number}" for number in range(400))
SLOW = script({"text": "I look.", "tool_calls": [call("ls")]}, {"text": WORDS, "delay_ms": 15}, {"text": "unused"})
SHOWN = """async () => {
    const { thread } = await import("/store.js");
    const { eventCount, lastId } = thread.value.view;
    return { eventCount, lastId, ids: [...document.querySelectorAll(".block[id]")].map(one => one.id.slice(2)) };
}"""


@asynccontextmanager
async def visiting(browser: Browser, url: str) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page of the console at `url`, and the streams that it opens from now on, by their kind."""
    context = await browser.new_context(base_url=url, viewport={"width": 1440, "height": 900})
    try:
        page = await context.new_page()
        complaints = watched(page)
        streams: list[str] = []
        page.on("websocket", lambda _: streams.append("websocket"))
        page.on("response", lambda answer: streams.append("sse") if "/stream?" in answer.url else None)
        yield page, streams
        assert complaints == []
    finally:
        await context.close()


async def until_word(page: Page, word: str) -> None:
    await expect(page.locator(".markdown").last).to_contain_text(f"{word} ", timeout=20_000)


async def is_what_the_log_says(page: Page, client: Client, thread_id: str) -> None:
    """Fails if the page lost an event, took one twice, or shows another text than the log."""
    events = client.event_page(thread_id, limit=1000).items
    shown = await page.evaluate(SHOWN)
    assert (shown["eventCount"], shown["lastId"]) == (len(events), events[-1].id)
    order = {event.id: place for place, event in enumerate(events)}
    places = [order[one] for one in shown["ids"]]
    assert places == sorted(set(places))
    assert await said(page) == [event.text for event in events if isinstance(event, Message)]


async def test_a_cut_socket_is_seen_and_resumed_without_loss_or_repeat(
    browser: Browser, stack: str, client: Client
) -> None:
    wire = Wire(urlsplit(stack).port or 0)
    async with wire.open() as port, visiting(browser, f"http://127.0.0.1:{port}") as (page, streams):
        thread_id = client.initiate(title="Cut")
        client.execute(thread_id, SLOW)
        await open_thread(page, thread_id)
        connection = page.locator(".connection")
        for word in ("word10", "word120"):
            await until_word(page, word)
            assert streams.pop() == "websocket"
            wire.cut()
            await expect(connection).to_have_attribute("data-state", "waiting")
            await expect(page.locator(".offline")).to_be_visible()
            await wire.mend()
            await expect(connection).to_have_attribute("data-state", "live", timeout=15_000)
            await expect(page.locator(".offline")).to_have_count(0)
        await ended(page, timeout_s=40)
        assert WORDS in await said(page)
        await is_what_the_log_says(page, client, thread_id)


async def test_a_socket_that_falls_silent_is_given_up_and_opened_anew(
    browser: Browser, stack: str, client: Client
) -> None:
    wire = Wire(urlsplit(stack).port or 0)
    async with wire.open() as port, visiting(browser, f"http://127.0.0.1:{port}") as (page, _streams):
        await page.clock.install()
        thread_id = client.initiate(title="Silent")
        client.execute(thread_id, SLOW)
        await open_thread(page, thread_id)
        await until_word(page, "word10")
        wire.stall()
        await page.clock.fast_forward(46_000)
        await expect(page.locator(".connection")).not_to_have_attribute("data-state", "live")
        wire.cut()
        await wire.mend()
        await ended(page, timeout_s=40)
        await is_what_the_log_says(page, client, thread_id)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(settings={"DIALTONE_LLM__DEFAULT": "scripted"})
    try:
        yield line.start()
    finally:
        line.stop()


async def test_a_gateway_that_is_killed_and_started_again_costs_the_page_nothing(browser: Browser, line: Line) -> None:
    async with visiting(browser, line.url) as (page, streams):
        with Client(line.url) as client:
            thread_id = client.initiate(title="Killed")
            client.execute(thread_id, SLOW)
            await open_thread(page, thread_id)
            await until_word(page, "word10")
            assert streams == ["websocket"]
            (gateway,) = line.alive("gateway")
            gateway.kill()
            await expect(page.locator(".connection")).to_have_attribute("data-state", "waiting")
            await expect(page.locator(".offline")).to_be_visible()
            line.gateway()
            await asyncio.to_thread(line.wait_ready)
            await ended(page, timeout_s=60)
            await expect(page.locator(".offline")).to_have_count(0)
            assert WORDS in await said(page)
            await is_what_the_log_says(page, client, thread_id)
