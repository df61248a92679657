"""The console in a real browser on the real stack."""

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from dialtone import Client, RunPage
from tests.client.real_stack import call, script
from tests.console.watching import ended, open_thread, said, watched
from workflow.core.events import Message

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

COLORS = r"printf '\033[31mred\033[0m plain\n'; sleep 1; echo done"
EVERYTHING = script(
    {
        "reasoning": "First I look.",
        "text": "I **look** first.",
        "tool_calls": [
            call("ls"),
            call("job_plan", steps=[{"id": "a", "title": "Write it", "status": "in_progress"}]),
            call("todo_write", items=[{"content": "Test it", "status": "pending"}]),
        ],
    },
    {"tool_calls": [call("files_creation", files=[{"path": "src/app.py", "content": "print('one')\n"}])]},
    {"tool_calls": [call("file_edit", path="src/app.py", old="one", new="two")]},
    {"tool_calls": [call("bash", command=COLORS), call("file_read", path="src/app.py"), call("no_such_tool")]},
    {
        "tool_calls": [
            call("job_plan", steps=[{"id": "a", "title": "Write it", "status": "done", "note": "it runs"}]),
            call("suggest_next_steps", items=["Add tests", "Write a README"]),
        ]
    },
    {"text": "## Result\n\n| file | state |\n|---|---|\n| `src/app.py` | written |\n\n```python\nprint('two')\n```\n"},
)
SLOW = script({"text": " ".join(f"word{number}" for number in range(150)), "delay_ms": 40})
FOR_EVER = script({"tool_calls": [call("bash", command="echo begun; sleep 600")]})


def start(client: Client, task: str, *, title: str = "Test") -> tuple[str, str]:
    """A thread with a run in it: both ids."""
    thread_id = client.initiate(title=title)
    return thread_id, client.execute(thread_id, task).run_id


def last_words(client: Client, thread_id: str) -> str:
    """The last message in the log."""
    events = client.event_page(thread_id, limit=1000).items
    return next(event.text for event in reversed(events) if isinstance(event, Message))


async def test_a_task_written_in_the_composer_runs_and_shows_every_step(page: Page) -> None:
    await page.goto("/")
    await page.get_by_label("Task", exact=True).fill(EVERYTHING)
    await page.keyboard.press("Enter")
    await expect(page.locator(".tool[data-tool=bash] .ansi-f1")).to_have_text("red", timeout=20_000)
    await expect(page.locator(".status")).to_contain_text("Running")
    await ended(page)
    await expect(page.locator(".connection")).to_contain_text("Live")
    created = page.locator(".tool[data-tool=files_creation]")
    await expect(created).to_contain_text("src/app.py")
    await expect(created.locator(".hljs-string")).to_have_text("'one'")
    edited = page.locator(".tool[data-tool=file_edit] .diff")
    await expect(edited.locator(".diff-remove mark")).to_have_text("one")
    await expect(edited.locator(".diff-add mark")).to_have_text("two")
    await expect(page.locator(".tool[data-tool=no_such_tool]")).to_contain_text("unknown_tool")
    await expect(page.locator(".markdown table td").first).to_have_text("src/app.py")
    await expect(page.locator(".panel .step-done")).to_contain_text("it runs")
    await expect(page.locator(".panel .step-open")).to_contain_text("Test it")
    await page.get_by_role("button", name="Thought").click()
    await expect(page.locator(".reasoning-text")).to_have_text("First I look.")
    await page.get_by_role("button", name="Add tests").click()
    await expect(page.get_by_label("Task", exact=True)).to_have_value("Add tests")
    await page.get_by_role("tab", name="Run").click()
    await expect(page.locator(".figures")).to_contain_text("finished")
    assert await page.locator(".timeline li").count() >= 6
    await expect(page.locator(".by-tool tr", has_text="bash").locator("td")).to_contain_text(["1", "–", "1."])
    await page.reload()
    await expect(page.locator(".tool[data-tool=bash] .ansi-f1")).to_have_text("red")
    await page.locator(".timeline a").first.click()
    await expect(page.locator(".is-target")).to_contain_text("I look first.")


async def test_a_reload_in_the_middle_of_a_message_shows_what_the_log_says(page: Page, client: Client) -> None:
    thread_id, _run_id = start(client, SLOW)
    await open_thread(page, thread_id)
    await expect(page.locator(".markdown")).to_contain_text("word20", timeout=15_000)
    await page.reload()
    await expect(page.locator(".markdown").first).to_contain_text("word3")
    assert "word149" not in await page.inner_text(".markdown")
    await ended(page)
    assert (await said(page))[0] == " ".join(f"word{number}" for number in range(150))


async def test_a_cut_network_is_visible_and_nothing_is_lost_when_it_is_back(page: Page, client: Client) -> None:
    thread_id, _run_id = start(client, SLOW)
    await page.add_init_script("delete globalThis.WebSocket")  # which the browser's switch does not keep from opening
    await open_thread(page, thread_id)
    await expect(page.locator(".markdown")).to_contain_text("word5", timeout=15_000)
    await page.context.set_offline(True)
    await expect(page.locator(".connection")).to_have_attribute("data-state", "waiting")
    await expect(page.locator(".offline")).to_be_visible()
    await page.context.set_offline(False)
    await ended(page)
    await expect(page.locator(".connection")).to_have_attribute("data-state", "live")
    assert (await said(page))[0] == " ".join(f"word{number}" for number in range(150))


async def test_a_question_is_answered_with_a_button_and_the_run_goes_on(page: Page, client: Client) -> None:
    ask = call("ask_person", question="Which **colour**?", choices=["red", "blue"])
    thread_id, _run_id = start(client, script({"tool_calls": [ask]}, {"text": "Thanks."}))
    await open_thread(page, thread_id)
    question = page.locator(".question")
    await expect(question.locator("strong")).to_have_text("colour", timeout=15_000)
    await expect(page).to_have_title("? Test · Dialtone")
    await question.get_by_label("A remark for the agent").fill("like the sea")
    await question.get_by_role("button", name="blue").click()
    await expect(question).to_contain_text("Answered: blue")
    await expect(question).to_contain_text("like the sea")
    await ended(page)


async def test_what_one_tab_answers_the_other_tab_shows(page: Page, client: Client) -> None:
    ask = call("ask_person", question="Your name?")
    thread_id, _run_id = start(client, script({"tool_calls": [ask]}, {"text": "Thanks."}))
    other = await page.context.new_page()
    complaints = watched(other)
    await open_thread(page, thread_id)
    await open_thread(other, thread_id)
    await page.get_by_label("Your answer").fill("Ada")
    await page.get_by_role("button", name="Answer", exact=True).click()
    await expect(other.locator(".question")).to_contain_text("Answered: Ada")
    await ended(other)
    assert complaints == []


async def test_cancel_ends_a_run_that_would_last_for_ever(page: Page, client: Client) -> None:
    thread_id, _run_id = start(client, FOR_EVER)
    await open_thread(page, thread_id)
    await expect(page.locator(".terminal")).to_contain_text("begun", timeout=15_000)
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator(".end-cancelled")).to_be_visible(timeout=5000)
    await expect(page.locator(".status")).to_have_count(0)


async def test_a_task_sent_to_a_busy_thread_is_queued_or_told_to_the_agent(page: Page, client: Client) -> None:
    thread_id, run_id = start(client, script({"tool_calls": [call("bash", command="sleep 3")]}, {"text": "First."}))
    await open_thread(page, thread_id)
    await expect(page.locator(".policies")).to_be_visible()
    composer = page.get_by_label("Task", exact=True)
    await page.get_by_label("Steer").check(force=True)
    await composer.fill("mind the gap")
    await page.keyboard.press("Enter")
    await expect(composer).to_have_value("")
    await page.get_by_label("Queue").check(force=True)
    await composer.fill(script({"text": "Second."}))
    await page.keyboard.press("Enter")
    await expect(page.locator(".status")).to_contain_text("1 queued")
    await ended(page, times=2)
    await expect(page.locator(".bubble-steer")).to_contain_text("mind the gap")
    assert "Second." in await said(page)
    runs: RunPage = client.runs(thread_id)
    assert [run.status for run in runs.items] == ["finished", "finished"] and run_id in {r.run_id for r in runs.items}


async def test_files_go_up_are_seen_and_come_down(page: Page, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "notes ü.txt"
    file.write_text("first line\nsecond line\n")
    await page.goto("/")
    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Attach files").click()
    await (await chooser.value).set_files(file)
    await expect(page.locator(".attachments")).to_contain_text("notes ü.txt")
    await page.get_by_label("Task", exact=True).fill(script({"tool_calls": [call("bash", command="cat notes*")]}))
    await page.keyboard.press("Enter")
    await expect(page.locator(".terminal")).to_contain_text("second line", timeout=15_000)
    await expect(page.locator(".bubble .attached")).to_contain_text("notes ü.txt")
    await page.get_by_role("tab", name="Files").click()
    await page.locator(".entry", has_text="notes ü.txt").click()
    await expect(page.locator("dialog code")).to_contain_text("second line")
    async with page.expect_download() as download:
        await page.locator("dialog").get_by_label("Download").click()
    assert Path(await (await download.value).path()).read_text() == "first line\nsecond line\n"
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    thread_id = page.url.split("/t/")[1]
    assert client.get_file(thread_id, "notes ü.txt") == file.read_bytes()


async def test_a_dropped_file_lands_in_the_workspace(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Drop")
    await open_thread(page, thread_id)
    await expect(page.locator(".title")).to_have_text("Drop")
    await page.evaluate("""() => {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["dropped"], "drop.txt"));
        const event = { dataTransfer: transfer, cancelable: true };
        for (const type of ["dragenter", "drop"]) dispatchEvent(new DragEvent(type, event));
    }""")
    await expect(page.locator(".attachments")).to_contain_text("drop.txt")
    assert client.get_file(thread_id, "drop.txt") == b"dropped"


async def test_the_files_are_compared_with_any_event_brought_back_and_forked(page: Page, client: Client) -> None:
    made = call("files_creation", files=[{"path": "a.txt", "content": "one\n"}])
    edited = call("file_edit", path="a.txt", old="one", new="two")
    task = script(
        {"text": "First.", "tool_calls": [made]}, {"text": "Second.", "tool_calls": [edited]}, {"text": "End."}
    )
    thread_id, run_id = start(client, task, title="Versions")
    _ = list(client.stream(thread_id, run_id=run_id))
    await open_thread(page, thread_id)
    await ended(page)
    second = page.locator(".block-message", has_text="Second.")
    await second.get_by_label("Compare the files with this event").click(force=True)
    changed = page.locator(".version-change")
    await expect(changed.locator("summary")).to_contain_text("a.txt")
    await expect(changed.locator(".diff-remove .line")).to_have_text("one")
    await expect(changed.locator(".diff-add .line")).to_have_text("two")
    await page.get_by_role("button", name="Restore the files").click()
    await page.get_by_role("dialog").get_by_role("button", name="Restore", exact=True).click()
    await expect(page.locator(".versions-actions")).to_contain_text("Nothing changed since then.")
    assert client.get_file(thread_id, "a.txt") == b"one\n"
    await page.get_by_role("button", name="Fork the thread there").click()
    await expect(page).not_to_have_url(re.compile(thread_id))
    await expect(page.locator(".block-message", has_text="First.")).to_be_visible()
    forked = re.search(r"/t/(\w+)", page.url)
    assert forked is not None
    assert client.get_file(forked[1], "a.txt") == b"one\n"


async def test_files_are_restored_only_after_a_question_that_the_keyboard_answers(page: Page, client: Client) -> None:
    made = call("files_creation", files=[{"path": f"{name}.txt", "content": name} for name in "abc"])
    thread_id, run_id = start(client, script({"text": "First.", "tool_calls": [made]}, {"text": "End."}))
    _ = list(client.stream(thread_id, run_id=run_id))
    await open_thread(page, thread_id)
    await ended(page)
    first = page.locator(".block-message", has_text="First.")
    await first.get_by_label("Compare the files with this event").click(force=True)
    restore = page.get_by_role("button", name="Restore the files")
    await restore.press("Enter")
    question = page.get_by_role("dialog", name="Restore the files?")
    await expect(question).to_have_accessible_description(re.compile("3 changes since then: what was added goes"))
    await expect(question.locator(":focus")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(question).to_have_count(0)
    await expect(restore).to_be_focused()
    await restore.press("Enter")
    await question.get_by_role("button", name="Leave them").press("Enter")
    await expect(question).to_have_count(0)
    assert len(client.files(thread_id)) == 3
    await restore.press("Enter")
    await question.get_by_role("button", name="Restore", exact=True).press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("The files are as they were then.")
    await expect(page.locator(".versions-actions")).to_contain_text("Nothing changed since then.")
    assert client.files(thread_id) == ()


async def test_a_link_to_an_event_shows_that_event(page: Page, client: Client) -> None:
    looks = [call("ls", path=".", depth=number % 3 + 1) for number in range(6)]
    turns = [{"text": f"Message {number}.", "tool_calls": [look]} for number, look in enumerate(looks)]
    thread_id, run_id = start(client, script(*turns, {"text": "The end.\n\n" * 200, "delay_ms": 0}))
    _ = list(client.stream(thread_id, run_id=run_id, deltas=False))
    events = client.event_page(thread_id, limit=1000).items
    target = next(event for event in events if isinstance(event, Message) and event.text == "Message 0.")
    await open_thread(page, thread_id, target.id)
    await expect(page.locator(".is-target")).to_contain_text("Message 0.")
    await expect(page.locator(".is-target")).to_be_in_viewport()
    await page.get_by_role("button", name="Latest").click()
    await expect(page.locator(".end")).to_be_in_viewport()
    await page.locator(f"[id='e-{target.id}']").get_by_label("Show the event").click(force=True)
    shown = json.loads(await page.locator("dialog code").inner_text())
    assert shown["id"] == target.id and shown["text"] == "Message 0."


async def test_a_page_that_shows_one_event_stays_there_while_more_arrives(page: Page, client: Client) -> None:
    long = script({"text": "The beginning.", "tool_calls": [call("ls")]}, {"text": "word\n\n" * 120, "delay_ms": 10})
    thread_id, run_id = start(client, long)
    first = next(item for item in client.stream(thread_id, run_id=run_id) if isinstance(item, Message))
    await open_thread(page, thread_id, first.id)
    await expect(page.locator(".is-target")).to_contain_text("The beginning.")
    await ended(page)
    await expect(page.locator(f"[id='e-{first.id}']")).to_be_in_viewport()
    await expect(page.locator(".end")).not_to_be_in_viewport()


async def test_a_page_that_was_told_the_end_sees_what_another_client_begins(page: Page, client: Client) -> None:
    thread_id, _run_id = start(client, script({"text": "First."}))
    await page.add_init_script("delete globalThis.WebSocket")  # where there are none, the stream comes over SSE
    await open_thread(page, thread_id)
    await ended(page)
    await page.context.set_offline(True)
    await expect(page.locator(".connection")).to_have_attribute("data-state", "waiting")
    await page.context.set_offline(False)
    await expect(page.locator(".connection")).to_have_attribute("data-state", "ended")
    client.execute(thread_id, script({"text": "Second."}))
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # looks again at once, not in 10 s
    await ended(page, times=2)
    assert await said(page) == ["First.", "Second."]


async def test_threads_are_found_renamed_and_deleted(page: Page, client: Client) -> None:
    mark = client.initiate()[:6]
    thread_id = client.initiate(title=f"Find {mark} me")
    client.initiate(title="Something else")
    await page.goto("/")
    await page.get_by_label("Search threads").fill(mark)
    await expect(page.locator(".threads li")).to_have_count(1)
    await page.locator(".threads a").click()
    await page.locator(".title button").click()
    await page.get_by_label("Title of the thread").fill(f"Found {mark}")
    await page.keyboard.press("Enter")
    await expect(page.locator(".threads a")).to_contain_text(f"Found {mark}")
    assert client.thread(thread_id).title == f"Found {mark}"
    await page.get_by_label("Delete this thread").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.locator(".threads li")).to_have_count(0)


async def test_everything_is_reached_by_keyboard(page: Page, client: Client) -> None:
    thread_id, _run_id = start(client, script({"text": "Hi."}))
    await open_thread(page, thread_id)
    await ended(page)
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("Keyboard")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("p")
    await expect(page.locator(".inspector")).to_have_count(0)
    await page.keyboard.press("Control+k")
    await expect(page.get_by_label("Search threads")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await expect(page.get_by_role("heading", name="What should be done?")).to_be_visible()
    await expect(page.get_by_label("Task", exact=True)).to_be_focused()


async def test_a_small_screen_has_everything_within_reach(browser: Browser, stack: str, client: Client) -> None:
    thread_id, _run_id = start(client, EVERYTHING, title="Small")
    context = await browser.new_context(
        base_url=stack, viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True
    )
    page = await context.new_page()
    complaints = watched(page)
    await open_thread(page, thread_id)
    await ended(page)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.get_by_label("Show threads").click()
    await expect(page.locator(".sidebar")).to_be_in_viewport()
    await page.locator(".threads a", has_text="Small").first.click()
    await expect(page.locator(".sidebar")).not_to_be_in_viewport()
    await page.get_by_label("Plan, files and run").click()
    await expect(page.locator(".inspector")).to_contain_text("Write it")
    await context.close()
    assert complaints == []


async def test_a_page_that_is_not_seen_lets_go_of_its_stream_and_takes_it_up_again(page: Page, client: Client) -> None:
    thread_id, _run_id = start(client, script({"text": "First."}))
    await page.clock.install()
    await open_thread(page, thread_id)
    await ended(page)
    await hide(page, is_hidden=True)
    await page.clock.fast_forward(25_000)
    await expect(page.locator(".connection")).to_have_attribute("data-state", "paused")
    run = client.execute(thread_id, script({"text": "Second."}))
    _ = list(client.stream(thread_id, run_id=run.run_id))
    await hide(page, is_hidden=False)
    await ended(page, times=2)
    assert await said(page) == ["First.", "Second."]


async def hide(page: Page, *, is_hidden: bool) -> None:
    await page.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


async def test_an_unknown_thread_says_so(browser: Browser, stack: str) -> None:
    page = await browser.new_page(base_url=stack)
    await open_thread(page, "0" * 20)
    await expect(page.locator(".empty")).to_have_text("There is no such thread here.")
    await page.context.close()


async def test_eight_tabs_on_live_threads_all_stay_live_and_can_still_ask_for_more(
    browser: Browser, stack: str, client: Client
) -> None:
    """A browser opens six HTTP/1.1 connections to one host, for all tabs together."""
    threads = [start(client, FOR_EVER, title=f"Tab {number}") for number in range(8)]
    context = await browser.new_context(base_url=stack)
    pages = [await context.new_page() for _ in threads]
    for page, (thread_id, _) in zip(pages, threads, strict=True):
        await open_thread(page, thread_id)
        await expect(page.locator(".connection")).to_have_attribute("data-state", "live")
    for page, (_, run_id) in zip(pages, threads, strict=True):
        client.cancel(run_id)
        await expect(page.locator(".end-cancelled")).to_be_visible()
        await page.get_by_role("tab", name="Files").click()
        await expect(page.locator(".panel")).to_contain_text("Workspace")
        await expect(page.locator(".panel .spinner")).to_have_count(0)
    await context.close()
