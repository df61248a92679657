"""A page with nothing but the browser's own EventSource: cookie, cut network, reload; its text equals the log."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page

from dialtone import Client
from tests.client.real_stack import real_stack, script
from tests.console.test_sign_in import new_key
from tests.console.wire import Wire
from workflow.core.events import Message

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

WORDS = [f"word{number}" for number in range(200)]
SLOW = script({"text": " ".join(WORDS), "delay_ms": 15})

PAGE = """
// As little as a page can do: facts and previews of text, in the order in which they come.
window.shown = {text: {}, facts: [], opened: 0, lost: 0};
window.follow = (path) => {
  const stream = new EventSource(path);
  stream.onopen = () => { window.shown.opened += 1; };
  stream.onerror = () => { window.shown.lost += 1; };
  stream.addEventListener("task_agent_execute", ({data, lastEventId}) => {
    const event = JSON.parse(data);
    const {text, facts} = window.shown;
    if (event.type === "delta") {
      if (event.kind === "text") text[event.item] = (text[event.item] ?? "").slice(0, event.offset) + event.text;
    } else {
      facts.push(lastEventId);
      if (event.type === "message") text[event.item] = event.text;
    }
  });
};
const path = sessionStorage.getItem("path");
if (path) window.follow(path);
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A stack that checks its callers: its address and a key."""
    folder = tmp_path_factory.mktemp("guarded")
    with real_stack(folder, DIALTONE_AUTH__MODE="on", DIALTONE_GATEWAY__HEARTBEAT_S="1") as url:
        yield url, new_key(folder)


@asynccontextmanager
async def signed_in(browser: Browser, url: str, key: str) -> AsyncIterator[Page]:
    """A page of the gateway's origin that holds the session cookie and nothing else."""
    context = await browser.new_context(base_url=url)
    try:
        page = await context.new_page()
        await page.add_init_script(PAGE)
        await context.route("https://**", lambda route: route.abort())  # nothing but the gateway is reached
        await page.goto("/docs")
        status = await page.evaluate(
            """async (key) => (await fetch("/api/session", {method: "POST", body: JSON.stringify({key}),
                 headers: {"content-type": "application/json"}})).status""",
            key,
        )
        assert status == 200
        assert await page.evaluate("document.cookie") == ""
        yield page
    finally:
        await context.close()


async def follow(page: Page, thread_id: str) -> None:
    path = f"/api/agent/{thread_id}/stream"
    await page.evaluate("path => { sessionStorage.setItem('path', path); window.follow(path); }", path)


async def until_shown(page: Page, word: str) -> dict[str, Any]:
    """What the page shows, once `word` is there."""
    await page.wait_for_function(
        "word => Object.values(window.shown.text).some(text => text.split(' ').includes(word))",
        arg=word,
        timeout=20_000,
    )
    shown: dict[str, Any] = json.loads(await page.evaluate("JSON.stringify(window.shown)"))
    return shown


async def until_all_facts(page: Page, client: Client, thread_id: str) -> dict[str, Any]:
    """What the page shows, once it has the last event of a finished log."""
    await page.wait_for_function(
        "id => window.shown.facts.at(-1) === id", arg=client.thread(thread_id).last_id, timeout=20_000
    )
    shown: dict[str, Any] = json.loads(await page.evaluate("JSON.stringify(window.shown)"))
    return shown


def log_of(client: Client, thread_id: str) -> tuple[list[str], dict[str, str]]:
    """The ids of the log, and the text of each message in it."""
    events = client.event_page(thread_id, limit=1000).items
    return [event.id for event in events], {e.item: e.text for e in events if isinstance(e, Message)}


async def test_a_cut_network_costs_an_event_source_nothing(browser: Browser, guarded: tuple[str, str]) -> None:
    url, key = guarded
    wire = Wire(urlsplit(url).port or 0)
    with Client(url, key=key) as client:
        async with wire.open() as port, signed_in(browser, f"http://127.0.0.1:{port}", key) as page:
            thread_id = client.initiate()
            run = client.execute(thread_id, SLOW)
            await follow(page, thread_id)
            for cuts, word in enumerate(("word10", "word100"), start=1):
                await until_shown(page, word)
                wire.cut()
                await page.wait_for_function("cuts => window.shown.lost >= cuts", arg=cuts)
                await wire.mend()
            await asyncio.to_thread(lambda: list(client.stream(thread_id, run_id=run.run_id)))
            shown = await until_all_facts(page, client, thread_id)
            ids, texts = log_of(client, thread_id)
            assert shown["facts"] == ids
            assert shown["text"] == texts
            assert " ".join(WORDS) in texts.values()
            assert shown["opened"] >= 3


async def test_a_tab_reloaded_in_the_middle_of_a_message_shows_what_the_log_says(
    browser: Browser, guarded: tuple[str, str]
) -> None:
    url, key = guarded
    with Client(url, key=key) as client:
        async with signed_in(browser, url, key) as page:
            thread_id = client.initiate()
            run = client.execute(thread_id, SLOW)
            await follow(page, thread_id)
            await until_shown(page, "word40")
            await page.reload()
            half = await until_shown(page, "word41")
            (text,) = half["text"].values()
            assert text.startswith("word0 word1 ")
            assert "word199" not in text
            await asyncio.to_thread(lambda: list(client.stream(thread_id, run_id=run.run_id)))
            shown = await until_all_facts(page, client, thread_id)
            ids, texts = log_of(client, thread_id)
            assert shown["facts"] == ids
            assert shown["text"] == texts
