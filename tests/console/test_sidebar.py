"""The list of threads in a real browser while it is refreshed: nothing that a person asked for disappears."""

import pytest
from playwright.async_api import Browser, Page, Route, expect

from dialtone import Client
from tests.console.watching import open_thread

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


async def test_a_title_that_was_changed_elsewhere_is_shown(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Old")
    await open_thread(page, thread_id)
    await expect(page.locator(".title")).to_have_text("Old")
    client.update_thread(thread_id, title="New")
    await page.evaluate(REFRESH)
    await expect(page.locator(".title")).to_have_text("New")


async def test_a_thread_opened_while_the_gateway_was_busy_is_shown_when_it_answers(
    browser: Browser, stack: str, client: Client
) -> None:
    thread_id = client.initiate(title="Later")
    run = client.execute(thread_id, '```script\n[{"text": "All is well."}]\n```')
    _ = list(client.stream(thread_id, run_id=run.run_id))
    page = await browser.new_page(base_url=stack)

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, headers={"retry-after": "0"}, json={"detail": "Redis is away"})

    await page.route(f"**/api/agent/{thread_id}", refuse)
    await page.clock.install()
    await open_thread(page, thread_id)
    await expect(page.locator(".message .markdown")).to_have_text("All is well.", timeout=20_000)
    await page.clock.run_for(60_000)
    await expect(page.locator(".message .markdown")).to_have_text("All is well.")
    await page.unroute(f"**/api/agent/{thread_id}")
    await page.evaluate(REFRESH)
    await expect(page.locator(".title")).to_have_text("Later")
    await page.context.close()
