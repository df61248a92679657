"""Traces, figures and error reports of the whole line: real processes, a real collector, real sockets."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.collector import Collector, Seen
from tests.line import Line, bash, script
from tests.until import until

CANARY = "canary-4711-never-leaves"
SECRET = "s3cr3t-value-of-a-provider"

PLUGIN = """
from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput


class Args(ToolArgs):
    pass


class Broken(Tool[Args]):
    name = "broken"
    description = "Has a bug."
    effect = Effect.PURE

    async def run(self, args: Args, context: ToolContext) -> ToolOutput:
        raise ValueError("the key SECRET was not accepted")
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def watched(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    plugins: Path = tmp_path_factory.mktemp("plugins")
    (plugins / "broken.py").write_text(PLUGIN.replace("SECRET", SECRET))
    with Line(
        settings={
            "DIALTONE_RUNS__LEASE_S": "2",
            "DIALTONE_ENV": "dev",
            "DIALTONE_TELEMETRY__OTLP_ENDPOINT": collector.url,
            "DIALTONE_TELEMETRY__SENTRY_DSN": collector.dsn,
            "DIALTONE_TOOLS__PLUGIN_FOLDER": str(plugins),
            "SOME_PROVIDER_KEY": SECRET,
        }
    ) as line:
        yield line.start()


@pytest.fixture
async def http(watched: Line) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=watched.url, trust_env=False, timeout=10) as client:
        yield client


async def start(http: httpx.AsyncClient, task: str, **headers: str) -> tuple[str, str]:
    """A new thread's path and its run."""
    path = f"/api/agent/{(await http.post('/api/agent/initiate')).json()['thread_id']}"
    accepted = await http.post(f"{path}/execute", json={"task": task}, headers=headers)
    return path, accepted.json()["run_id"]


async def ended(http: httpx.AsyncClient, path: str, run_id: str) -> dict[str, Any]:
    """The run's record when it has ended."""

    async def look() -> dict[str, Any] | None:
        record: dict[str, Any] = (await http.get(f"{path}/runs/{run_id}")).json()
        return record if record["status"] in {"finished", "failed", "cancelled"} else None

    record = await until(look, timeout_s=30, what="the run to end")
    assert record is not None
    return record


def of_run(collector: Collector, run_id: str) -> Seen | None:
    """The last attempt's span of a run."""
    return next((s for s in reversed(collector.spans) if s.attributes.get("dialtone.run.id") == run_id), None)


async def test_one_trace_leads_from_the_request_to_the_tool(http: httpx.AsyncClient, collector: Collector) -> None:
    path, run_id = await start(http, script(bash(f"echo {CANARY}"), {"text": CANARY}, task=CANARY))
    record = await ended(http, path, run_id)
    collector.wait(lambda: of_run(collector, run_id) is not None, what="the run's span")
    run = of_run(collector, run_id)
    assert run is not None
    spans = [span for span in collector.spans if span.trace_id == run.trace_id]
    request = next(span for span in spans if span.span_id == run.parent_id)
    chats = [span for span in spans if span.name == "chat scripted"]
    (tool,) = [span for span in spans if span.name == "execute_tool bash"]
    assert (request.name, request.service) == ("POST /api/agent/{thread_id}/execute", "dialtone-gateway")
    assert (run.name, run.service, run.status) == ("invoke_agent dialtone", "dialtone-worker", 0)
    assert {span.parent_id for span in (*chats, tool)} == {run.span_id}
    assert len(chats) == 2
    assert run.attributes["gen_ai.conversation.id"] == path.rpartition("/")[2]
    assert run.attributes["dialtone.run.outcome"] == "finished"
    assert run.attributes["gen_ai.usage.output_tokens"] == record["usage"]["output_tokens"]
    assert chats[0].attributes["gen_ai.operation.name"] == "chat"
    assert chats[0].attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert tool.attributes["gen_ai.tool.name"] == "bash"
    assert record["trace"].split("-")[1] == run.trace_id
    assert CANARY.encode() not in b"".join(collector.bodies)  # neither the task, nor the answer, nor what was printed


async def test_a_callers_own_trace_goes_on(http: httpx.AsyncClient, collector: Collector) -> None:
    mine = "0af7651916cd43dd8448eb211c80319c"
    _, run_id = await start(http, script({"text": "Done."}), traceparent=f"00-{mine}-b7ad6b7169203331-01")
    collector.wait(lambda: of_run(collector, run_id) is not None, what="the run's span")
    run = of_run(collector, run_id)
    assert run is not None
    assert run.trace_id == mine


async def test_a_run_that_was_taken_over_stays_in_its_trace(
    watched: Line, http: httpx.AsyncClient, collector: Collector
) -> None:
    path, run_id = await start(http, script(bash("sleep 1"), {"text": "Done."}))

    async def running() -> bool:
        events = (await http.get(f"{path}/events")).json()["items"]
        return any(event["type"] == "tool.call" for event in events)

    await until(running, what="the tool to run")
    for worker in watched.alive("worker"):
        worker.kill(signal.SIGKILL)
    watched.worker()

    async def asked() -> str:
        events = (await http.get(f"{path}/events")).json()["items"]
        ids = [event["question_id"] for event in events if event["type"] == "approval.requested"]
        return ids[0] if ids else str((await http.get(f"{path}/runs/{run_id}")).json()["status"] == "finished" or "")

    question = await until(asked, timeout_s=30, what="the takeover")
    if question != "True":
        await http.post(f"{path}/questions/{question}/answer", json={"answer": "done"})
    record = await ended(http, path, run_id)
    collector.wait(lambda: (s := of_run(collector, run_id)) is not None and "finished" in s.attributes.values())
    run = of_run(collector, run_id)
    assert run is not None
    assert run.attributes["dialtone.run.attempt"] >= 2
    assert run.trace_id == record["trace"].split("-")[1]


async def test_a_bug_is_reported_once_with_its_ids_and_without_secrets(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    path, run_id = await start(http, script({"text": "", "tool_calls": [{"name": "broken", "arguments": {}}]}))
    record = await ended(http, path, run_id)
    assert (record["status"], record["reason"]) == ("failed", "internal")
    collector.wait(lambda: bool(collector.reports), what="the report")
    (report,) = collector.reports
    assert report["tags"]["run_id"] == run_id
    assert (report["tags"]["component"], report["environment"]) == ("worker", "dev")
    values = report["exception"]["values"]
    assert "ValueError" in {value["type"] for value in values}
    assert SECRET.encode() not in b"".join(collector.bodies)
    assert all("vars" not in frame for value in values for frame in value["stacktrace"]["frames"])
    collector.wait(lambda: of_run(collector, run_id) is not None, what="the run's span")
    run = of_run(collector, run_id)
    assert run is not None
    assert (run.status, run.attributes["error.type"]) == (2, "internal")


async def test_figures_of_the_run_are_at_the_gateways_metrics(http: httpx.AsyncClient) -> None:
    path, run_id = await start(http, script(bash("true"), {"text": "Done."}))
    await ended(http, path, run_id)

    async def figures() -> dict[str, float]:
        text = (await http.get("/metrics")).text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = "".join(f"|{v}" for k, v in sorted(sample.labels.items()) if k not in {"process", "le"})
                found[sample.name + labels] = sample.value
        return found

    async def counted() -> dict[str, float]:
        seen = await figures()  # the runs of other tests are counted here too, and may have made one call each
        is_all = seen.get("dialtone_runs_ended_total|finished|", 0) >= 1
        return seen if is_all and seen.get("dialtone_model_calls_total|scripted", 0) >= 2 else {}

    seen = await until(counted, what="the run to be counted")
    assert seen["dialtone_tool_calls_total|ok|bash"] >= 1
    assert seen["dialtone_model_tokens_total|output|scripted"] > 0
    assert seen["dialtone_run_wait_seconds_count"] >= 1
    assert seen["dialtone_run_seconds_count"] >= 1
    assert seen["dialtone_processes|worker"] >= 1
    assert seen["dialtone_sandboxes|worker"] >= 1
    assert seen["dialtone_requests_total|POST|202"] >= 1
    assert seen["dialtone_memory_bytes|gateway"] > 1_000_000
