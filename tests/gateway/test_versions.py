"""Files at earlier events over HTTP: which snapshot an event means, and what is refused. The worker's side is played by
the real file server over the memory sandbox; tests/e2e/test_versions.py has the whole line."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal

import httpx
import pytest

from modem import keys
from modem.files import FileServer
from modem.pool import Connections
from modem.quotas import TenantQuota
from modem.retention import trim
from modem.stream import parse_cursor
from modem.tasks.workspace import answer_file_request
from modem.workspaces import Removals, is_wanted
from tests.gateway.playing import LOCAL, Turn, Worker
from tests.gateway.serving import Gateway
from tests.until import until
from workflow.core.config import Settings
from workflow.core.events import Effect, ToolCalled, ToolResulted, WorkspaceSaved
from workflow.core.ids import CallId, ThreadId
from workflow.sandboxes.memory import MemoryProvider


class Files:
    """The workspaces, and who answers for them."""

    def __init__(self, connections: Connections) -> None:
        self.sandboxes = MemoryProvider()
        self.is_wanted = partial(is_wanted, connections)
        self.asked: list[str] = []
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def handle(self, thread_id: ThreadId, request: dict[str, Any], body: bytes) -> Any:
        self.asked.append(request["op"])
        if request["op"] in {"restore", "fork"}:
            await self.let_go.wait()
        return await answer_file_request(self.sandboxes, self.is_wanted, thread_id, request, body)

    async def remove(self, thread_id: ThreadId) -> None:
        self.asked.append("remove")
        await self.sandboxes.remove(thread_id)

    async def work(self, turn: Turn, number: int, *, files: dict[str, str], effect: Effect = Effect.KEYED) -> list[str]:
        """One turn of one call that writes files, as an agent logs it; its event ids: call, result, and the save."""
        sandbox = await self.sandboxes.open(turn.thread_id)
        about: dict[str, Any] = {"thread_id": turn.thread_id, "run_id": turn.run_id, "turn": number}
        call = CallId(f"call_{number}")
        ids = await turn.write(ToolCalled(**about, call_id=call, tool="bash", arguments={}, effect=effect))
        for path, content in files.items():
            await sandbox.write(path, content.encode())
        ids += await turn.write(ToolResulted(**about, call_id=call, tool="bash", ok=True, output=""))
        return ids + ([await self.save(turn, "turn", number)] if effect is not Effect.PURE else [])

    async def save(self, turn: Turn, why: Literal["start", "turn"], number: int) -> str:
        sandbox = await self.sandboxes.open(turn.thread_id)
        snapshot = await sandbox.snapshot(why)
        about: dict[str, Any] = {"thread_id": turn.thread_id, "run_id": turn.run_id, "turn": number}
        return (await turn.write(WorkspaceSaved(**about, snapshot=snapshot, why=why)))[0]


@pytest.fixture
async def files(worker: Worker) -> AsyncIterator[Files]:
    files = Files(worker.connections)
    server, removals = FileServer(worker.connections, files.handle), Removals(worker.connections, files.remove)
    serving = asyncio.gather(server.serve(), removals.serve())
    yield files
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await server.close()


async def read(http: httpx.AsyncClient, thread: str, at: str) -> str:
    """What `f` held at an event; the status when it was not there."""
    answer = await http.get(f"/api/agent/{thread}/files/f", params={"at": at})
    return answer.text if answer.status_code == 200 else str(answer.status_code)


async def two_runs(worker: Worker, files: Files) -> tuple[ThreadId, list[str]]:
    """Two runs with two turns each that write 1, 2, 3, 4 into `f`; before the second a person writes `p`. All ids."""
    thread = await worker.thread()
    for run in range(2):
        if run == 1:
            await (await files.sandboxes.open(thread)).write("f", b"p")
        turn = await worker.running(thread)
        await files.work(turn, 1, files={}, effect=Effect.PURE)
        await files.save(turn, "start", 2)
        await files.work(turn, 2, files={"f": str(2 * run + 1)})
        await files.work(turn, 3, files={"f": str(2 * run + 2)})
        await turn.finish()
    return thread, await worker.ids(thread)


async def test_each_event_has_the_files_of_its_time(http: httpx.AsyncClient, worker: Worker, files: Files) -> None:
    thread, ids = await two_runs(worker, files)
    kinds = [event.type for event in await worker.events(thread)]
    assert kinds[:12] == [
        "run.queued",
        "run.started",
        "tool.call",
        "tool.result",
        "workspace.saved",
        "tool.call",
        "tool.result",
        "workspace.saved",
        "tool.call",
        "tool.result",
        "workspace.saved",
        "run.finished",
    ]
    found = [await read(http, thread, event_id) for event_id in ids]
    assert found[:12] == ["404"] * 6 + ["1"] * 3 + ["2"] * 3
    # `run.queued` has what the last run left, and from `run.started` on also what a person wrote.
    assert found[12:] == ["2"] + ["p"] * 5 + ["3"] * 3 + ["4"] * 3
    listed = (await http.get(f"/api/agent/{thread}/files", params={"at": ids[6]})).json()
    assert [item["path"] for item in listed["items"]] == ["f"] and listed["saved"] == ids[7]


async def test_a_thread_whose_tools_changed_nothing_has_the_files_of_now(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread = await worker.thread()
    await (await files.sandboxes.open(thread)).write("f", b"uploaded")
    turn = await worker.running(thread)
    await files.work(turn, 1, files={}, effect=Effect.PURE)
    assert await read(http, thread, (await worker.ids(thread))[0]) == "uploaded"


async def test_a_diff_tells_texts_binaries_and_large_files_in_pages(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread = await worker.thread()
    sandbox = await files.sandboxes.open(thread)
    await sandbox.write("text", b"eins\nzwei\n")
    await sandbox.write("binary", b"\0\1")
    turn = await worker.running(thread)
    start = await files.save(turn, "start", 1)
    many = {f"many/{number:03}": "x\n" for number in range(30)}
    await files.work(turn, 1, files={"text": "eins\ndrei ü\n", "binary": "\0\2", "large": "y" * 1_000_001} | many)
    await sandbox.write("later", b"after the save\n")

    url = f"/api/agent/{thread}/diff"
    to_save = (await http.get(url, params={"from": start, "to": (await worker.ids(thread))[-1]})).json()
    by_path = {item["path"]: item for item in to_save["items"]}
    assert to_save["total"] == len(by_path) == 34 and to_save["next_cursor"] is None
    assert by_path["text"]["diff"] == "--- a/text\n+++ b/text\n@@ -1,2 +1,2 @@\n eins\n-zwei\n+drei ü"
    assert (by_path["binary"]["binary"], by_path["binary"]["diff"]) == (True, "")
    assert (by_path["large"]["too_large"], by_path["large"]["change"]) == (True, "added")
    assert by_path["many"]["new"]["kind"] == "dir" and by_path["many"]["old"] is None

    paths: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await http.get(url, params={"from": start, "limit": 7, "cursor": cursor})).json()
        assert page["total"] == 35
        paths += [item["path"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert paths == sorted([*by_path, "later"])


async def test_files_whose_names_are_no_text_are_listed_compared_and_paged(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread = await worker.thread()
    sandbox = await files.sandboxes.open(thread)
    await sandbox.write("plain", b"")
    turn = await worker.running(thread)
    start = await files.save(turn, "start", 1)
    for name in (b"caf\xe9", b"caf\xea", b"z"):
        await sandbox.write(os.fsdecode(name), b"x\n")

    listed = (await http.get(f"/api/agent/{thread}/files")).json()["items"]
    shown = ["caf\ufffd", "caf\ufffd", "z"]
    assert sorted(item["path"] for item in listed) == sorted([*shown, "plain"])
    paths: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (
            await http.get(f"/api/agent/{thread}/diff", params={"from": start, "limit": 1, "cursor": cursor})
        ).json()
        paths += [item["path"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(paths) == shown


async def test_a_page_of_a_diff_ends_in_time_however_slowly_its_files_compare(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread = await worker.thread()
    sandbox = await files.sandboxes.open(thread)
    turn = await worker.running(thread)
    picks = random.Random(1)

    async def write_all() -> None:
        for number in range(20):  # two lines over and over: the worst that there is to compare
            await sandbox.write(f"f{number:02}", "\n".join(picks.choices("ab", k=1999)).encode())

    await write_all()
    start = await files.save(turn, "start", 1)
    await write_all()
    page = (await http.get(f"/api/agent/{thread}/diff", params={"from": start, "limit": 500})).json()
    assert page["total"] == 20 and 0 < len(page["items"]) < 20
    after = (await http.get(f"/api/agent/{thread}/diff", params={"from": start, "cursor": page["next_cursor"]})).json()
    assert after["items"][0]["path"] == f"f{len(page['items']):02}"


async def test_a_restore_can_be_undone(http: httpx.AsyncClient, worker: Worker, files: Files) -> None:
    thread, ids = await two_runs(worker, files)
    await (await files.sandboxes.open(thread)).write("f", b"by hand")
    done = await http.post(f"/api/agent/{thread}/restore", json={"event": ids[7]})
    assert done.status_code == 200, done.text
    sandbox = await files.sandboxes.open(thread)
    assert await sandbox.read("f") == b"1"
    saved = [event for event in await worker.events(thread) if isinstance(event, WorkspaceSaved)][-2:]
    assert [(event.id, event.why, event.of) for event in saved] == [
        (done.json()["before"], "before_restore", ""),
        (done.json()["restored"], "restored", ids[7]),
    ]
    assert await read(http, thread, done.json()["restored"]) == "1"
    undone = await http.post(f"/api/agent/{thread}/restore", json={"event": done.json()["before"]})
    assert undone.status_code == 200 and await sandbox.read("f") == b"by hand"


async def test_a_restore_is_refused_while_a_run_has_not_ended_and_keeps_runs_out_meanwhile(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread, ids = await two_runs(worker, files)
    turn = await worker.running(thread)
    refused = await http.post(f"/api/agent/{thread}/restore", json={"event": ids[7]})
    assert (refused.status_code, refused.json()["code"]) == (409, "thread_busy")
    assert await (await files.sandboxes.open(thread)).read("f") == b"4"
    await turn.finish()

    files.let_go.clear()
    restoring = asyncio.create_task(http.post(f"/api/agent/{thread}/restore", json={"event": ids[7]}))
    await begun(files, "restore")
    run = await http.post(f"/api/agent/{thread}/execute", json={"task": "now"})
    again = await http.post(f"/api/agent/{thread}/restore", json={"event": ids[7]})
    assert [(run.status_code, run.json()["code"]), (again.status_code, again.json()["code"])] == [(409, "conflict")] * 2
    files.let_go.set()
    assert (await restoring).status_code == 200
    assert (await http.post(f"/api/agent/{thread}/execute", json={"task": "now"})).status_code == 202


async def begun(files: Files, op: str) -> None:
    """Returns once a worker was asked for `op`."""

    async def asked() -> bool:
        return op in files.asked

    await until(asked, what=f"{op} to be asked for")


async def test_a_thread_deleted_during_a_restore_or_fork_is_unknown_and_leaves_nothing(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    for verb in ("restore", "fork"):
        thread, ids = await two_runs(worker, files)
        files.let_go.clear()
        asking = asyncio.create_task(http.post(f"/api/agent/{thread}/{verb}", json={"event": ids[7]}))
        await begun(files, verb)
        assert (await http.delete(f"/api/agent/{thread}")).status_code == 204
        await begun(files, "remove")
        files.asked.clear()
        files.let_go.set()
        answer = await asking
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert [key async for key in worker.connections.commands.scan_iter(match=f"thread:{{{thread}}}*")] == []
    await begun(files, "remove")
    assert (await http.get("/api/agent")).json()["items"] == []


@pytest.mark.parametrize("verb", ["files", "files/f", "diff", "restore", "fork"])
async def test_events_that_this_thread_does_not_have_are_unknown(
    http: httpx.AsyncClient, worker: Worker, files: Files, verb: str
) -> None:
    thread, ids = await two_runs(worker, files)
    other, foreign = await two_runs(worker, files)
    last = parse_cursor(ids[-1])
    assert await trim(worker.connections, thread, keep=12) == 12
    unknown = {
        foreign[-1]: "there is none in this thread",
        f"{last.epoch + 1}-{last.seq}": "there is none in this thread",
        f"{last.epoch}-{last.seq + 1}": "there is none in this thread",
        ids[5]: "it is no longer kept",
    }
    for event, why in unknown.items():
        answer = await _use(http, thread, verb, event)
        assert answer.status_code == 404 and why in answer.json()["detail"], answer.text
    assert (await _use(http, thread, verb, "nonsense")).status_code == 400
    assert other != thread and await (await files.sandboxes.open(thread)).read("f") == b"4"


async def _use(http: httpx.AsyncClient, thread: str, verb: str, event: str) -> httpx.Response:
    url = f"/api/agent/{thread}/{verb}"
    if verb in {"restore", "fork"}:
        return await http.post(url, json={"event": event})
    return await http.get(url, params={"from" if verb == "diff" else "at": event})


async def test_the_base_of_a_trimmed_log_still_knows_the_last_save(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread, ids = await two_runs(worker, files)
    assert await trim(worker.connections, thread, keep=len(ids) - 11) == 11
    assert await read(http, thread, ids[11]) == "2"


async def test_a_snapshot_that_made_room_for_newer_ones_is_not_kept_any_more(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread, ids = await two_runs(worker, files)
    await files.sandboxes.remove(thread)
    answer = await http.get(f"/api/agent/{thread}/files", params={"at": ids[7]})
    assert answer.status_code == 404 and "snapshot" in answer.json()["detail"]


async def test_a_fork_holds_conversation_and_files_up_to_the_event(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread, ids = await two_runs(worker, files)
    answer = await http.post(f"/api/agent/{thread}/fork", json={"event": ids[18], "title": "Another way"})
    assert answer.status_code == 200, answer.text
    record = answer.json()
    fork = ThreadId(record["thread_id"])
    assert (record["title"], record["last_status"], record["active_run"]) == ("Another way", "cancelled", None)

    events, source = await worker.events(fork), await worker.events(thread)
    assert [event.type for event in events] == [e.type for e in source[:19]] + ["run.cancelled", "workspace.saved"]
    assert [parse_cursor(event.id).seq for event in events] == list(range(1, 22))
    assert len({parse_cursor(event.id).epoch for event in events}) == 1 and record["last_id"] == events[-1].id
    assert {event.thread_id for event in events} == {fork}
    assert [event.at for event in events[:19]] == [event.at for event in source[:19]]
    end = events[-1]
    assert isinstance(end, WorkspaceSaved) and (end.why, end.of, end.source) == ("forked", ids[18], thread)
    runs = (await http.get(f"/api/agent/{fork}/runs")).json()["items"]
    assert [(run["thread_id"], run["status"]) for run in runs] == [(fork, "cancelled"), (fork, "finished")]
    assert {event.run_id for event in events if event.run_id} == {run["run_id"] for run in runs}
    assert (await http.get(f"/api/agent/{fork}/files/f")).text == "3"
    assert (await http.get(f"/api/agent/{thread}/files/f")).text == "4"
    assert [event.id for event in source] == [event.id for event in await worker.events(thread)] == ids

    turn = await worker.running(fork)  # and it is a thread like any other
    await files.work(turn, 1, files={"f": "5"})
    await turn.finish()
    assert await read(http, fork, end.id) == "3" and await read(http, thread, ids[-1]) == "4"


async def test_a_fork_keeps_its_threads_choice_of_models(http: httpx.AsyncClient, worker: Worker, files: Files) -> None:
    thread, ids = await two_runs(worker, files)
    choice = {"model": "big", "models": {"planning": "small", "summaries": "smaller"}}
    assert (await http.patch(f"/api/agent/{thread}", json=choice)).status_code == 200
    fork = (await http.post(f"/api/agent/{thread}/fork", json={"event": ids[-1]})).json()
    assert {name: fork[name] for name in choice} == choice


@pytest.mark.parametrize("keep", [2, 6])
async def test_a_fork_of_an_event_that_is_trimmed_meanwhile_is_refused_and_holds_nothing_later(
    http: httpx.AsyncClient, worker: Worker, files: Files, keep: int
) -> None:
    thread, ids = await two_runs(worker, files)
    files.let_go.clear()
    asking = asyncio.create_task(http.post(f"/api/agent/{thread}/fork", json={"event": ids[7]}))
    await begun(files, "fork")
    await trim(worker.connections, thread, keep=keep)
    files.let_go.set()
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert [item["thread_id"] for item in (await http.get("/api/agent")).json()["items"]] == [thread]


async def test_a_fork_of_a_trimmed_thread_knows_what_was_trimmed(
    http: httpx.AsyncClient, worker: Worker, files: Files
) -> None:
    thread, ids = await two_runs(worker, files)
    await trim(worker.connections, thread, keep=6)
    fork = (await http.post(f"/api/agent/{thread}/fork", json={"event": ids[-1]})).json()["thread_id"]
    then, now = [(await http.get(f"/api/agent/{name}/state")).json() for name in (thread, fork)]
    assert [run.partition(".")[2] for run in now["runs"]] == [run.partition(".")[2] for run in then["runs"]]
    assert [entry["thread_id"] for entry in now["transcript"]] == [fork] * len(then["transcript"])
    assert json.dumps(now).count(thread) == 1, "only the event that says where it comes from"
    async with asyncio.timeout(5):
        stays = [await worker.connections.commands.ttl(name) for name in (keys.stream(fork), keys.base(fork))]
    assert stays == [-1, -1]
    assert (await http.delete(f"/api/agent/{fork}")).status_code == 204
    assert (await worker.threads.get(LOCAL, thread)).thread_id == thread


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("pages.html.gz", "application/octet-stream"),
        ("all.tar.gz", "application/octet-stream"),
        ("all.tar", "application/x-tar"),
        ("unknown", "application/octet-stream"),
    ],
)
async def test_a_file_is_served_as_what_its_bytes_are(
    http: httpx.AsyncClient, worker: Worker, files: Files, name: str, kind: str
) -> None:
    thread = await worker.thread()
    await (await files.sandboxes.open(thread)).write(name, b"bytes")
    answer = await http.get(f"/api/agent/{thread}/files/{name}")
    assert (answer.headers["Content-Type"], answer.content) == (kind, b"bytes")
    assert "Content-Encoding" not in answer.headers and answer.headers["Content-Security-Policy"].startswith("sandbox;")


async def test_a_list_that_does_not_hold_all_says_so(http: httpx.AsyncClient, worker: Worker, files: Files) -> None:
    thread = await worker.thread()
    sandbox = await files.sandboxes.open(thread)
    for number in range(10_000):
        await sandbox.write(f"f{number}", b"")
    turn = await worker.running(thread)
    event = await files.save(turn, "start", 1)
    await sandbox.write("one more", b"")
    last = await files.save(turn, "turn", 1)
    for at, is_cut in (("", True), (event, False), (last, True)):
        listed = (await http.get(f"/api/agent/{thread}/files", params={"at": at})).json()
        assert (len(listed["items"]), listed["truncated"]) == (10_000, is_cut)


@pytest.fixture
def tight(settings: Settings) -> Settings:
    return settings.model_copy(update={"sandbox": settings.sandbox.model_copy(update={"tenant_disk_bytes": 1_000_000})})


async def test_a_tenant_whose_disk_is_full_can_delete_but_neither_upload_nor_fork(
    tight: Settings, worker: Worker, files: Files
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    (_, last, _) = await files.work(turn, 1, files={"f": "1"})
    await turn.finish()
    quota = TenantQuota(worker.connections, tight.sandbox, owner="w1")
    async with Gateway(tight) as gateway, httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        await quota.weigh(thread, 1_000_000)
        full = [
            await http.put(f"/api/agent/{thread}/files/f", content=b"2"),
            await http.post(f"/api/agent/{thread}/fork", json={"event": last}),
        ]
        assert [(one.status_code, one.json()["code"]) for one in full] == [(429, "limit_exceeded")] * 2
        assert "delete files or threads" in full[0].json()["detail"] and full[0].headers["Retry-After"]
        assert await read(http, thread, last) == "1"
        assert (await http.delete(f"/api/agent/{thread}/files/f")).status_code == 204
        await quota.weigh(thread, 999_999)
        assert (await http.put(f"/api/agent/{thread}/files/f", content=b"2")).status_code == 200
        assert (await http.post(f"/api/agent/{thread}/fork", json={"event": last})).status_code == 200
