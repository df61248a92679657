"""What a process loads before it has anything to do: each package named here is megabytes in every one of them."""

import subprocess
import sys

import pytest

GATEWAY = "from gateway import app, server; app.create_app(Settings(redis=RedisSettings(url='redis://127.0.0.1:1')))"
WORKER = "import modem.worker, modem.tasks.runs"
MODELS = "litellm", "openai", "e2b", "daytona", "mcp", "httpx"
SELDOM = "cryptography.hazmat", "sentry_sdk", "opentelemetry.exporter", "trafilatura"


@pytest.mark.parametrize(
    ("start", "unwanted"),
    [
        (
            GATEWAY,
            (*MODELS, *SELDOM, "workflow.llm", "workflow.tools", "celery", "aiohttp", "prometheus_client", "jwt"),
        ),
        (WORKER, (*MODELS, *SELDOM, "fastapi", "starlette", "uvicorn", "charset_normalizer", "json_repair")),
    ],
    ids=["gateway", "worker"],
)
def test_a_start_loads_only_what_every_such_process_needs(start: str, unwanted: tuple[str, ...]) -> None:
    program = f"""
import sys
from workflow.core.config import RedisSettings, Settings
{start}
print(*sorted(name for name in sys.modules if any(f"{{name}}.".startswith(f"{{one}}.") for one in {unwanted})))
"""
    answer = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert answer.stdout.split() == []
