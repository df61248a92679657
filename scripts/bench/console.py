"""What the console costs a person's browser: time to the first event of a running thread, transfer, a thread of
10,000 events, frames while a message streams, memory.

`python -m scripts.bench console` drives Debian's Chromium over a real stack (gateway, worker, its own Redis).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from dialtone import Client
from scripts.bench.stream_subjects import ROOT, Store, store
from scripts.stack.preflight import free_port
from tests.line import script
from tests.until import until_sync
from workflow.core.events import Effect, EventBase, Message, RunFinished, RunQueued, ToolCalled, ToolResulted
from workflow.core.ids import CallId, ItemId, RunId, ThreadId

CHROMIUM = "/usr/bin/chromium"
FIRST = """
    new MutationObserver(() => {
        for (const [name, found] of [["first", ".block"], ["end", ".end"]])
            if (!(name in (window.seen ??= {})) && document.querySelector(found)) seen[name] = performance.now();
    }).observe(document, { childList: true, subtree: true });
"""
FRAMES = """
    window.frames_ms = [];
    let last = performance.now();
    const look = (now) => { frames_ms.push(now - last); last = now; requestAnimationFrame(look); };
    requestAnimationFrame(look);
"""
SCROLL = """async () => {
    const view = document.querySelector(".conversation"), frames = [];
    let last = performance.now();
    for (let step = 0; step < 200; step += 1) {
        view.scrollTop -= 400;
        const now = await new Promise(requestAnimationFrame);
        frames.push(now - last);
        last = now;
    }
    return frames;
}"""
LOADED = """() => performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
    .reduce((sum, one) => [sum[0] + 1, sum[1] + one.transferSize], [0, 0])"""
REPLY = "\n\n".join(
    f"## Part {part}\n\nSome **words** about `file{part}.py`, in a few sentences that go on for a while, as models "
    f"like to.\n\n- one\n- two\n\n```python\ndef part{part}() -> int:\n    return {part}\n```"
    for part in range(40)
)


@contextmanager
def stack(held: Store) -> Iterator[str]:
    """The address of a gateway with a worker beside it."""
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="bench-console-") as name:
        folder = Path(name)
        (folder / "config.toml").touch()
        values = {"CONFIG": folder / "config.toml", "DATA_DIR": folder, "GATEWAY__PORT": port, "REDIS__URL": held.url}
        values |= {"LLM__DEFAULT": "scripted", "LIMITS__REQUESTS_PER_MINUTE": 0}
        environment = dict(os.environ) | {f"DIALTONE_{key}": str(value) for key, value in values.items()}
        command = [sys.executable, "-m", "scripts.stack", "up"]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) as up:
            try:
                until_sync(lambda: is_ready(url), timeout_s=60, what="the stack")
                yield url
            finally:
                up.terminate()
                up.wait(30)


def is_ready(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/health", trust_env=False, timeout=5).json()["status"] == "ok")
    except httpx.TransportError:
        return False


def fill(held: Store, thread_id: ThreadId, count: int) -> None:
    """Puts a long run into the log: messages, commands and their coloured output."""
    run_id = RunId(f"{thread_id}.1")
    events: list[EventBase] = [RunQueued(thread_id=thread_id, run_id=run_id, task="A very long job")]
    while len(events) < count - 1:
        number = len(events)
        base: dict[str, Any] = {"thread_id": thread_id, "run_id": run_id, "turn": 1}
        text = f"Step **{number}**: I look at `file{number}.py`.\n\n" + "- one\n- two\n" * (number % 2)
        call: dict[str, Any] = base | {"call_id": CallId(f"c{number}"), "tool": "bash"}
        command = {"command": f"pytest test_{number}.py"}
        screen = "\x1b[32mpassed\x1b[0m\n" * (number % 20)
        events += [
            Message(**base, item=ItemId(f"m{number}"), text=text),
            ToolCalled(**call, arguments=command, effect=Effect.KEYED),
            ToolResulted(**call, ok=True, output="passed\n" * (number % 20), data={"screen": screen}, duration_ms=120),
        ]
    events.append(RunFinished(thread_id=thread_id, run_id=run_id))
    lines = [event.model_dump_json(exclude={"id", "at"}) for event in events]
    for start in range(0, len(lines), 500):
        held.append((thread_id, line) for line in lines[start : start + 500])


@contextmanager
def opened(browser: Browser, url: str, thread_id: str, *, with_socket: bool = True) -> Iterator[Page]:
    """A fresh profile on a thread."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.add_init_script(FIRST + ("" if with_socket else "delete globalThis.WebSocket;"))
    page.goto(f"{url}/#/t/{thread_id}")
    page.wait_for_selector(".block", state="attached")
    try:
        yield page
    finally:
        context.close()


def begin(browser: Browser, url: str, client: Client, *, rounds: int) -> None:
    """From navigation to the first event of a running thread, and what that takes over the wire."""
    thread_id = client.initiate()
    turn = {"text": "I begin.", "tool_calls": [{"name": "bash", "arguments": {"command": "echo begun; sleep 600"}}]}
    run_id = client.execute(thread_id, script(turn)).run_id
    next(item for item in client.stream(thread_id, run_id=run_id) if item.type == "tool.call")
    times, loads = [], []
    for _ in range(rounds):
        with opened(browser, url, thread_id) as page:
            times.append(page.evaluate("seen.first"))
            loads.append(page.evaluate(LOADED))
    client.cancel(run_id)
    requests, transferred = loads[-1]
    row("first event of a running thread", f"{statistics.median(times):.0f} ms")
    row("transfer until then, uncompressed", f"{transferred / 1000:.0f} kB in {requests} requests")


def long(browser: Browser, url: str, thread_id: str, *, rounds: int, with_socket: bool) -> None:
    """From navigation to the end of a long thread."""
    times = []
    for _ in range(rounds):
        with opened(browser, url, thread_id, with_socket=with_socket) as page:
            page.wait_for_selector(".end", state="attached")
            times.append(page.evaluate("seen.end"))
    row(f"10,000 events, {'WebSocket' if with_socket else 'SSE'}", f"{statistics.median(times):.0f} ms")


def scroll(browser: Browser, url: str, thread_id: str) -> None:
    """Frames and memory of a long thread that is scrolled at 24,000 px a second."""
    with opened(browser, url, thread_id) as page:
        page.wait_for_selector(".end", state="attached")
        frames = sorted(page.evaluate(SCROLL))
        elements = page.evaluate("document.querySelectorAll('*').length")
        median, p95 = statistics.median(frames), frames[int(len(frames) * 0.95)]
        row("its frames while scrolled", f"median {median:.1f} ms, p95 {p95:.1f} ms, worst {frames[-1]:.1f} ms")
        row("its memory", f"{heap_mb(page):.0f} MB of heap, {elements:,} elements")


def streamed(browser: Browser, url: str, client: Client, thread_id: str, name: str) -> None:
    """Frames, and the page's own CPU, while a message is written at the end of a thread that is drawn already."""
    reply = script({"text": REPLY, "delay_ms": 5})
    with opened(browser, url, thread_id) as page:
        page.wait_for_selector(".end", state="attached")
        play(page, client, thread_id, reply)  # warm: what is loaded and compiled once is not counted
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = cpu_ms(session)
        page.evaluate(FRAMES)
        play(page, client, thread_id, reply)
        frames = sorted(page.evaluate("frames_ms"))
        busy_ms, drawings = (now - then for now, then in zip(cpu_ms(session), before, strict=True))
    p99 = frames[int(len(frames) * 0.99)]
    figure = f"{busy_ms / drawings:.1f} ms of CPU a drawing, p99 {p99:.0f} ms, worst {frames[-1]:.0f} ms a frame"
    row(f"streaming {len(REPLY):,} characters, {name}", figure)


def play(page: Page, client: Client, thread_id: str, task: str) -> None:
    """Returns once the page shows the end of a run of `task`."""
    ends = page.locator(".end").count()
    client.execute(thread_id, task)
    page.wait_for_function("count => document.querySelectorAll('.end').length > count", arg=ends, timeout=120_000)


def cpu_ms(session: CDPSession) -> tuple[float, float]:
    """CPU time of the page's main thread so far, and how often it was laid out."""
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return found["TaskDuration"] * 1000, found["LayoutCount"]


def heap_mb(page: Page) -> float:
    """What JavaScript holds after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    return used / 1e6


def row(name: str, figure: str) -> None:
    print(f"{name:<46}{figure}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="of the long thread")
    parser.add_argument("--rounds", type=int, default=5, help="page loads per figure; the median counts")
    given = parser.parse_args(arguments)
    with store() as held, stack(held) as url, sync_playwright() as playwright, Client(url) as client:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        begin(browser, url, client, rounds=given.rounds)
        thread_id = client.initiate(title="A long one")
        fill(held, thread_id, given.events)
        for with_socket in (True, False):
            long(browser, url, thread_id, rounds=given.rounds, with_socket=with_socket)
        scroll(browser, url, thread_id)
        short = client.initiate(title="A short one")
        client.execute(short, script({"text": "Ready."}))
        longer = client.initiate(title="A still longer one")
        fill(held, longer, 4 * given.events)
        for name, one in (("short thread", short), ("long thread", thread_id), ("4 times as long", longer)):
            streamed(browser, url, client, one, name)
        browser.close()


if __name__ == "__main__":
    main()
