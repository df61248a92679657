"""Logs that were trimmed: what a reader is told of what is gone."""

from typing import Any

import httpx
import pytest
import redis

from modem import keys
from modem.expiry import Expiry
from modem.retention import BASE_TRANSCRIPT, trim
from modem.stream import Log
from tests.gateway.playing import LOCAL, Turn, Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway
from workflow.core.errors import NotFound
from workflow.core.events import FileChanged, PlanStep, PlanUpdated, Todo, TodoUpdated
from workflow.core.ids import ThreadId


async def busy_thread(worker: Worker) -> tuple[ThreadId, Turn, list[str]]:
    """A log of 23 events that holds a plan, a todo, a file and 18 messages; and their ids."""
    thread = await worker.thread()
    turn = await worker.running(thread)
    run = {"thread_id": thread, "run_id": turn.run_id, "turn": 1}
    await turn.write(PlanUpdated(**run, steps=(PlanStep(id="1", title="think"),)))
    await turn.write(TodoUpdated(**run, items=(Todo(content="act"),)))
    await turn.write(FileChanged(**run, path="a.txt", change="created"))
    await turn.say(*(f"message {number}" for number in range(18)))
    return thread, turn, await worker.ids(thread)


async def test_reader_from_before_the_log_begins_is_told_the_gap_and_what_it_held(
    gateway: Gateway, worker: Worker, http: httpx.AsyncClient
) -> None:
    thread, turn, ids = await busy_thread(worker)
    whole = (await http.get(f"/api/agent/{thread}/state")).json()
    assert await trim(worker.connections, thread, keep=10) == 13
    assert await worker.ids(thread) == ids[13:]
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[4]}") as reader:
        await reader.until_id(ids[-1])
    gap, body = reader.messages[0], reader.data[0]
    assert (gap.event, gap.id) == ("gap", ids[12])
    assert (body["from"], body["to"]) == (ids[5], ids[12])
    assert body["state"]["last_id"] == ids[12]
    assert [step["title"] for step in body["state"]["plan"]] == ["think"]
    assert [todo["content"] for todo in body["state"]["todos"]] == ["act"]
    assert list(body["state"]["files"]) == ["a.txt"]
    assert [entry.get("text") for entry in body["state"]["transcript"]][-1] == "message 7"
    assert reader.ids == ids[13:]
    assert (await http.get(f"/api/agent/{thread}/state")).json() == whole
    assert turn.thread_id == thread


async def test_what_a_gap_says_of_a_log_that_is_trimmed_meanwhile_does_not_come_again(
    gateway: Gateway, worker: Worker
) -> None:
    thread, _, ids = await busy_thread(worker)
    redis = worker.connections.commands
    entries = await redis.xrange(keys.stream(thread))
    await trim(worker.connections, thread, keep=10)
    await redis.delete(keys.stream(thread))
    for entry_id, fields in entries[8:]:  # what a reader sees whose page was read before that trim, its base after it
        await redis.xadd(keys.stream(thread), fields, id=entry_id)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[4]}") as reader:
        await reader.until_id(ids[-1])
    gap = reader.data[0]
    assert (gap["from"], gap["to"], gap["state"]["last_id"]) == (ids[5], ids[12], ids[12])
    assert reader.ids == ids[13:]


async def test_events_go_by_age_too_and_are_told_of(worker: Worker, gateway: Gateway) -> None:
    thread, _, ids = await busy_thread(worker)
    events = await Log(worker.connections).events(thread)
    assert await trim(worker.connections, thread, keep=1000, since_ms=events[0].at) == 0
    later = events[-1].at + 1
    assert await trim(worker.connections, thread, keep=1000, since_ms=later) == len(ids)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[3]}") as reader:
        await reader.until(1)
    assert (reader.data[0]["from"], reader.data[0]["to"]) == (ids[4], ids[-1])


async def test_there_is_no_gap_at_the_exact_boundary(gateway: Gateway, worker: Worker) -> None:
    thread, _, ids = await busy_thread(worker)
    await trim(worker.connections, thread, keep=10)
    for cursor in range(12, 22):
        async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[cursor]}") as reader:
            await reader.until_id(ids[-1])
            assert [message.event for message in reader.messages] == ["task_agent_execute"] * (22 - cursor)
            assert reader.ids == ids[cursor + 1 :]


async def test_reader_of_the_whole_log_is_told_that_its_beginning_is_gone(gateway: Gateway, worker: Worker) -> None:
    thread, _, ids = await busy_thread(worker)
    await trim(worker.connections, thread, keep=10)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:
        await reader.until_id(ids[-1])
    assert (reader.data[0]["from"], reader.data[0]["to"]) == (ids[0], ids[12])
    assert reader.ids == ids[13:]


async def test_gap_in_front_of_an_empty_log_is_told_too(gateway: Gateway, worker: Worker, redis_url: str) -> None:
    thread, turn, ids = await busy_thread(worker)
    with redis.Redis.from_url(redis_url) as client:
        client.xtrim(f"thread:{{{thread}}}:stream", maxlen=0, approximate=False)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[3]}") as reader:
        await reader.until(1)
        assert (reader.data[0]["from"], reader.data[0]["to"]) == (ids[4], ids[-1])
        said = await turn.say("after")
        await reader.until(2)
        assert reader.ids == said


async def test_log_trimmed_by_somebody_else_is_never_a_silent_hole(
    gateway: Gateway, worker: Worker, redis_url: str
) -> None:
    thread, _, ids = await busy_thread(worker)
    with redis.Redis.from_url(redis_url) as client:
        client.xtrim(f"thread:{{{thread}}}:stream", maxlen=5, approximate=False)
        client.xdel(f"thread:{{{thread}}}:stream", ids[-3])
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id={ids[10]}") as reader:
        await reader.until_id(ids[-1])
    gaps = [body for message, body in zip(reader.messages, reader.data, strict=True) if message.event == "gap"]
    assert [(gap["from"], gap["to"]) for gap in gaps] == [(ids[11], ids[-6]), (ids[-3], ids[-3])]
    assert reader.ids == [*ids[-5:-3], *ids[-2:]]


async def test_base_grows_with_every_trim_and_stays_bounded(worker: Worker, http: httpx.AsyncClient) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    for start in range(0, BASE_TRANSCRIPT + 300, 100):
        await turn.say(*(f"m{number}" for number in range(start, start + 100)))
        await trim(worker.connections, thread, keep=50)
    transcript = _texts((await http.get(f"/api/agent/{thread}/state")).json())
    assert len(transcript) == BASE_TRANSCRIPT + 50
    assert transcript[-1] == f"m{BASE_TRANSCRIPT + 299}"
    assert transcript == sorted(transcript, key=lambda text: int(text[1:]))


def _texts(state: dict[str, Any]) -> list[str]:
    return [entry["text"] for entry in state["transcript"]]


async def test_threads_without_activity_expire_and_busy_ones_stay(worker: Worker, redis_url: str) -> None:
    old, busy, young = await worker.thread(), await worker.thread(), await worker.thread()
    await worker.open(busy)
    with redis.Redis.from_url(redis_url) as client:
        for thread in (old, busy):
            client.hset(f"thread:{{{thread}}}:metadata", "updated_at", "1000")
            client.zadd("tenant:{local}:threads", {thread: 1000})
    expiry = Expiry(worker.connections, worker.threads, keep_days=30)
    assert await expiry.once() == 1
    for thread in (busy, young):
        assert (await worker.threads.get(LOCAL, thread)).thread_id == thread
    with pytest.raises(NotFound):
        await worker.threads.get(LOCAL, old)
