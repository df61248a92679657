"""Rates, streams and sizes per caller, and what happens to them when Redis is away."""

import asyncio
from pathlib import Path

import httpx
import pytest

from gateway.app import create_app
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway, make_settings
from tests.redis_server import RedisServer
from tests.until import until
from workflow.core.config import Settings
from workflow.core.errors import ConfigError


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    limits = {"requests_per_minute": 20, "executes_per_minute": 3, "max_streams_per_tenant": 2}
    return make_settings(redis_url, tmp_path, limits=limits)


async def test_too_many_executes_are_told_when_to_come_back(http: httpx.AsyncClient) -> None:
    thread = (await http.post("/api/agent/initiate")).json()["thread_id"]
    for left in (2, 1, 0):
        answer = await http.post(f"/api/agent/{thread}/execute", json={"task": "go"})
        assert answer.status_code == 202
        assert answer.headers["ratelimit-policy"] == '"executes";q=3;w=60'
        assert answer.headers["ratelimit"].startswith(f'"executes";r={left};t=')
    answer = await http.post(f"/api/agent/{thread}/execute", json={"task": "go"})
    assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert answer.headers["ratelimit"].startswith('"executes";r=0;')
    assert (await http.get(f"/api/agent/{thread}")).status_code == 200


async def test_requests_have_a_rate_of_their_own(http: httpx.AsyncClient) -> None:
    statuses = [(await http.get("/api/agent")).status_code for _ in range(22)]
    assert statuses[:20] == [200] * 20
    assert 429 in statuses[20:]
    assert (await http.get("/health")).status_code == 200


async def test_a_route_may_have_a_rate_of_its_own(redis_url: str, tmp_path: Path) -> None:
    limits = {"requests_per_minute": 20, "routes": {"GET /api/agent/{thread_id}/state": 2}}
    async with (
        Gateway(make_settings(redis_url, tmp_path, limits=limits)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):
        thread = (await http.post("/api/agent/initiate")).json()["thread_id"]
        path = f"/api/agent/{thread}/state"
        answers = [await http.get(path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        policy = '"GET /api/agent/{thread_id}/state";q=2;w=60'
        assert answers[0].headers["ratelimit-policy"] == f'{policy}, "requests";q=20;w=60'
        assert answers[2].headers["ratelimit"].startswith('"GET /api/agent/{thread_id}/state";r=0;')
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        left = (await http.get(f"/api/agent/{thread}")).headers["ratelimit"]
        assert left.startswith('"requests";r=16;')  # what the route refused cost nothing else


def test_a_rate_of_a_route_that_does_not_exist_stops_the_start(tmp_path: Path) -> None:
    limits = {"routes": {"GET /api/agent/{thread}/state": 2}}
    with pytest.raises(
        ConfigError, match=r"limits.routes: there is no .* did you mean 'GET /api/agent/\{thread_id\}/state'"
    ):
        create_app(make_settings("unix:///nowhere", tmp_path, limits=limits))


async def test_tenant_cannot_open_more_streams_than_its_share(gateway: Gateway, http: httpx.AsyncClient) -> None:
    thread = (await http.post("/api/agent/initiate")).json()["thread_id"]
    url = f"{gateway.url}/api/agent/{thread}/stream"
    async with await Reader.open(url) as one, await Reader.open(url) as two:
        assert (one.status, two.status) == (200, 200)
        answer = await http.get(f"/api/agent/{thread}/stream")
        assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")
        assert "retry-after" in answer.headers


async def test_executes_are_refused_and_nothing_half_made_while_redis_is_away(tmp_path: Path) -> None:
    server = RedisServer()
    server.start()
    try:
        settings = make_settings(server.url, tmp_path, limits={"requests_per_minute": 100, "executes_per_minute": 100})
        async with (
            Gateway(settings) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
        ):
            thread = (await http.post("/api/agent/initiate")).json()["thread_id"]
            await asyncio.to_thread(server.sync)
            server.kill()
            answer = await http.post(f"/api/agent/{thread}/execute", json={"task": "go"})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.json()["retryable"] is True
            assert answer.headers["retry-after"] == "1"
            await asyncio.to_thread(server.start)

            async def is_back() -> bool:
                return (await http.get("/health")).status_code == 200

            await until(is_back, what="the gateway to see it")
            kept = (await http.get(f"/api/agent/{thread}/runs")).json()
            assert kept == {"items": [], "next_cursor": None}
            assert (await http.post(f"/api/agent/{thread}/execute", json={"task": "go"})).status_code == 202
    finally:
        server.stop()
