"""What opens over the page in a real browser: it belongs to what was open, and hides nothing that has to be known."""

import re

import pytest
from playwright.async_api import Browser, Page, expect

from dialtone import Client
from tests.console.watching import open_thread

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

IN_SIGHT = """toast => {
    const { left, top, width, height } = toast.getBoundingClientRect();
    return document.elementFromPoint(left + width / 2, top + height / 2) === toast;
}"""


async def test_a_question_about_one_thread_is_not_answered_for_another(page: Page, client: Client) -> None:
    other, asked = client.initiate(title="Keep me"), client.initiate(title="Delete me")
    await open_thread(page, other)
    await expect(page.locator(".title")).to_have_text("Keep me")
    await open_thread(page, asked)
    await expect(page.locator(".title")).to_have_text("Delete me")
    await page.get_by_label("Delete this thread").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.go_back()
    await expect(page.locator(".title")).to_have_text("Keep me")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_keys_do_nothing_behind_a_dialog(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Here")
    await open_thread(page, thread_id)
    await page.get_by_label("Keyboard and help").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    for key in ("n", "p", "/", "Control+k"):
        await page.keyboard.press(key)
    await expect(page).to_have_url(re.compile(thread_id))
    assert await page.evaluate("document.activeElement.closest('dialog') !== null")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("n")
    await expect(page.locator(".title")).to_have_text("New thread")


async def test_a_dialog_that_closes_takes_no_other_with_it(page: Page, client: Client) -> None:
    await open_thread(page, client.initiate(title="Again"))
    await page.get_by_label("Keyboard and help").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    late = """async () => {
        const { dialog } = await import("/store.js");
        const first = document.querySelector("dialog");
        dialog.value = null;
        await new Promise(requestAnimationFrame);
        dialog.value = { kind: "delete" };
        first.dispatchEvent(new Event("close"));
    }"""
    await page.evaluate(late)
    await expect(page.get_by_role("dialog", name="Delete this thread?")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/desk"])
async def test_what_is_said_while_a_dialog_is_open_is_said_in_it(page: Page, client: Client, path: str) -> None:
    if path == "/":
        await open_thread(page, client.initiate(title="Said"))
        await page.get_by_label("Keyboard and help").click()
    else:
        await page.goto("/desk#/tenants")
        await page.get_by_role("button", name="Block a tenant").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    await page.evaluate("""async () => (await import("/store.js")).say("It went wrong.", "bad")""")
    await expect(dialog.get_by_role("alert")).to_have_text("It went wrong.")
    assert await page.get_by_role("alert").evaluate(IN_SIGHT)
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("alert")).to_have_text("It went wrong.")


async def test_a_tenant_that_cannot_be_blocked_is_told_of_in_the_dialog(browser: Browser, stack: str) -> None:
    page = await browser.new_page(base_url=stack)
    await page.route("**/tenants/block", lambda route: route.fulfill(status=503, json={"detail": "Redis is away"}))
    await page.goto("/desk#/tenants")
    await page.get_by_role("button", name="Block a tenant").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Tenant").fill("acme")
    await dialog.get_by_label("Reason").fill("no")
    await dialog.get_by_role("button", name="Block").click()
    await expect(dialog.get_by_role("alert")).to_have_text("Redis is away")
    assert await dialog.get_by_role("alert").evaluate(IN_SIGHT)
    await page.context.close()
