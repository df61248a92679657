"""The console's modules on their own, in a real browser: the stream client, the parser, the folded thread."""

import base64
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from dialtone import Client
from dialtone.items import StreamItem, Waiting, write_item
from dialtone.sse import SseParser
from tests.client.real_stack import call, script
from tests.client.stub_gateway import EPOCH, Cut, Frame, Step, StubGateway, UntilCancelled, UntilWatched, problem
from workflow.core.events import Delta, DeltaKind, Message, Notice, RunFinished, RunQueued, RunStarted
from workflow.core.ids import ItemId, RunId, ThreadId

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(60)]

T = ThreadId("")
R = RunId("t.1")
COLLECT = """async ({ threadId, options, abortAt }) => {
    const { Dialtone } = await import("/dialtone.js");
    const controller = new AbortController();
    const [items, states] = [[], []];
    const onState = (news) => states.push(news.state);
    try {
        for await (const item of new Dialtone().stream(threadId, { ...options, onState, signal: controller.signal })) {
            items.push(item.data.text ?? item.data.type ?? item.kind);
            if (items.at(-1) === abortAt) controller.abort();
        }
    } catch (error) {
        return { items, states, error: { name: error.name, code: error.code, status: error.status } };
    }
    return { items, states };
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def blank(browser: Browser, gateway: StubGateway) -> AsyncIterator[Page]:
    """A page of the scripted gateway's origin with nothing on it."""
    page = await browser.new_page(base_url=gateway.url)
    await page.goto("/vendor/LICENSES.txt")
    yield page
    await page.context.close()


def notice(text: str) -> Notice:
    return Notice(thread_id=T, code="n", text=text)


def run(gateway: StubGateway, *steps: Step) -> tuple[str, str]:
    """A run of the scripted gateway: thread and run id."""
    gateway.scripts["task"] = steps
    with Client(gateway.url) as client:
        thread_id = client.initiate()
        return thread_id, client.execute(thread_id, "task").run_id


async def collect(page: Page, thread_id: str, *, abort_at: str = "", **options: Any) -> dict[str, Any]:
    arguments = {"threadId": thread_id, "options": options, "abortAt": abort_at}
    result: dict[str, Any] = await page.evaluate(COLLECT, arguments)
    return result


async def test_the_stream_survives_lost_connections_without_hole_or_repeat(blank: Page, gateway: StubGateway) -> None:
    steps: list[Step] = []
    for number in range(9):
        steps += [UntilWatched(), notice(str(number))]
        steps += [Cut(b"event: task_agent_execute\nid: 9-9\nda")] if number % 3 == 0 else []
    thread_id, run_id = run(gateway, *steps, RunFinished(thread_id=T))
    found = await collect(blank, thread_id, runId=run_id)
    assert found["items"] == ["run.queued", *map(str, range(9)), "run.finished"]
    assert found["states"][0] == "connecting" and "waiting" in found["states"] and found["states"][-1] == "ended"


async def test_the_stream_waits_out_refusals_and_reports_what_cannot_heal(blank: Page, gateway: StubGateway) -> None:
    gateway.stream_refusals = [problem(503, "unavailable", "away", {"Retry-After": "0"})]
    thread_id, run_id = run(gateway, RunFinished(thread_id=T))
    assert (await collect(blank, thread_id, runId=run_id))["items"] == ["run.queued", "run.finished"]
    lost = await collect(blank, "0" * 20)
    assert lost["error"] == {"name": "ApiError", "code": "not_found", "status": 404}


async def test_previews_news_gaps_and_resets_are_handed_out(blank: Page, gateway: StubGateway) -> None:
    delta = Delta(run_id=RunId("t.r"), turn=1, item="m", kind=DeltaKind.TEXT, offset=0, text="Hel")
    waiting = Frame("waiting", {"position": 1, "waiting_for": "worker"})
    message = Message(thread_id=T, item=ItemId("m"), text="Hello")
    thread_id, run_id = run(gateway, UntilWatched(), waiting, delta, message, RunFinished(thread_id=T))
    assert (await collect(blank, thread_id, runId=run_id))["items"] == [
        "run.queued",
        "waiting",
        "Hel",
        "Hello",
        "run.finished",
    ]
    gateway.threads[thread_id].first_seq = 3
    after_gap = await collect(blank, thread_id, runId=run_id, lastId=f"{EPOCH}-1")
    assert after_gap["items"] == ["gap", "run.finished"]
    after_reset = await collect(blank, thread_id, runId=run_id, lastId="1-1")
    assert after_reset["items"][0] == "reset" and after_reset["items"][-1] == "run.finished"


async def test_a_stream_that_gets_no_socket_comes_over_sse(blank: Page, gateway: StubGateway) -> None:
    thread_id, run_id = run(gateway, notice("one"), RunFinished(thread_id=T))
    assert (await collect(blank, thread_id, runId=run_id, socket=True))["items"] == [
        "run.queued",
        "one",
        "run.finished",
    ]


async def test_a_stream_over_a_socket_ends_with_its_run_and_when_there_is_nothing_more(
    blank: Page, stack: str, client: Client
) -> None:
    thread_id = client.initiate()
    run_id = client.execute(thread_id, script({"text": "Hi."})).run_id
    await blank.goto(f"{stack}/vendor/LICENSES.txt")
    opened: list[str] = []
    blank.on("websocket", lambda socket: opened.append(socket.url))
    found = await collect(blank, thread_id, runId=run_id, socket=True, deltas=False)
    assert (found["items"][0], found["items"][-1]) == ("run.queued", "run.finished") and found["states"][-1] == "ended"
    last_id = client.thread(thread_id).last_id
    again = await collect(blank, thread_id, runId=run_id, socket=True, lastId=last_id)
    assert again["items"] == [] and again["states"][-1] == "ended"
    assert len(opened) == 2


async def test_a_signal_ends_the_stream(blank: Page, gateway: StubGateway) -> None:
    thread_id, _run_id = run(gateway, notice("stop here"), UntilCancelled())
    assert (await collect(blank, thread_id, abort_at="stop here"))["items"] == ["run.queued", "stop here"]


async def test_a_lost_answer_to_execute_starts_one_run_and_steer_is_not_repeated(
    blank: Page, gateway: StubGateway
) -> None:
    thread_id, run_id = run(gateway, UntilCancelled())
    gateway.lost_answers = 1
    second = await blank.evaluate(
        "async id => (await new (await import('/dialtone.js')).Dialtone().execute(id, 'again')).run_id", thread_id
    )
    assert list(gateway.threads[thread_id].runs) == [run_id, second]
    gateway.lost_answers = 1
    name = await blank.evaluate(
        """async id => {
            const { Dialtone } = await import("/dialtone.js");
            return new Dialtone().steer(id, "x").catch((error) => error.name);
        }""",
        run_id,
    )
    assert name == "Unreachable" and gateway.threads[thread_id].steers == ["x"]


async def test_the_parser_agrees_with_the_other_one_on_any_bytes_in_any_pieces(blank: Page) -> None:
    chance = random.Random(7)
    tokens = [
        b"data: a",
        b"data",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"id: 7",
        b"event: x",
        b"\xef\xbb\xbf",
        b"retry: 9",
    ]
    tokens += ["ü€😀".encode(), b"\xff", b" ", b"data:  b", b"id: 1\x00"]
    cases = []
    for _ in range(400):
        stream = b"".join(chance.choices(tokens, k=chance.randint(1, 25)))
        edges = sorted(chance.choices(range(len(stream) + 1), k=chance.randint(0, 6)))
        pieces = [stream[a:b] for a, b in zip([0, *edges], [*edges, len(stream)], strict=True)]
        cases.append(pieces)
    encoded = [[base64.b64encode(piece).decode() for piece in pieces] for pieces in cases]
    found = await blank.evaluate(
        """async cases => {
            const { SseParser } = await import("/dialtone.js");
            const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
            return cases.map((pieces) => {
                const parser = new SseParser();
                return pieces.flatMap((piece) => parser.feed(bytes(piece)));
            });
        }""",
        encoded,
    )
    for pieces, messages in zip(cases, found, strict=True):
        parser = SseParser()
        expected = [{"event": m.event, "data": m.data, "id": m.id} for piece in pieces for m in parser.feed(piece)]
        assert messages == expected, pieces


async def test_a_thread_looks_the_same_whatever_previews_were_lost(blank: Page, client: Client) -> None:
    task = script(
        {
            "delay_ms": 60,
            "reasoning": "Hmm 😀 so 😀 so.",
            "text": "One 😀 two 😀 three.",
            "tool_calls": [call("bash", command="echo a; echo b >&2")],
        },
        {"tool_calls": [call("files_creation", files=[{"path": "x.py", "content": "1\n"}]), call("nothing")]},
        {"text": "The end has 😀 come.", "delay_ms": 60},
    )
    thread_id = client.initiate()
    items = list(client.stream(thread_id, run_id=client.execute(thread_id, task).run_id))
    assert sum(item.type == "delta" for item in items) > 5
    looks = await blank.evaluate(
        """async items => {
            const { ThreadView } = await import("/model/thread_view.js");
            const look = (kept) => {
                const view = new ThreadView();
                kept.forEach((item) => view.apply(item));
                const blocks = [...view.blocks()].filter((block) => !block.isHidden);
                return JSON.stringify(blocks.map(({ kind, id, text, reasoning, tool, result, changes, isDone }) =>
                    ({ kind, id, text, reasoning, tool, output: result?.output, changes: changes?.length, isDone })));
            };
            const whole = look(items.filter((item) => item.kind === "event"));
            const some = () => items.filter((item) => item.kind !== "delta" || Math.random() < 0.6);
            const others = Array.from({ length: 60 }, () => look(some()));
            return { whole, different: others.filter((other) => other !== whole) };
        }""",
        [as_stream_item(item) for item in items],
    )
    assert looks["different"] == []
    kinds = [block["kind"] for block in json.loads(looks["whole"])]
    assert kinds == ["task", "message", "tool", "tool", "tool", "message", "end"]


def as_stream_item(item: StreamItem) -> dict[str, Any]:
    """The item as the JavaScript client hands it out."""
    fields = json.loads(write_item(item))
    kind = fields["type"] if fields["type"] in {"delta", "waiting", "gap", "reset"} else "event"
    return {"kind": kind, "id": fields.get("id"), "data": fields}


async def test_a_path_or_id_from_elsewhere_reaches_nothing_but_what_it_names(blank: Page, gateway: StubGateway) -> None:
    kept = await blank.evaluate(
        """async () => {
            const { Dialtone } = await import("/dialtone.js");
            const dialtone = new Dialtone();
            const id = await dialtone.initiate({ title: "Mine" });
            const refused = [];
            for (const attempt of [() => dialtone.deleteFile(id, `../../${id}`), () => dialtone.deleteThread("..")]) {
                try {
                    await attempt();
                } catch (error) {
                    refused.push(error.name);
                }
            }
            return [id, refused];
        }"""
    )
    assert kept == [next(iter(gateway.threads)), ["RangeError", "RangeError"]]


async def test_a_run_is_seen_to_wait_for_what_it_waits_for_and_to_go_on(blank: Page) -> None:
    items: list[StreamItem] = [
        RunQueued(thread_id=T, run_id=R, task="do it"),
        Waiting(run_id=R, position=1, waiting_for="worker"),
        RunStarted(thread_id=T, run_id=R, worker="w", model="m", sandbox="s"),
        Waiting(run_id=R, waiting_for="quota"),
        Waiting(run_id=R),
    ]
    seen = await blank.evaluate(
        """async items => {
            const { ThreadView } = await import("/model/thread_view.js");
            const view = new ThreadView();
            return items.map((item) => {
                view.apply(item);
                const [run] = view.runs.values();
                return [run.status, run.waitingFor, run.position];
            });
        }""",
        [as_stream_item(item) for item in items],
    )
    assert seen == [
        ["queued", "", None],
        ["queued", "worker", 1],
        ["running", "", None],
        ["running", "quota", None],
        ["running", "", None],
    ]


async def test_terminal_colors_are_read_and_other_codes_dropped(blank: Page) -> None:
    text = "\x1b[1;31mred\x1b[0m \x1b[38;5;196mcube\x1b[m\n10%\r100%\n\x1b]0;title\x07x\x1b[2Jy\u202e\n"
    lines = await blank.evaluate(
        """async text => {
            const { ansiLines } = await import("/model/ansi.js");
            return ansiLines(text).map((line) => line.map((piece) => [piece.text, piece.classes, piece.color]));
        }""",
        text,
    )
    assert lines == [
        [["red", "ansi-bold ansi-f1", ""], [" ", "", ""], ["cube", "", "rgb(255,0,0)"]],
        [["100%", "", ""]],
        [["x", "", ""], ["y", "", ""]],
        [],
    ]


async def test_what_is_left_of_own_and_shared_budgets_is_told_in_words(blank: Page) -> None:
    left = {"usd": 4.98, "turns": 12, "thread_usd": 0.5, "thread_seconds": 42, "tenant_tokens_today": 1_200_000}
    told = await blank.evaluate(
        "async left => { const { budget } = await import('/model/format.js');"
        " return Object.entries(left).map(([name, value]) => budget(name, value)); }",
        left,
    )
    assert told == [
        "$4.98",
        "12 turns",
        "$0.5000 of the thread",
        "42 s of the thread",
        "1.2M tokens of the tenant’s day",
    ]


async def test_diffs_become_rows_with_the_changed_part_marked(blank: Page) -> None:
    diff = "--- a\n+++ b\n@@ -3,3 +3,3 @@\n same\n-let one = 1;\n+let two = 1;\n last\n"
    found = await blank.evaluate("async diff => (await import('/model/diff.js')).parseDiff(diff)", diff)
    assert (found["added"], found["removed"]) == (1, 1)
    rows = [(row["kind"], row["old"], row["new"], row["mark"]) for row in found["rows"]]
    assert rows == [
        ("hunk", None, None, None),
        ("same", 3, 3, None),
        ("remove", 4, None, [4, 7]),
        ("add", None, 4, [4, 7]),
        ("same", 5, 5, None),
    ]
