"""Redis goes away, stalls, comes back with or without what it knew, or is full."""

import asyncio
import json
import signal
import time
from collections.abc import Iterable

import httpx
from websockets.asyncio.client import ClientConnection, connect

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
    async with client_of(line) as client:
        watching = asyncio.create_task(watch(client, run_id))
        for stall_s in (1.5, 3.0):
            with line.redis.frozen():
                await asyncio.sleep(stall_s)
            await asyncio.sleep(0.5)
        events = await watching
        check_log(events)
        assert events[-1].type == "run.finished"
        calls = [e.call_id for e in events if e.type == "tool.result"]
        assert len(calls) == len(set(calls)) == 6


WITHIN_S = 1.0
TRIES = 4
"""The machine may be busy with other things: one freeze of these has to be answered in time, every one correctly."""


def asks(http: httpx.AsyncClient, run_id: str) -> list[httpx.Request]:
    """One request of every kind that needs Redis."""
    thread = f"/api/agent/{run_id.split('.')[0]}"
    run, point = f"{thread}/runs/{run_id}", {"event": "1-1"}
    build = http.build_request
    return [
        build("POST", "/api/agent/initiate", json={"title": "frozen"}),
        build("POST", f"{thread}/execute", json={"task": script({"text": "asked of a frozen server"})}),
        build("POST", f"{run}/cancel"),
        build("POST", f"{run}/steer", json={"text": "never said"}),
        build("POST", f"{thread}/questions/q1/answer", json={"answer": "yes"}),
        build("POST", f"{thread}/ticket"),
        build("POST", f"{thread}/restore", json=point),
        build("GET", "/api/agent"),
        build("GET", thread),
        build("GET", f"{thread}/runs"),
        build("GET", run),
        build("GET", f"{thread}/events"),
        build("GET", f"{thread}/state"),
        build("GET", f"{thread}/stream"),
        build("GET", f"{thread}/stream", headers={"Last-Event-ID": "1-1"}),
        build("GET", f"{thread}/files"),
        build("GET", f"{thread}/files/steps.txt"),
        build("PUT", f"{thread}/files/big.bin", content=b"x" * 3_000_000),
        build("GET", f"{thread}/archive"),
        build("GET", f"{thread}/previews"),
        build("GET", "/api/operator/overview"),
        build("GET", "/health"),
    ]


async def slowest_refusal(http: httpx.AsyncClient, requests: Iterable[httpx.Request]) -> float:
    """Sends them all at once; how long the slowest 503 took, in seconds."""

    async def refused(request: httpx.Request) -> float:
        started = time.monotonic()
        answer = await http.send(request)
        took_s = time.monotonic() - started
        assert answer.status_code == 503, (request.method, request.url, answer.status_code, answer.text)
        assert int(answer.headers["retry-after"]) >= 1, request.url
        return took_s

    return max(await asyncio.gather(*map(refused, requests)))


async def slowest_socket_refusal(socket: ClientConnection, run_id: str) -> float:
    """The same for commands over an open WebSocket, one after the other."""
    slowest_s = 0.0
    for command in ({"command": "steer", "run_id": run_id, "text": "never said"}, {"command": "execute", "task": "x"}):
        started = time.monotonic()
        await socket.send(json.dumps(command))
        while (message := json.loads(await socket.recv()))["event"] != "error":
            pass
        slowest_s = max(slowest_s, time.monotonic() - started)
        assert (message["data"]["status"], message["data"]["retryable"]) == (503, True)
    return slowest_s


async def test_while_redis_is_frozen_everything_is_refused_within_a_second_and_back_at_once(line: Line) -> None:
    line.start()
    run_id = await _running(line, slow_steps(12))
    address = f"ws{line.url.removeprefix('http')}/api/agent/{run_id.split('.')[0]}/ws?from=now"
    limits = httpx.Limits(max_connections=None)
    async with (
        client_of(line) as client,
        httpx.AsyncClient(base_url=line.url, trust_env=False, timeout=30, limits=limits) as http,
        connect(address) as socket,
    ):
        watching = asyncio.create_task(watch(client, run_id))
        for _ in range(TRIES):
            with line.redis.frozen():
                waits = slowest_refusal(http, asks(http, run_id)), slowest_socket_refusal(socket, run_id)
                slowest_s = [*await asyncio.gather(*waits)]
                slowest_s += [await slowest_refusal(http, [ask]) for ask in asks(http, run_id)]
                slowest_s += [await slowest_socket_refusal(socket, run_id)]
                figures, page = await http.get("/metrics"), await http.get("/")
                assert (figures.status_code, page.status_code) == (200, 200)
                assert "dialtone_redis_up 0" in figures.text
            thawed = time.monotonic()

            async def serves() -> bool:
                return (await http.get(f"/api/agent/{run_id.split('.')[0]}")).status_code == 200

            await until(serves, timeout_s=10, what="the gateway to serve again")
            slowest_s.append(time.monotonic() - thawed)
            if max(slowest_s) < WITHIN_S:
                break
        else:
            raise AssertionError(f"answered in {max(slowest_s):.2f} s at best")
        events = await watching
        check_log(events)
        assert events[-1].type in {"run.finished", "run.cancelled"}


async def test_an_execute_cut_by_a_freeze_is_one_run_when_it_is_repeated_with_its_key(line: Line) -> None:
    line.start()
    async with client_of(line) as client, httpx.AsyncClient(base_url=line.url, trust_env=False, timeout=30) as http:
        thread_id = await client.initiate()

        async def execute(key: str) -> httpx.Response:
            body = {"task": script({"text": key})}
            url = f"/api/agent/{thread_id}/execute"
            return await http.post(url, json=body, headers={"Idempotency-Key": key})

        # The freeze comes at whatever point of the request it happens to.
        for number in range(8):
            posts = [asyncio.create_task(execute(f"{number}-{place}")) for place in range(3)]
            await asyncio.sleep(0.004 * number)
            with line.redis.frozen():
                statuses = {answer.status_code for answer in await asyncio.gather(*posts)}
            assert statuses <= {202, 503}

            async def taken(key: str) -> bool:
                return (await execute(key)).status_code == 202

            for place in range(3):
                await until(lambda key=f"{number}-{place}": taken(key), what="the repeated execute")  # type: ignore[misc]

        async def ended() -> bool:
            return all(run.status == "finished" for run in (await client.runs(thread_id)).items)

        await until(ended, timeout_s=60, what="every run to finish")
        tasks = [run.task for run in (await client.runs(thread_id)).items]
        assert sorted(tasks) == sorted(script({"text": f"{n}-{place}"}) for n in range(8) for place in range(3))
        log = (await http.get(f"/api/agent/{thread_id}/events", params={"limit": 1000})).json()["items"]
        assert sum(event["type"] == "run.queued" for event in log) == len(tasks)


async def test_a_gateway_that_was_frozen_itself_does_not_blame_redis(line: Line) -> None:
    line.start()
    gateway = line.alive("gateway")[0]
    async with client_of(line) as client:
        thread_id = await client.initiate()
        for _ in range(3):
            gateway.kill(signal.SIGSTOP)
            await asyncio.sleep(1.5)  # longer than Redis may be silent
            gateway.kill(signal.SIGCONT)
            async with httpx.AsyncClient(base_url=line.url, trust_env=False, timeout=10) as http:
                assert (await http.get(f"/api/agent/{thread_id}")).status_code == 200
    assert "stands still" not in gateway.log()


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


async def test_a_worker_that_starts_while_redis_is_full_works_as_soon_as_there_is_room(line: Line) -> None:
    line.redis.start()
    line.gateway()
    async with client_of(line) as client:
        with line.redis.client() as redis:
            redis.config_set("maxmemory", "1mb")
            worker = line.worker()

            async def meets_it_twice() -> bool:
                return worker.log().count("command not allowed when used memory") > 1 or worker.popen.poll() is not None

            await until(meets_it_twice, timeout_s=30, what="the worker to meet a full Redis")
            redis.config_set("maxmemory", "0")
        run = await client.execute(await client.initiate(), script({"text": "There is room."}))
        assert (await watch(client, run.run_id, timeout_s=10))[-1].type == "run.finished"
    assert worker.popen.poll() is None, worker.log()


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
