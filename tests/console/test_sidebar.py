"""The list of threads in a real browser while it is refreshed: nothing that a person asked for disappears."""

import pytest
from playwright.async_api import Page, expect

from dialtone import Client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

REFRESH = """async () => (await import("/store.js")).loadThreads()"""


async def test_a_refresh_keeps_the_pages_that_were_asked_for(page: Page, client: Client) -> None:
    made = [client.initiate(title=f"Row {number}") for number in range(110)]
    rows = page.locator(".threads li a")
    await page.goto("/")
    await expect(rows).to_have_count(50)
    assert await page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 1, "the page itself scrolls"
    await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(100)
    client.initiate(title="Newcomer")
    client.delete_thread(made[-2])
    await page.evaluate(REFRESH)
    await expect(rows.first).to_contain_text("Newcomer")
    await expect(rows).to_have_count(100)
    await page.get_by_role("button", name="Show more").click()
    for number, thread_id in enumerate(made):
        await expect(page.locator(f".threads a[href$='{thread_id}']")).to_have_count(int(number != len(made) - 2))


async def test_the_list_outlasts_a_gateway_that_was_away(page: Page, client: Client) -> None:
    client.initiate(title="Still here")
    await page.goto("/")
    await expect(page.locator(".threads")).to_contain_text("Still here")
    await page.context.set_offline(True)
    await page.evaluate(REFRESH)
    await expect(page.locator(".threads")).to_contain_text("Still here")
    await page.context.set_offline(False)
    await page.get_by_label("Search threads").fill("no such thread")
    await expect(page.locator(".sidebar-note")).to_have_text("Nothing found.")
