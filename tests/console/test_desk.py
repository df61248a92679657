"""The operator's desk in a real browser on the real stack."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from dialtone import Client
from tests.client.real_stack import call, real_stack, script
from tests.console.test_sign_in import new_key
from tests.console.watching import watched

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

FOR_EVER = script(*({"tool_calls": [call("bash", command=f"sleep {600 + turn}")]} for turn in range(9)))
"""More than one turn: a command that was cut short when its worker gave the run up is not run again."""
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m" + "x" * 5000


def start(client: Client, task: str) -> str:
    """A run in a new thread."""
    return client.execute(client.initiate(title="Desk"), task).run_id


async def test_runs_are_shown_chosen_and_cancelled_with_a_reason(page: Page, client: Client) -> None:
    first, second = start(client, FOR_EVER), start(client, FOR_EVER)
    await page.goto("/desk")
    await expect(page.get_by_label(f"Choose {first}")).to_be_visible(timeout=15_000)
    row = page.locator("tr", has_text=first)
    await expect(row).to_contain_text("running", timeout=15_000)
    await page.get_by_label(f"Choose {first}").check()
    await page.get_by_role("button", name="Cancel 1 chosen").click()
    await page.get_by_label("Reason, for their callers").fill("too long")
    await page.keyboard.press("Enter")
    await expect(row).to_have_count(0, timeout=15_000)
    assert client.run(first).reason == "too long"
    assert client.run(second).status == "running"
    client.cancel(second)


async def test_all_runs_that_are_shown_are_chosen_with_one_click(page: Page, client: Client) -> None:
    started = {start(client, FOR_EVER) for _ in range(3)}
    await page.goto("/desk")
    for run_id in started:
        await expect(page.get_by_label(f"Choose {run_id}")).to_be_visible(timeout=15_000)
    every = page.get_by_label("Choose all that are shown")
    await every.check()
    for run_id in started:
        await expect(page.get_by_label(f"Choose {run_id}")).to_be_checked()
    await every.uncheck()
    await expect(page.get_by_role("button", name="chosen")).to_be_disabled()
    await every.check()
    await page.get_by_role("button", name="chosen").click()
    await page.get_by_role("button", name="Cancel them").click()
    await expect(page.get_by_text("No such run is open.")).to_be_visible(timeout=15_000)


async def test_a_requeued_run_goes_on(page: Page, client: Client) -> None:
    run_id = start(client, FOR_EVER)
    await page.goto("/desk")
    row = page.locator("tr", has_text=run_id)
    await expect(row).to_contain_text("running", timeout=15_000)
    await row.get_by_role("button", name="Requeue").click()
    await expect(page.get_by_role("alert")).to_have_text("The run goes on elsewhere.")
    await expect(row).to_contain_text("running", timeout=15_000)
    client.cancel(run_id)


async def test_a_worker_is_drained_and_undrained(page: Page) -> None:
    await page.goto("/desk#/processes")
    row = page.get_by_role("region", name="Workers").locator("tbody tr").first
    await row.get_by_role("button", name="Drain").click()
    await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    await expect(row).to_contain_text("drained by local@local", timeout=15_000)
    await expect(page.locator(".glance")).to_contain_text("1 take no runs")
    await row.get_by_role("button", name="Undrain").click()
    await expect(row.get_by_role("button", name="Drain", exact=True)).to_be_enabled(timeout=15_000)


async def test_a_tenant_is_blocked_and_unblocked(page: Page, client: Client) -> None:
    await page.goto("/desk#/tenants")
    await page.get_by_role("button", name="Block a tenant").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Tenant").fill("acme")
    await dialog.get_by_label("Reason").fill("it mines coins")
    await dialog.get_by_role("button", name="Block").click()
    row = page.locator("tr", has_text="acme")
    await expect(row).to_contain_text("it mines coins by local@local")
    await row.get_by_role("button", name="Unblock").click()
    await expect(row).to_have_count(0)


async def test_a_tenant_with_more_runs_than_one_request_ends_is_freed_of_all(page: Page) -> None:
    done = {"run_ids": ["a"] * 500, "ended": ["b"], "unknown": [], "reason": "blocked: no", "next_cursor": "at500"}
    rest = done | {"run_ids": ["c"], "ended": [], "next_cursor": None}
    await page.route("**/tenants/block", lambda route: route.fulfill(json={"block": {}, "cancelled": done}))
    await page.route("**/runs/cancel", lambda route: route.fulfill(json=rest))
    await page.goto("/desk#/tenants")
    await page.get_by_role("button", name="Block a tenant").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Tenant").fill("acme")
    await dialog.get_by_label("Reason").fill("no")
    await dialog.get_by_label("cancel the runs it has").check()
    async with page.expect_request("**/runs/cancel") as asked:
        await dialog.get_by_role("button", name="Block").click()
    assert (await asked.value).post_data_json == {"tenant": "acme", "reason": "blocked: no", "cursor": "at500"}
    await expect(page.get_by_role("alert")).to_have_text("501 runs cancelled, 1 had ended before.")


async def test_a_reload_shows_what_every_process_made_of_it(page: Page) -> None:
    await page.goto("/desk")
    await page.get_by_label("Reload the configuration").click()
    answers = page.locator(".reload li")
    await expect(answers).to_have_count(2, timeout=15_000)
    await expect(answers.filter(has_text="did not answer")).to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_charts_and_costs_show_what_was_done_and_keys_lead_there(page: Page, client: Client) -> None:
    run_id = start(client, script({"text": "Done."}))
    _ = list(client.stream(run_id.split(".")[0], run_id=run_id))
    await page.goto("/desk")
    await expect(page.locator(".glance")).to_be_visible()
    await page.keyboard.press("4")
    await expect(page.locator("tr", has_text="local").first).to_contain_text("scripted", timeout=15_000)
    await page.keyboard.press("3")
    ended = page.locator("figure", has_text="Runs that ended")
    await expect(ended.locator("path.line")).to_have_count(3)
    await expect(ended.locator("figcaption")).not_to_contain_text("highest 0")


async def test_hostile_text_in_a_task_does_nothing(page: Page, client: Client) -> None:
    run_id = start(client, FOR_EVER.replace("Play this.", f"Play this. {HOSTILE.replace(chr(27), '')}"))
    await page.goto("/desk")
    row = page.locator("tr", has_text=run_id)
    await expect(row.locator(".task")).to_contain_text("<img src=x", timeout=15_000)
    assert await page.locator("img").count() == 0
    client.cancel(run_id)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_serious_is_found_by_axe(browser: Browser, stack: str, client: Client, scheme: str) -> None:
    run_id = start(client, FOR_EVER)
    context = await browser.new_context(base_url=stack, color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page = await context.new_page()
    for name in ("runs", "processes", "charts", "costs", "webhooks", "tenants"):
        await page.goto(f"/desk#/{name}")
        await expect(page.locator(".glance")).to_be_visible(timeout=15_000)
        await page.add_script_tag(path=Path(__file__).parent / "vendor" / "axe.min.js")
        found = await page.evaluate("async () => (await axe.run()).violations")
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}]
        assert serious == [], name
    await context.close()
    client.cancel(run_id)


async def test_a_small_screen_is_not_widened_by_its_tables(page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.goto("/desk#/processes")
    workers = page.get_by_role("region", name="Workers")
    await expect(workers.locator("tbody tr")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await workers.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    await expect(page.get_by_role("link", name="Dialtone")).to_be_visible()
    await expect(page.get_by_role("button", name="Reload the configuration")).to_be_in_viewport(ratio=1)


async def test_who_is_no_operator_is_told_so(browser: Browser, tmp_path: Path) -> None:
    with real_stack(tmp_path, DIALTONE_AUTH__MODE="on") as url:
        key = new_key(tmp_path)
        context = await browser.new_context(base_url=url)
        page = await context.new_page()
        await page.goto("/desk")
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("lacks the scope `operator`")
        complaints = watched(page)
        assert complaints == []
        await context.close()
