"""The panel beside the conversation in a real browser."""

import pytest
from playwright.async_api import Page, expect

from dialtone import Client
from tests.client.real_stack import script
from tests.console.watching import ended, open_thread

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]


async def test_a_panel_that_would_cover_the_conversation_is_not_open_at_first(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Panel")
    run = client.execute(thread_id, script({"text": "All is well."}))
    _ = list(client.stream(thread_id, run_id=run.run_id))
    await open_thread(page, thread_id)
    await ended(page)
    await page.get_by_role("tab", name="Run").click()
    names = page.locator(".figures dt")
    await expect(names.filter(has_text="Configuration")).to_be_visible()
    assert await names.evaluate_all("all => all.filter(one => one.scrollWidth > one.clientWidth).length") == 0
    await page.reload()
    await expect(page.get_by_role("tab", name="Run", selected=True)).to_be_visible()
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.reload()
    await ended(page)
    await expect(page.get_by_role("tab", name="Run")).to_be_hidden()
    await page.locator(".message").click(trial=True)
