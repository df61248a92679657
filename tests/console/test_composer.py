"""The composer on a slow network and with files of one name: nothing that a person wrote or chose is lost."""

import asyncio

import pytest
from playwright.async_api import Browser, FilePayload, Page, Route, expect

from dialtone import Client
from tests.console.watching import open_thread

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

PASTE = """([text, name]) => {
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([text], name, { type: "image/png" }));
    const area = document.querySelector("textarea");
    area.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


def upload(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


class Held:
    """Requests that are let through only when the test says so."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        self.came.set()
        await self.go.wait()
        await route.continue_()


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_task_written_during_an_upload_is_kept(page: Page, client: Client, is_new: bool) -> None:
    held = Held()
    await page.route("**/files/slow.txt", held)
    await (page.goto("/") if is_new else open_thread(page, client.initiate(title="Slow")))
    area = page.get_by_label("Task", exact=True)
    await area.fill("Look at")
    await page.set_input_files("form input[type=file]", files=[upload("slow.txt", b"x")])
    async with asyncio.timeout(20):
        await held.came.wait()
    await area.fill("Look at slow.txt and sum it up")
    held.go.set()
    await expect(page.locator(".attachments")).to_contain_text("slow.txt")
    await expect(area).to_have_value("Look at slow.txt and sum it up")


async def test_a_task_cannot_be_changed_while_it_is_sent(page: Page, client: Client) -> None:
    held = Held()
    await page.route("**/execute", held)
    await open_thread(page, client.initiate(title="Sending"))
    area = page.get_by_label("Task", exact=True)
    await area.fill("One")
    await area.press("Enter")
    async with asyncio.timeout(20):
        await held.came.wait()
    await area.press_sequentially(" and two")
    await expect(area).to_have_value("One")
    held.go.set()
    await expect(area).to_have_value("")
    await expect(page.locator(".block-task .said")).to_have_text("One")
    await expect(area).to_be_editable()


async def test_files_of_one_name_all_arrive(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Same")
    await open_thread(page, thread_id)
    files = [upload("data.csv", text) for text in (b"one", b"two")]
    await page.set_input_files("form input[type=file]", files=files)
    await expect(page.locator(".attachments li")).to_have_text(["data.csv", "data (2).csv"])
    assert client.get_file(thread_id, "data.csv") == b"one"
    assert client.get_file(thread_id, "data (2).csv") == b"two"


async def test_a_pasted_picture_does_not_take_the_place_of_another(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Paste")
    client.put_file(thread_id, "image.png", content=b"of an earlier task")
    await open_thread(page, thread_id)
    await page.evaluate(PASTE, ["new", "image.png"])
    await expect(page.locator(".attachments li")).to_contain_text(["pasted-"])
    assert client.get_file(thread_id, "image.png") == b"of an earlier task"
    assert len(client.files(thread_id)) == 2


async def test_files_that_went_up_before_one_that_did_not_are_kept(browser: Browser, stack: str) -> None:
    page = await browser.new_page(base_url=stack)
    await page.route(
        "**/files/bad.txt", lambda route: route.fulfill(status=413, json={"detail": "bad.txt is too large"})
    )
    await page.goto("/")
    files = [upload(name, b"x") for name in ("good.txt", "bad.txt")]
    await page.set_input_files("form input[type=file]", files=files)
    await expect(page.get_by_role("alert")).to_have_text("bad.txt is too large")
    await expect(page.locator(".attachments li")).to_have_text(["good.txt"])
    await expect(page.locator(".title")).to_have_text("good.txt")
    await page.context.close()


@pytest.mark.parametrize(("text", "direction"), [("שלום עולם", "rtl"), ("Hello", "ltr")])
async def test_text_is_set_in_the_direction_of_its_language(
    page: Page, client: Client, text: str, direction: str
) -> None:
    thread_id = client.initiate(title=text)
    await open_thread(page, thread_id)
    await page.get_by_label("Task", exact=True).fill(f"{text}\n```script\n" + f'[{{"text": "{text}"}}]' + "\n```")
    await page.keyboard.press("Enter")
    await expect(page.locator(".end")).to_have_count(1, timeout=20_000)
    for place in (".title button", "[aria-current=page] .thread-title", ".said", ".markdown > div", "textarea"):
        if place == "textarea":
            await page.locator(place).fill(text)
        assert await page.locator(place).first.evaluate("one => getComputedStyle(one).direction") == direction, place
