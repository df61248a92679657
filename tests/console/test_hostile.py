"""Untrusted content in every field does nothing; a huge thread stays smooth; nobody is shut out."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, WebSocketRoute, expect

from dialtone import Client
from tests.client.real_stack import call, script
from tests.console.watching import ended, open_thread, sse

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
HOSTILE = (
    "<img src=x onerror='window.owned=1'><script>window.owned=1</script>"
    "<svg onload='window.owned=1'><a href='javascript:window.owned=1'>here</a>"
    "[there](javascript:window.owned=1) ![pixel](https://tracker.invalid/p.png) <iframe src='//evil.invalid'></iframe>"
    "\x1b]0;owned\x07\x1b[2J\u202e <style>*{display:none}</style><form action='//evil.invalid'><input name=x></form>"
)
USAGE = {"input_tokens": 1, "cache_read_tokens": 0, "cache_write_tokens": 0, "output_tokens": 1, "cost_usd": 0.001}


class Log:
    """Events of a made-up thread."""

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        self.events: list[dict[str, Any]] = []

    def add(self, type: str, **fields: Any) -> None:
        seq = len(self.events) + 1
        base = {"id": f"1763700000000-{seq}", "at": 1_763_700_000_000 + seq * 100, "type": type, "turn": 1}
        self.events.append({**base, "thread_id": self.thread_id, "run_id": f"{self.thread_id}.r", **fields})

    def say(self, item: str, text: str, **fields: Any) -> None:
        empty = {"reasoning": "", "tool_calls": [], "finish_reason": "stop", "model": "m", "opaque": []}
        self.add("message", role="assistant", origin="model", item=item, text=text, **{**empty, **fields})

    def call(self, tool: str, arguments: dict[str, Any], output: str, **fields: Any) -> None:
        call_id = f"c{len(self.events)}"
        self.add("tool.call", call_id=call_id, tool=tool, arguments=arguments, effect="pure", note="")
        result = {"ok": True, "data": {}, "error": "", "duration_ms": 120, **fields}
        self.add("tool.result", call_id=call_id, tool=tool, output=output, **result)

    async def serve(self, page: Page) -> None:
        """Answers the page's stream, over SSE, with these events, and then with their end."""
        await page.add_init_script("delete globalThis.WebSocket")

        async def answer(route: Route) -> None:
            if "last_id=" in route.request.url:
                await route.fulfill(status=204)
            else:
                await route.fulfill(headers={"content-type": "text/event-stream"}, body=sse(self.events))

        await page.route("**/stream*", answer)


async def test_untrusted_content_in_every_field_does_nothing(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="<b>bold</b><img src=x onerror='window.owned=1'>")
    log, text = Log(thread_id), HOSTILE
    log.add("run.queued", task=text, files=[text], model=text, user=text)
    log.add("run.started", attempt=1, worker=text, model=text, sandbox=text, config_hash=text)
    log.add("sandbox.ready", provider=text, tier=text, network=text, gaps=[text])
    log.add("plan.updated", steps=[{"id": text, "title": text, "status": "done", "note": text}])
    log.add("todo.updated", items=[{"content": text, "status": "completed"}])
    log.say("m1", text, reasoning=text)
    log.say("m2", f"```{text}\n{text}\n```\n\n| a |\n|---|\n| {text.replace('|', '')} |")
    for tool in ("bash", "file_read", "grep", "glob", "web_search", "ls", "job_plan", text):
        data = {"path": text, "paths": [text], "results": [{"url": "javascript:window.owned=1", "title": text}]}
        log.call(tool, {"command": text, "path": text}, text, data=data)
    log.call("bash", {"command": text}, text, ok=False, error=text, data={"exit_code": 1})
    log.add("file.changed", path=text, change="modified", size=1, sha256="", diff=f"@@ -1 +1 @@\n-{text}\n+{text}")
    log.add("notice", code=text, text=text)
    log.add("preview.exposed", port=1, url="javascript:window.owned=1", expires_at=0)
    log.add("approval.requested", question_id="q", kind="approval", prompt=text, choices=[text], call_id=None,
            tool=text, arguments={text: text}, binding="", expires_at=0, on_expiry="")  # fmt: skip
    log.add("suggestions", items=[text])
    log.add("hologram.shown", anything=text)
    log.add("run.failed", reason=text, detail=text, summary=text, usage=USAGE)
    await log.serve(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await open_thread(page, thread_id)
    await ended(page)
    closed = page.locator(".conversation [aria-expanded=false]")
    while await closed.count():
        await closed.first.click()
    for tab in ("Files", "Run", "Plan"):
        await page.get_by_role("tab", name=tab).click()
    await expect(page.locator(".end-failed")).to_be_visible()
    assert await page.evaluate("window.owned") is None
    assert await page.locator("main :is(script, iframe, form:not(.composer, .answer), style, img)").count() == 0
    assert await page.locator("main a[href^=javascript]").count() == 0
    assert [url for url in asked if ".invalid" in url] == []
    links = page.locator(".markdown a[href]")
    assert {await link.get_attribute("rel") for link in await links.all()} == {"noopener noreferrer nofollow"}


async def test_what_waits_for_approval_hides_and_reorders_nothing(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Trojan")
    log = Log(thread_id)
    log.add("run.queued", task="x", files=[], model=None, user="")
    log.add("approval.requested", question_id="q", kind="approval", prompt="May it?", choices=["yes"], call_id=None,
            tool="bash", arguments={"command": "ls \u202e\x1b[8m\u200b\n\techo"}, binding="", expires_at=0,
            on_expiry="")  # fmt: skip
    await log.serve(page)
    await open_thread(page, thread_id)
    asked = page.locator(".asked")
    assert await asked.text_content() == "bash ls \\u{202e}\\u{1b}[8m\\u{200b}\n\techo"


async def test_huge_lines_and_outputs_do_not_stall_the_page(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Huge")
    log = Log(thread_id)
    log.add("run.queued", task="x" * 100_000, files=[], model=None, user="")
    log.call("bash", {"command": "y" * 100_000}, "z" * 1_000_000 + "\n" + "line\n" * 20_000)
    log.say("m", "word " * 20_000 + "\n\n" + "w" * 200_000)
    log.add("run.finished", summary="", usage=USAGE)
    await log.serve(page)
    await open_thread(page, thread_id)
    await ended(page)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.locator(".terminal").inner_text() != ""


async def test_ten_thousand_events_stay_smooth(page: Page, client: Client) -> None:
    thread_id = client.initiate(title="Ten thousand events")
    log = Log(thread_id)
    log.add("run.queued", task="A very long job", files=[], model=None, user="")
    while len(log.events) < 9_999:
        number = len(log.events)
        log.say(f"m{number}", f"Step **{number}**: I look at `file{number}.py`.\n\n" + "- one\n- two\n" * (number % 2))
        log.call("bash", {"command": f"pytest tests/test_{number}.py"}, "\x1b[32mpassed\x1b[0m\n" * (number % 20))
    log.add("run.finished", summary="", usage=USAGE)
    await log.serve(page)
    await open_thread(page, thread_id)
    await ended(page)
    measured = await page.evaluate("""async () => {
        const view = document.querySelector(".conversation");
        const frames = [];
        let last = performance.now();
        for (let step = 0; step < 120; step += 1) {
            view.scrollTop -= 300;
            const now = await new Promise(requestAnimationFrame);
            frames.push(now - last);
            last = now;
        }
        frames.sort((a, b) => a - b);
        return {
            median: frames[60], p95: frames[114], elements: document.querySelectorAll("*").length,
            heap: performance.memory.usedJSHeapSize / 1e6,
        };
    }""")
    # Generous: the machine that runs the tests may be busy and has no graphics card. Figures: docs/console.md.
    assert measured["median"] < 100 and measured["elements"] < 4000 and measured["heap"] < 250, measured
    early = log.events[200]["id"]
    await page.goto("about:blank")
    await open_thread(page, thread_id, early)
    await expect(page.locator(f"[id='e-{early}'].is-target")).to_be_in_viewport()
    await page.evaluate("document.querySelector('.conversation').scrollTop = 0")
    await expect(page.locator(".bubble")).to_have_text("A very long job")
    middle = log.events[5000]["id"]
    await page.evaluate(f"location.hash = '#/t/{thread_id}/{middle}'")
    await expect(page.locator(".is-target")).to_be_in_viewport()
    await page.get_by_role("button", name="Latest").click()
    await expect(page.locator(".end")).to_be_in_viewport()


async def test_a_history_that_comes_in_pieces_is_not_drawn_after_each(page: Page, client: Client) -> None:
    """Of a WebSocket a browser hands on 64 kB at a time."""
    thread_id, pieces = client.initiate(title="In pieces"), 40
    log = Log(thread_id)
    log.add("run.queued", task="A long job", files=[], model=None, user="")
    while len(log.events) < pieces * 100:
        log.say(f"m{len(log.events)}", "- one\n- two\n" * 20)
    log.add("run.finished", summary="", usage=USAGE)
    lines = [json.dumps({"event": "task_agent_execute", "id": one["id"], "data": one}) for one in log.events]
    opened: asyncio.Future[WebSocketRoute] = asyncio.get_running_loop().create_future()
    await page.route_web_socket("**/ws*", lambda socket: opened.set_result(socket))
    await open_thread(page, thread_id)
    socket = await opened
    for start in range(0, len(lines), 100):
        socket.send("\n".join(lines[start : start + 100]))
        await page.evaluate("new Promise(requestAnimationFrame)")
    await ended(page)
    drawings = await page.evaluate("async () => (await import('/store.js')).tick.value")
    assert drawings < pieces / 2


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_nothing_serious_shuts_anybody_out(browser: Browser, stack: str, client: Client, theme: str) -> None:
    ask = call("ask_person", question="Go on?", choices=["yes", "no"])
    steps = [{"id": "a", "title": "One", "status": "in_progress"}]
    turns = [{"reasoning": "Hm.", "text": "Hi `x`.", "tool_calls": [call("bash", command="echo a"), call("nothing")]}]
    edits = [call("files_creation", files=[{"path": "a.py", "content": "x = 1\n"}]), call("job_plan", steps=steps)]
    thread_id = client.initiate(title="Accessible")
    client.execute(thread_id, script(*turns, {"tool_calls": edits}, {"tool_calls": [ask]}))
    context = await browser.new_context(base_url=stack, bypass_csp=True, color_scheme=theme)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto("/")
    await expect(page.locator(".welcome")).to_be_visible()
    assert await serious(page) == []
    await open_thread(page, thread_id)
    await expect(page.locator(".question")).to_be_visible(timeout=15_000)
    for tab in ("Plan", "Files", "Run"):
        if tab != "Plan" or not await page.locator(".inspector").count():
            await page.evaluate(f"import('/store.js').then(store => store.panel.value = '{tab.lower()}')")
        assert await serious(page) == []
    await page.evaluate("import('/store.js').then(store => store.dialog.value = { kind: 'file', path: 'a.py' })")
    await expect(page.locator("dialog code")).to_be_visible()
    assert await serious(page) == []
    await context.close()


async def serious(page: Page) -> list[str]:
    """What axe finds that shuts people out, with an example each."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = json.loads(await page.evaluate("axe.run(document).then(r => JSON.stringify(r.violations))"))
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in violations if v["impact"] in ("serious", "critical")]
