"""Writes docker/grafana/dashboard.json from the panels below: `python -m scripts.gen_dashboard [--check]`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "docker" / "grafana" / "dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def _all(metric: str, labels: str = "") -> str:
    """A gauge as all gateways tell it."""
    return f"max without (instance) ({metric}{labels})"


def _rate(metric: str, labels: str = "") -> str:
    """A counter per second; all gateways tell the same totals."""
    return f"max without (instance) (rate({metric}{labels}[$__rate_interval]))"


def _quantile(share: float, histogram: str, by: str = "") -> str:
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({group}) ({_rate(f'{histogram}_bucket')}))"


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are legend → expression."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"

    def as_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "datasource": SOURCE,
            "gridPos": {"h": 4 if self.kind == "stat" else 8, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if self.kind != "stat" else {},
            "targets": [
                {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
                for place, (legend, expr) in enumerate(self.queries.items())
            ],
        }


def _stat(title: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, {"": expr}, unit, width=4, kind="stat")


ROWS: dict[str, list[Panel]] = {
    "Now": [
        _stat("Redis", _all("dialtone_redis_up"), "bool_on_off"),
        _stat("Workers", _all("dialtone_processes", '{component="worker"}')),
        _stat("Runs under way", f"sum({_all('dialtone_runs_running')})"),
        _stat("Waiting for a worker", _all("dialtone_runs_ready")),
        _stat("Open streams", f"sum({_all('dialtone_streams')})"),
        _stat(
            "Money, last hour",
            "sum(max without (instance) (increase(dialtone_model_cost_usd_total[1h])))",
            "currencyUSD",
        ),
    ],
    "Runs": [
        Panel("Ended", {"{{outcome}} {{reason}}": _rate("dialtone_runs_ended_total")}, "ops"),
        Panel(
            "Places",
            {
                "taken": f"sum({_all('dialtone_runs_running')})",
                "there are": f"sum({_all('dialtone_runs_capacity')})",
                "wanted": _all("dialtone_runs_ready"),
                "not ended": _all("dialtone_runs_open"),
            },
        ),
        Panel(
            "How long",
            {
                "run, half": _quantile(0.5, "dialtone_run_seconds"),
                "run, 95 %": _quantile(0.95, "dialtone_run_seconds"),
                "wait for the start, 95 %": _quantile(0.95, "dialtone_run_wait_seconds"),
                "longest wait now": _all("dialtone_runs_ready_oldest_seconds"),
            },
            "s",
        ),
        Panel("Went on elsewhere", {"{{reason}}": _rate("dialtone_takeovers_total")}, "ops"),
        Panel("Questions to people", {"{{kind}}": _rate("dialtone_questions_total")}, "ops"),
        Panel("Turns", {"turns": _rate("dialtone_turns_total")}, "ops"),
    ],
    "Models": [
        Panel("Calls", {"{{model}}": _rate("dialtone_model_calls_total")}, "ops"),
        Panel("Tokens", {"{{model}} {{class}}": _rate("dialtone_model_tokens_total")}),
        Panel("Money per hour", {"{{model}}": f"3600 * {_rate('dialtone_model_cost_usd_total')}"}, "currencyUSD"),
        Panel("One answer, 95 %", {"{{model}}": _quantile(0.95, "dialtone_model_seconds", "model")}, "s"),
        Panel("Retries and other trouble", {"{{code}}": _rate("dialtone_notices_total")}, "ops"),
        Panel(
            "Prompt tokens read from a cache",
            {
                "{{model}}": "sum by (model) ("
                + _rate("dialtone_model_tokens_total", '{class="cache_read"}')
                + ") / sum by (model) ("
                + _rate("dialtone_model_tokens_total", '{class!="output"}')
                + ")"
            },
            "percentunit",
        ),
    ],
    "Tools and sandboxes": [
        Panel("Calls", {"{{tool}} {{outcome}}": _rate("dialtone_tool_calls_total")}, "ops"),
        Panel("One call, 95 %", {"{{tool}}": _quantile(0.95, "dialtone_tool_seconds", "tool")}, "s"),
        Panel("Live sandboxes", {"{{process}}": _all("dialtone_sandboxes")}),
    ],
    "Gateways": [
        Panel("Requests", {"{{method}} {{status}}": _rate("dialtone_requests_total")}, "reqps"),
        Panel("Streams", {"{{process}}": _all("dialtone_streams")}),
        Panel("Frames delivered", {"frames": _rate("dialtone_frames_delivered_total")}, "ops"),
        Panel("Streams ended", {"{{reason}}": _rate("dialtone_streams_ended_total")}, "ops"),
        Panel("Append to arrival, worst", {"{{process}}": _all("dialtone_hub_lag_seconds")}, "s"),
        Panel("Threads followed", {"{{process}}": _all("dialtone_feeds")}),
    ],
    "Processes, Redis, webhooks": [
        Panel("Event loop lag, worst", {"{{component}} {{process}}": _all("dialtone_loop_lag_seconds")}, "s"),
        Panel("Memory", {"{{component}} {{process}}": _all("dialtone_memory_bytes")}, "bytes"),
        Panel(
            "Redis memory",
            {"used": _all("dialtone_redis_memory_bytes"), "limit": _all("dialtone_redis_memory_limit_bytes")},
            "bytes",
        ),
        Panel("Webhook deliveries", {"{{outcome}}": _rate("dialtone_webhook_attempts_total")}, "ops", width=12),
        Panel(
            "Webhook notices",
            {"to be delivered": _all("dialtone_webhooks_pending"), "dead": _all("dialtone_webhooks_dead")},
            width=12,
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": []}
            | {"gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}}
        )
        y, x, height = y + 1, 0, 0
        for panel in row:
            if x + panel.width > COLUMNS:
                y, x = y + height, 0
            panels.append(panel.as_json(len(panels) + 1, x, y))
            x, height = x + panel.width, panels[-1]["gridPos"]["h"]
        y += height
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    return {
        "uid": "dialtone",
        "title": "Dialtone",
        "tags": ["dialtone"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": [source]},
        "annotations": {"list": []},
        "panels": panels,
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status 1: `--check` and the file is out of date."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in (sys.argv[1:] if argv is None else argv):
        return 0 if FILE.exists() and FILE.read_text(encoding="utf-8") == text else 1
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text, encoding="utf-8")
    print(f"wrote {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
