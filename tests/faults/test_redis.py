"""Redis goes away, stalls, comes back with or without what it knew, or is full."""

import asyncio
import signal
import time

import httpx

from tests.faults.conftest import check_log, client_of, watch
from tests.line import Line, bash, script
from tests.until import until


async def _running(line: Line, task: str) -> str:
    """A run that a worker holds."""
    async with client_of(line) as client:
        run = await client.execute(await client.initiate(), task)

        async def held() -> bool:
            return (await client.run(run.run_id)).status == "running"

        await until(held, what="the run to start")
        return run.run_id


def slow_steps(count: int) -> str:
    return script(*(bash(f"sleep 0.4; echo step-{n} >> steps.txt") for n in range(count)), {"text": "Done."})


async def test_while_redis_is_away_every_route_says_503_within_a_second_and_creates_nothing(line: Line) -> None:
    line.start()
    async with client_of(line) as client:
        thread_id = await client.initiate()
    line.redis.sync()
    line.redis.kill()
    async with httpx.AsyncClient(base_url=line.url, trust_env=False, timeout=5) as http:
        for request in (
            http.build_request("POST", "/api/agent/initiate", json={}),
            http.build_request("POST", f"/api/agent/{thread_id}/execute", json={"task": "x"}),
            http.build_request("GET", f"/api/agent/{thread_id}"),
            http.build_request("GET", "/api/agent"),
            http.build_request("GET", "/health"),
        ):
            started = time.monotonic()
            answer = await http.send(request)
            assert answer.status_code == 503, (request.url, answer.text)
            assert time.monotonic() - started < 1
            assert int(answer.headers["retry-after"]) >= 1
    line.redis.start()
    line.wait_ready(timeout_s=10)
    async with client_of(line) as client:
        assert (await client.runs(thread_id)).items == ()
        run = await client.execute(thread_id, script({"text": "back"}))
        assert (await watch(client, run.run_id))[-1].type == "run.finished"


async def test_a_run_goes_on_over_a_restart_of_redis(line: Line) -> None:
    line.start()
    run_id = await _running(line, slow_steps(8))
    async with client_of(line) as client:
        watching = asyncio.create_task(watch(client, run_id))
        for _ in range(2):
            await asyncio.sleep(0.6)  # lets it make steps; there is no event to wait for through a dead server
            await asyncio.to_thread(line.redis.kill)
            await asyncio.to_thread(line.redis.start)
        events = await watching
        check_log(events)
        assert events[-1].type == "run.finished"
        lines = (await client.get_file(run_id.split(".")[0], "steps.txt")).decode().split()
        assert len(lines) == len(set(lines)), "no finished step is repeated"
        assert len(lines) >= 6
    assert len(line.alive("worker")) == 1


async def test_a_stall_of_redis_doubles_no_event(line: Line) -> None:
    line.settings["DIALTONE_REDIS__TIMEOUT_S"] = "0.5"
    line.start()
    run_id = await _running(line, slow_steps(6))
    server = line.redis.process
    assert server is not None
    async with client_of(line) as client:
        watching = asyncio.create_task(watch(client, run_id))
        for stall_s in (1.5, 3.0):
            server.send_signal(signal.SIGSTOP)
            await asyncio.sleep(stall_s)
            server.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.5)
        events = await watching
        check_log(events)
        assert events[-1].type == "run.finished"
        calls = [e.call_id for e in events if e.type == "tool.result"]
        assert len(calls) == len(set(calls)) == 6


async def test_redis_that_comes_back_empty_forgets_honestly(line: Line) -> None:
    line.redis.appendonly = False
    line.start()
    run_id = await _running(line, slow_steps(30))
    line.redis.kill()
    line.redis.start()
    line.wait_ready(timeout_s=15)
    async with client_of(line) as client, httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
        thread_id = run_id.split(".")[0]
        assert (await http.get(f"/api/agent/{thread_id}")).status_code == 404
        run = await client.execute(await client.initiate(), script({"text": "fresh"}))
        assert (await watch(client, run.run_id))[-1].type == "run.finished"

        async def idle() -> bool:
            return bool(line.health()["workers"]["running"] == 0)

        await until(idle, timeout_s=10, what="the worker to give up the forgotten run")


async def test_an_older_log_is_never_continued_under_ids_that_were_seen_with_other_contents(line: Line) -> None:
    line.start()
    async with client_of(line) as client:
        thread_id = await client.initiate()
        first = await client.execute(thread_id, script({"text": "one"}))
        await watch(client, first.run_id)
        backup = line.redis.copy_data()
        second = await client.execute(thread_id, script({"text": "two"}))
        seen = {event.id: event.model_dump() for event in await watch(client, second.run_id)}
        line.redis.kill()
        line.redis.put_data(backup)
        line.redis.start()
        line.wait_ready(timeout_s=15)
        third = await client.execute(thread_id, script({"text": "three"}))
        events = await watch(client, third.run_id)
        assert events[-1].type == "run.finished"
        for event in events:
            assert event.id not in seen or seen[event.id] == event.model_dump()
        lost = max(seen, key=lambda event_id: int(event_id.split("-")[1]))
        async with httpx.AsyncClient(base_url=line.url, trust_env=False, timeout=5) as http:
            url = f"/api/agent/{thread_id}/stream"
            async with http.stream("GET", url, headers={"Last-Event-ID": lost}) as answer:
                async for text in answer.aiter_lines():
                    if text.startswith("event:"):
                        assert text == "event: reset"
                        break


async def test_redis_out_of_memory_is_a_503_and_the_worker_lives(line: Line) -> None:
    line.start()
    async with client_of(line) as client:
        thread_id = await client.initiate()
        client_redis = line.redis.client()
        client_redis.config_set("maxmemory", "1mb")
        async with httpx.AsyncClient(base_url=line.url, trust_env=False, timeout=5) as http:
            answer = await http.post(f"/api/agent/{thread_id}/execute", json={"task": "x"})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        client_redis.config_set("maxmemory", "0")
        client_redis.close()

        async def works() -> bool:
            run = await client.execute(thread_id, script({"text": "again"}))
            ended = await watch(client, run.run_id, timeout_s=10)
            return ended[-1].type == "run.finished"

        await until(works, timeout_s=15, what="runs to work again")
        assert (await client.runs(thread_id)).items[-1].task.startswith("Play this.")
