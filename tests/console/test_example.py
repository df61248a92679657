"""The example page of docs/console.md, in a browser, on the real stack."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.client.real_stack import call, script
from tests.console.watching import watched

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(60)]

PAGE = Path(__file__).parents[2] / "docs" / "examples" / "dialtone.html"


async def test_the_example_page_runs_a_task_shows_it_and_stops_one(browser: Browser, stack: str) -> None:
    page = await browser.new_page(base_url=stack)
    complaints = watched(page)
    await page.route("**/example.html", lambda route: route.fulfill(path=PAGE, content_type="text/html"))
    await page.goto("/example.html")
    await page.get_by_label("Task").fill(
        script({"tool_calls": [call("bash", command="echo $((6 * 7))")]}, {"text": "Done so."})
    )
    await page.get_by_role("button", name="Run").click()
    await expect(page.locator("#state")).to_have_text("ended", timeout=20_000)
    for text in ('bash {"command":"echo $((6 * 7))"}', "42\n", "Done so.", "run.finished"):
        await expect(page.locator("#log")).to_contain_text(text)
    await page.get_by_label("Task").fill(script({"tool_calls": [call("bash", command="echo begun; sleep 600")]}))
    await page.get_by_role("button", name="Run").click()
    await expect(page.locator("#log")).to_contain_text("sleep 600", timeout=20_000)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#log")).to_contain_text("run.cancelled")
    assert complaints == []
    await page.context.close()
