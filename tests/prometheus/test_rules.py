"""Alerts and dashboard speak of figures that exist, and every alert says what to do."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.exposition import GAUGES, SHARED
from modem.meter import FIGURES
from scripts.gen_dashboard import main

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboard.json"
RUNBOOK = ROOT / "docs" / "runbook.md"


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    drawn = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [*drawn, *(alert["expr"] for alert in alerts())]


def exposed() -> set[str]:
    """Every sample name that /metrics can hold."""
    names = {"dialtone_redis_up", "dialtone_processes", *GAUGES, *SHARED}
    for figure in FIGURES:
        endings = ("_bucket", "_sum", "_count") if figure.kind == "histogram" else ("_total",)
        names |= {figure.name + ending for ending in endings}
    return names


def test_alerts_and_dashboard_ask_for_figures_that_exist() -> None:
    asked = {name for expr in expressions() for name in re.findall(r"dialtone_\w+", expr)}
    assert len(asked) > 25
    assert asked - exposed() == set()


def test_alerts_and_dashboard_ask_for_labels_that_exist() -> None:
    known = {figure.name: set(figure.labels) for figure in FIGURES}
    for expr in expressions():
        for name, labels in re.findall(r"(dialtone_\w+)\{([^}]*)\}", expr):
            figure = re.sub(r"_(total|bucket)$", "", name)
            found = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
            assert found <= known.get(figure, {"component", "process"}), expr


def test_nothing_is_summed_over_gateways_that_all_tell_the_same() -> None:
    for expr in expressions():
        bare = re.sub(r"max (?:without \(instance\)|by \([\w, ]+\)) \(", "", expr)
        if bare == expr:
            assert expr.startswith("absent("), expr


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_has_a_meaning_and_a_cure(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/runbook.md has no section {name}"
    assert len(section[1]) > 120
    assert "**" in section[1]


def test_the_runbook_has_no_section_without_its_alert() -> None:
    assert set(re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == {a["alert"] for a in alerts()}


def test_links_of_the_runbook_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", RUNBOOK.read_text()):
        assert (RUNBOOK.parent / target).exists(), target


def test_the_dashboard_is_the_one_that_its_script_writes() -> None:
    assert main(["--check"]) == 0, "run: python -m scripts.gen_dashboard"


def test_panels_have_ids_of_their_own_and_lie_side_by_side() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian package `prometheus`)")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ],
    ids=" ".join,
)
def test_promtool_accepts(command: list[str]) -> None:
    ran = subprocess.run(["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SUCCESS" in ran.stdout
