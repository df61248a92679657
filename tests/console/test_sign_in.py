"""Where callers are checked, the console asks for a key and keeps it out of scripts' reach."""

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.client.real_stack import real_stack
from tests.console.watching import watched

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]


async def test_a_person_signs_in_with_a_key_and_out_again(browser: Browser, tmp_path: Path) -> None:
    with real_stack(tmp_path, DIALTONE_AUTH__MODE="on") as url:
        key = new_key(tmp_path)
        context = await browser.new_context(base_url=url)
        page = await context.new_page()
        await page.goto("/")
        await page.get_by_label("API key").fill("dt_wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("unknown")
        complaints = watched(page)
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="What should be done?")).to_be_visible()
        await page.get_by_label("Task", exact=True).fill("Print the first three primes")
        await page.keyboard.press("Enter")
        await expect(page.locator(".connection")).to_have_attribute("data-state", "live")
        assert key not in await page.evaluate(
            "JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie"
        )
        assert complaints == []
        thread_id = await page.evaluate("location.hash.split('/').at(-1)")
        await page.get_by_label("Sign out").click()
        await expect(page.get_by_label("API key")).to_be_visible()
        await page.goto(f"/#/t/{thread_id}")
        await page.reload()
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator(".title")).to_have_text("Print the first three primes")
        await context.close()


def new_key(folder: Path) -> str:
    """A key of the stack whose data is in `folder`."""
    made = subprocess.run(
        [sys.executable, "-m", "scripts.keys", "new", "--user", "ada"],
        env={"DIALTONE_CONFIG": str(folder / "config.toml"), "DIALTONE_DATA_DIR": str(folder / "var")},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.split()[-1]
