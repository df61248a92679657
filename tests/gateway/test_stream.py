"""What a stream promises, on one connection: order, resume, honest gaps, the end."""

import asyncio
import json

import httpx

from modem import keys
from modem.journal import PREVIEW_BYTES
from modem.quotas import TenantQuota
from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway
from workflow.core.config import SandboxSettings
from workflow.core.ids import ItemId


async def test_stream_shows_the_whole_log_and_then_what_happens(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(2)
        await turn.say("one", "two")
        last = await turn.finish()
        await reader.until_id(last)
    assert reader.ids == await worker.ids(thread)
    assert reader.data == [json.loads(event.model_dump_json()) for event in await worker.events(thread)]


async def test_stream_resumes_after_last_event_id_without_gap_or_repeat(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say(*map(str, range(600)))
    ids = await worker.ids(thread)
    for cut in (0, 1, 255, 256, 257, 511, 512, len(ids) - 1):
        stale = {"Last-Event-ID": ids[cut]}
        async with await Reader.open(
            f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[0]}", headers=stale
        ) as reader:
            if cut < len(ids) - 1:
                await reader.until_id(ids[-1])
            assert reader.ids == ids[cut + 1 :]


async def test_run_stream_holds_only_its_run_and_ends_with_it(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    first = await worker.running(thread)
    other = await worker.open(thread, "the next one")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?run_id={first.run_id}") as reader:
        await reader.until(2)
        last = await first.finish()
        await reader.until_end()
    assert reader.ended
    assert {body["run_id"] for body in reader.data} == {first.run_id}
    assert reader.ids[-1] == last
    assert other != first.run_id


async def test_reader_who_joins_mid_message_gets_the_text_so_far_and_then_the_rest(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    item = ItemId("m1")
    await turn.grow(item, 0, "Hello, ")
    await turn.grow(item, 7, "wor")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(3)
        assert [(d["offset"], d["text"]) for d in reader.deltas] == [(0, "Hello, wor")]
        await turn.grow(item, 10, "ld")
        await reader.until(4)
        assert [(d["offset"], d["text"]) for d in reader.deltas] == [(0, "Hello, wor"), (10, "ld")]
        await turn.write(turn.message("Hello, world", item))
        await reader.until(5)
    assert reader.data[-1]["text"] == "Hello, world"
    assert all(message.id is None for message in reader.messages if json.loads(message.data)["type"] == "delta")


async def test_the_text_so_far_has_no_hole_where_a_piece_was_lost_or_too_long_to_keep(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    lost, long = ItemId("lost"), ItemId("long")
    redis = worker.connections.commands
    await turn.grow(lost, 0, "Hello, ")
    await redis.config_set("maxmemory", "1")  # Redis takes nothing
    await turn.grow(lost, 7, "dear ")
    await redis.config_set("maxmemory", "0")
    await turn.grow(lost, 12, "world")
    almost = PREVIEW_BYTES - 10
    await turn.grow(long, 0, "a" * almost)
    await turn.grow(long, almost, "b" * 20)
    await turn.grow(long, almost + 20, "c")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(4)
        assert {d["item"]: d["text"] for d in reader.deltas} == {"lost": "Hello, ", "long": "a" * almost}
        await turn.grow(lost, 17, "!")
        await reader.until(5)
    assert [(d["offset"], d["text"]) for d in reader.deltas[2:]] == [(17, "!")]


async def test_a_text_that_stood_still_until_it_was_forgotten_does_not_begin_anew_in_its_middle(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.grow(ItemId("m1"), 0, "Hello, ")
    await worker.connections.commands.delete(keys.previews(turn.run_id))  # what its time to live does
    await turn.grow(ItemId("m1"), 7, "wor")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until(2)
        await turn.grow(ItemId("m1"), 10, "ld")
        await reader.until(3)
    assert [(d["offset"], d["text"]) for d in reader.deltas] == [(10, "ld")]


async def test_deltas_can_be_switched_off(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?deltas=false") as reader:
        await reader.until(2)
        await turn.grow(ItemId("m1"), 0, "Hel")
        await turn.say("Hello")
        await reader.until(3)
    assert [body["type"] for body in reader.data] == ["run.queued", "run.started", "message"]


async def test_reconnect_at_the_end_of_a_finished_thread_is_told_to_stop(
    gateway: Gateway, worker: Worker, http: httpx.AsyncClient
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    last = await turn.finish()
    url = f"/api/agent/{thread}/stream"
    assert (await http.get(url, headers={"Last-Event-ID": last})).status_code == 204
    assert (await http.get(f"{url}?run_id={turn.run_id}&last_id={last}")).status_code == 204
    await worker.open(thread)
    async with await Reader.open(f"{gateway.url}{url}", headers={"Last-Event-ID": last}) as reader:
        assert reader.status == 200
    async with await Reader.open(f"{gateway.url}{url}?run_id={turn.run_id}") as reader:
        await reader.until_end()
        assert reader.ids[-1] == last


async def test_malformed_cursor_is_refused(worker: Worker, http: httpx.AsyncClient) -> None:
    thread = await worker.thread()
    for cursor in ("1", "$", ">", "-", "1-", "-1", "1-2-3", "a-b", "18446744073709551616-1", "1-18446744073709551616"):
        answer = await http.get(f"/api/agent/{thread}/stream", params={"last_id": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor"), cursor
    for query in ({"from": "yesterday"}, {"from": "9" * 99}, {"last_id": "9" * 99}):
        assert (await http.get(f"/api/agent/{thread}/stream", params=query)).status_code == 400, query
    header = {"Last-Event-ID": "9" * 99}
    assert (await http.get(f"/api/agent/{thread}/stream", headers=header)).status_code == 400


async def test_stream_has_the_headers_that_proxies_need(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reader.headers["x-accel-buffering"] == "no"
        assert reader.headers["cache-control"] == "no-store"
        assert "content-encoding" not in reader.headers


async def test_foreign_and_future_cursors_are_reset_with_the_present_state(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    last = (await turn.say("hello"))[0]
    epoch, seq = last.split("-")
    for cursor in (f"{epoch}-{int(seq) + 5}", f"{int(epoch) + 1}-1", "1-2"):
        async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={cursor}") as reader:
            await reader.until(1)
            assert [message.event for message in reader.messages] == ["reset"]
            assert reader.last_id == last
            state = reader.data[0]["state"]
            assert state["last_id"] == last
            assert [entry["type"] for entry in state["transcript"]][:2] == ["run.queued", "message"]
            after = (await turn.say("more"))[0]
            await reader.until(2)
            assert reader.ids == [after]
            last = after


async def test_from_now_skips_what_was_and_misses_nothing_after_the_answer(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    url = f"{gateway.url}/api/agent/{thread}/stream?from=now"
    async with await Reader.open(url) as first:
        turn = await worker.running(thread)
        ids = await worker.ids(thread)
        await first.until_id(ids[-1])
        assert first.ids == ids
    for number in range(20):
        async with await Reader.open(url) as reader:
            said = await turn.say(f"now {number}")
            await reader.until(1)
            assert reader.ids == said


async def test_from_now_that_is_cut_before_its_first_event_resumes_from_the_same_now(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    before = (await worker.ids(thread))[-1]
    url = f"{gateway.url}/api/agent/{thread}/stream?from=now"
    async with await Reader.open(url) as cut:
        await cut.until_heartbeats(1)
        assert cut.last_id == before
    said = await turn.say("between")
    async with await Reader.open(url, headers={"Last-Event-ID": cut.last_id}) as reader:
        await reader.until(1)
        assert reader.ids == said


async def test_from_now_in_an_empty_thread_that_is_cut_misses_nothing_either(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    url = f"{gateway.url}/api/agent/{thread}/stream?from=now"
    async with await Reader.open(url) as cut:
        await cut.until_heartbeats(1)
    await worker.running(thread)
    ids = await worker.ids(thread)
    async with await Reader.open(url, headers={"Last-Event-ID": cut.last_id}) as reader:
        await reader.until_id(ids[-1])
        assert reader.ids == ids


async def test_from_takes_an_id_too_and_the_newest_word_of_the_client_wins(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    await turn.say(*map(str, range(6)))
    ids = await worker.ids(thread)
    for query, header, cut in (
        (f"from={ids[2]}", "", 2),
        (f"from={ids[2]}&last_id={ids[4]}", "", 4),
        (f"from=now&last_id={ids[4]}", "", 4),
        (f"from={ids[2]}&last_id={ids[4]}", ids[5], 5),
    ):
        headers = {"Last-Event-ID": header} if header else {}
        async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?{query}", headers=headers) as reader:
            await reader.until_id(ids[-1])
            assert reader.ids == ids[cut + 1 :], query


async def test_idle_stream_has_a_heartbeat(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until_heartbeats(2)
    assert reader.messages == []


async def test_a_run_that_waits_for_a_place_of_its_tenant_says_so_to_all_until_it_goes_on(
    gateway: Gateway, worker: Worker
) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    quota = TenantQuota(worker.connections, SandboxSettings(max_live_per_tenant=1), owner="w1")
    told = {"run_id": turn.run_id, "position": None, "waiting_for": "quota"}
    url = f"{gateway.url}/api/agent/{thread}/stream"
    async with await Reader.open(url) as early:
        await early.until_id((await worker.ids(thread))[-1])
        await quota.wait(thread, is_over=False)
        await quota.wait(thread, is_over=False)
        await early.until_event("waiting")
        assert early.data[-1] == told
        for query in ("", f"?run_id={turn.run_id}"):
            async with await Reader.open(url + query) as late:
                await late.until_event("waiting")
                assert late.data[-1] == told
        await quota.wait(thread, is_over=True)
        async with asyncio.timeout(10):
            while early.data[-1] == told:
                assert await early.more()
        assert early.data[-1] == told | {"waiting_for": ""}
        await early.until_heartbeats(early.heartbeats + 2)
        assert early.data[-1] == told | {"waiting_for": ""}, "nothing more to tell"


async def test_queued_run_is_told_its_place(gateway: Gateway, worker: Worker) -> None:
    thread = await worker.thread()
    await worker.running(thread)
    second = await worker.open(thread, "second")
    third = await worker.open(thread, "third")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?run_id={third}") as reader:
        await reader.until_event("waiting")
        waiting = [
            body for message, body in zip(reader.messages, reader.data, strict=True) if message.event == "waiting"
        ]
    assert waiting[0] == {"run_id": third, "position": 2, "waiting_for": "thread"}
    assert second != third
