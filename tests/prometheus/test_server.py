"""A real Prometheus scrapes the real line: every panel shows something, every rule can be evaluated."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dialtone.sync import Client
from tests.line import Line, bash, script
from tests.ports import free_port
from tests.until import until_sync
from workflow.core.events import ApprovalRequested

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus (Debian package of that name)"
)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Line() as line:
        yield line.start()


@pytest.fixture(scope="module")
def prometheus(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "docker" / "prometheus" / "alerts.yaml")],
        "scrape_configs": [{"job_name": "dialtone", "static_configs": [{"targets": [f"127.0.0.1:{line.port}"]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
                *(f"--web.listen-address={address}", "--log.level=warn"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=15)


def ask(prometheus: httpx.Client, expr: str) -> list[Any]:
    answer = prometheus.get("/api/v1/query", params={"query": expr}).json()
    assert answer["status"] == "success", f"{expr}: {answer}"
    found: list[Any] = answer["data"]["result"]
    return found


def ask_and_answer(client: Client) -> None:
    """A whole run: a command, a question that gets its answer, an end."""
    thread_id = client.initiate()
    question = {"name": "ask_person", "arguments": {"question": "Go on?"}}
    run = client.execute(thread_id, script(bash("true"), {"text": "", "tool_calls": [question]}, {"text": "Done."}))
    items = client.stream(thread_id, run_id=run.run_id)
    asked = next(item for item in items if isinstance(item, ApprovalRequested))
    client.answer(thread_id, asked.question_id, "yes")
    list(client.stream(thread_id, run_id=run.run_id))


@pytest.mark.timeout(90)
def test_every_panel_shows_something_and_no_rule_fails(line: Line, prometheus: httpx.Client) -> None:
    with Client(line.url) as client:

        def serving() -> bool:
            try:
                return prometheus.get("/-/ready").status_code == 200
            except httpx.HTTPError:
                return False

        until_sync(serving, timeout_s=20, what="Prometheus to serve")
        until_sync(lambda: ask(prometheus, "dialtone_redis_up"), timeout_s=20, what="the first scrape")

        def counted() -> bool:
            # One more run each time: a counter has no rate until it rises between two scrapes that both saw it.
            ask_and_answer(client)
            return bool(ask(prometheus, "rate(dialtone_run_seconds_count[10s]) > 0"))

        until_sync(counted, timeout_s=40, what="a rate of ended runs")
    panels = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            assert ask(prometheus, target["expr"].replace("$__rate_interval", "15s")), panel["title"]
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 20
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] == "err"} == {}
    assert not [rule["name"] for rule in rules if rule["state"] == "firing"]


def test_promtool_finds_no_fault_with_the_exposition(line: Line) -> None:
    text = httpx.get(f"{line.url}/metrics", trust_env=False).text
    ran = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
