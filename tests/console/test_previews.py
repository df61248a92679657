"""A page from a sandbox in the console's frame: it works, and reaches nothing of the console."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from dialtone import Client
from tests.client.real_stack import call, script
from tests.console.conftest import CHROMIUM
from tests.console.watching import ended, open_thread
from workflow.core.events import PreviewExposed

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

SERVER = Path(__file__).parent.parent / "e2e" / "inside_server.py"


def serving(client: Client, *, path: str = "/") -> tuple[str, PreviewExposed]:
    """A thread whose sandbox serves the page at `path`, and the link to it."""
    thread_id = client.initiate(title="Preview")
    client.put_file(thread_id, "server.py", content=SERVER.read_bytes())
    start = call("bash", command="exec python3 server.py 8123", background=True)
    task = script(
        {"tool_calls": [start]}, {"tool_calls": [call("url_expose", port=8123, path=path)]}, {"text": "Look."}
    )
    run = client.execute(thread_id, task)
    events = [item for item in client.stream(thread_id, run_id=run.run_id) if isinstance(item, PreviewExposed)]
    assert len(events) == 1
    return thread_id, events[0]


async def test_a_framed_page_works_and_reads_nothing_of_the_console(
    browser: Browser, stack: str, client: Client, tmp_path: Path
) -> None:
    by_name = stack.replace("127.0.0.1", "localhost")
    thread_id, _link = serving(client, path=f"/page?console={stack}&console={by_name}")
    threads = len(client.threads().items)
    for console in (stack, by_name):
        # As people start it: Playwright's own flags switch off the storage that browsers give to framed sites.
        context = await browser.browser_type.launch_persistent_context(
            tmp_path / urlsplit(console).netloc,
            executable_path=str(CHROMIUM),
            ignore_default_args=True,
            args=["--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe"],
            base_url=console,
            viewport={"width": 1440, "height": 900},
        )
        secrets = [{"name": "dialtone_session", "value": "SECRET", "httpOnly": True, "sameSite": "Strict"}]
        secrets += [{"name": "plain", "value": "SECRET"}]
        await context.add_cookies([{**secret, "url": url} for secret in secrets for url in (stack, by_name)])  # type: ignore[typeddict-item]
        page = await context.new_page()
        await open_thread(page, thread_id)
        await ended(page)
        await page.get_by_role("button", name="Show here").click()
        frame = page.frame_locator("iframe.preview-frame")
        await expect(frame.locator("#seen")).to_contain_text("done", timeout=15_000)
        seen = await frame.locator("#seen").inner_text()
        words = seen.split()
        assert {"store=v", "parent!SecurityError", "top!SecurityError"} <= set(words), seen
        assert not [word for word in words if word.startswith("fetch=")], seen
        assert "own=text" in words, "its own server answers"
        assert "sent=[" in seen and "SECRET" not in seen, "no cookie of the console is read, or sent there"
        kept = {cookie["name"]: cookie["value"] for cookie in await context.cookies([stack, by_name])}
        assert kept == {"dialtone_session": "SECRET", "plain": "SECRET"}, "nor was any set or changed"
        assert await page.evaluate("document.cookie") == "plain=SECRET"
        assert page.url.startswith(console)
        await page.get_by_role("tab", name="Run").click()
        await expect(page.locator(".figures")).to_contain_text("finished")
        await context.close()
    assert len(client.threads().items) == threads, "no request of the page did anything at the console"


async def test_a_link_is_opened_in_a_tab_of_its_own_and_ended(browser: Browser, stack: str, client: Client) -> None:
    thread_id, link = serving(client, path="/plain")
    context = await browser.new_context(base_url=stack, viewport={"width": 1440, "height": 900})
    page: Page = await context.new_page()
    await open_thread(page, thread_id)
    await ended(page)
    async with context.expect_page() as opening:
        await page.get_by_role("link", name="Open in a new tab").click()
    tab = await opening.value
    await expect(tab.get_by_role("heading", name="Inside")).to_be_visible()
    assert await tab.evaluate("[window.opener, document.referrer, location.host, isSecureContext]") == [
        None,
        "",
        urlsplit(link.url).netloc,
        True,
    ]
    await page.get_by_role("button", name="End this link").click()
    await expect(page.locator(".tool[data-tool=url_expose]")).to_contain_text("has ended")
    await tab.reload()
    await expect(tab.get_by_role("heading")).to_have_text("This preview has ended")
    await page.reload()
    await expect(page.locator(".tool[data-tool=url_expose]")).to_contain_text("has ended")
    await context.close()
