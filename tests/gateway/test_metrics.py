"""`/metrics` shows the whole installation, to those who may see it."""

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from modem.figures import Reporter
from modem.meter import TOOL_CALLS, TOOL_SECONDS, Meter
from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway, make_settings
from tests.redis_server import RedisServer
from tests.until import until
from workflow.core.config import Settings
from workflow.core.records import Scope


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Sample name and labels, without the process → value."""
    return {
        (
            sample.name,
            frozenset((name, value) for name, value in sample.labels.items() if name != "process"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(http: httpx.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await http.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain")
    return parsed(answer.text)


def labels(**pairs: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairs.items())


async def test_any_gateway_shows_what_a_worker_counted(
    gateway: Gateway, settings: Settings, worker: Worker, http: httpx.AsyncClient
) -> None:
    meter = Meter()
    meter.add(TOOL_CALLS, "bash", "ok", amount=2)
    meter.observe(TOOL_SECONDS, "bash", seconds=0.2)
    meter.observe(TOOL_SECONDS, "bash", seconds=40)
    reporter = Reporter(
        worker.connections, meter, process="w1", component="worker", gauges=lambda: {"dialtone_sandboxes": 3}
    )
    await reporter.report()
    async with (
        Gateway(settings) as second,
        httpx.AsyncClient(base_url=second.url, trust_env=False) as other,
    ):
        await scrape(other)  # so that it has reported
        for client in (http, other):
            seen = await scrape(client)
            assert seen["dialtone_tool_calls_total", labels(tool="bash", outcome="ok")] == 2
            assert seen["dialtone_tool_seconds_bucket", labels(tool="bash", le="0.1")] == 0
            assert seen["dialtone_tool_seconds_bucket", labels(tool="bash", le="0.25")] == 1
            assert seen["dialtone_tool_seconds_bucket", labels(tool="bash", le="+Inf")] == 2
            assert seen["dialtone_tool_seconds_sum", labels(tool="bash")] == 40.2
            assert seen["dialtone_sandboxes", labels(component="worker")] == 3
            assert seen["dialtone_processes", labels(component="worker")] == 1
            assert seen["dialtone_processes", labels(component="gateway")] == 2
    await reporter.leave()
    seen = await scrape(http)
    assert seen["dialtone_processes", labels(component="worker")] == 0
    assert ("dialtone_sandboxes", labels(component="worker")) not in seen
    assert seen["dialtone_tool_calls_total", labels(tool="bash", outcome="ok")] == 2


async def test_streams_frames_and_lag_are_shown(gateway: Gateway, worker: Worker, http: httpx.AsyncClient) -> None:
    thread = await worker.thread()
    turn = await worker.running(thread)
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream") as reader:

        async def live() -> bool:
            await turn.say("hello")
            return gateway.services.hub.delivered > 0

        await until(live, what="a live frame")
        seen = await scrape(http)
        assert reader.status == 200
        assert seen["dialtone_streams", labels(component="gateway")] == 1
        assert seen["dialtone_frames_delivered_total", labels()] >= 1
        assert 0 <= seen["dialtone_hub_lag_seconds", labels(component="gateway")] < 5
    await turn.finish()

    async def ended() -> bool:
        return any(name == "dialtone_streams_ended_total" for name, _ in await scrape(http))

    await until(ended, what="the stream to be counted as ended")


async def test_queues_are_shown_as_they_are(worker: Worker, http: httpx.AsyncClient) -> None:
    for _ in range(3):
        await worker.open(await worker.thread())
    seen = await scrape(http)
    assert seen["dialtone_runs_ready", labels()] == seen["dialtone_runs_open", labels()] == 3
    assert 0 <= seen["dialtone_runs_ready_oldest_seconds", labels()] < 5
    assert seen["dialtone_redis_memory_bytes", labels()] > 100_000


async def test_without_redis_metrics_still_say_so(tmp_path: Path) -> None:
    server = RedisServer()
    server.start()
    try:
        async with (
            Gateway(make_settings(server.url, tmp_path)) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
        ):
            assert (await scrape(http))["dialtone_redis_up", labels()] == 1
            server.kill()
            seen = await scrape(http)
            assert seen["dialtone_redis_up", labels()] == 0
            assert seen["dialtone_streams", labels(component="gateway")] == 0
    finally:
        server.stop()


async def test_metrics_are_for_operators_unless_asked_from_this_machine(redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(redis_url, tmp_path, auth={"mode": "on"})
    async with Gateway(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        assert (await http.get("/metrics")).status_code == 200
        outside = {"X-Forwarded-For": "203.0.113.9"}
        assert (await http.get("/metrics", headers=outside)).status_code == 401
        wanted: list[tuple[frozenset[Scope], int]] = [(frozenset({"read"}), 403), (frozenset({"operator"}), 200)]
        for scopes, status in wanted:
            key = gateway.services.auth._keys.new(tenant="acme", user="ops", scopes=scopes)
            headers = outside | {"Authorization": f"Bearer {key}"}
            assert (await http.get("/metrics", headers=headers)).status_code == status


async def test_metrics_can_be_switched_off(redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(redis_url, tmp_path, telemetry={"metrics": False})
    async with Gateway(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        assert (await http.get("/metrics")).status_code == 404
