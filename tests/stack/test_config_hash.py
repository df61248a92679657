"""A run's configuration is the one that `./run.sh config print` shows, whatever `./run.sh` settles for its parts."""

import os
import subprocess
import sys
from pathlib import Path

from dialtone import Client
from tests.client.real_stack import real_stack, script


def test_a_run_shows_the_hash_that_config_print_ends_with(tmp_path: Path) -> None:
    with real_stack(tmp_path) as url, Client(url) as client:
        thread_id = client.initiate()
        run_id = client.execute(thread_id, script({"text": "Hi."})).run_id
        started = next(item for item in client.stream(thread_id, run_id=run_id) if item.type == "run.started")
        record = client.run(run_id)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DIALTONE_", "REDIS_URL"))}
    printed = subprocess.run(
        [sys.executable, "-m", "scripts.config", "print"],
        env=environ | {"DIALTONE_CONFIG": str(tmp_path / "config.toml"), "DIALTONE_LLM__DEFAULT": "scripted"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.splitlines()[-1] == f"# hash {record.config_hash}"
    assert getattr(started, "config_hash", "") == record.config_hash
