"""A real run, exported through the gateway and played again from its file."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dialtone.client import AsyncClient
from tests.line import ROOT, Line, bash, script
from workflow.core.config import Settings
from workflow.core.events import PreviewExposed, ToolResulted
from workflow.llm.cassette import Cassette
from workflow.runner.replay import replay


def run_script(name: str, *arguments: str, line: Line) -> subprocess.CompletedProcess[str]:
    """`./run.sh export` and `replay`, as run.sh starts them."""
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", *arguments],
        cwd=ROOT,
        env=line.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


async def exported(line: Line, client: AsyncClient, folder: Path, task: str) -> Path:
    """The file of a finished run of `task`."""
    thread_id = await client.initiate()
    run = await client.execute(thread_id, task)
    async for _ in client.stream(thread_id, run_id=run.run_id):
        pass
    file = folder / "run.jsonl"
    done = run_script("export", run.run_id, "--url", line.url, "-o", str(file), line=line)
    assert done.returncode == 0, done.stderr
    return file


async def test_the_demo_run_is_played_again_without_a_gateway(line: Line, client: AsyncClient, tmp_path: Path) -> None:
    file = await exported(line, client, tmp_path, "Print the first seven primes\u2028and \x85 odd line ends")
    replayed = run_script("replay", str(file), line=line)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert replayed.stdout.endswith("the same\n")
    found = json.loads(run_script("replay", str(file), "--json", line=line).stdout)
    assert found["same"] is True
    assert found["recorded"]["status"] == found["replayed"]["status"] == "finished"
    assert any(name.startswith("demo/primes.py") for name in found["replayed"]["files"])


async def test_the_links_of_previews_in_a_cassette_lead_nowhere(
    line: Line, client: AsyncClient, tmp_path: Path
) -> None:
    serve = bash("exec python3 -m http.server 8124", background=True)
    expose = {"text": "", "tool_calls": [{"name": "url_expose", "arguments": {"port": 8124}}]}
    thread_id = await client.initiate()
    first = await client.execute(thread_id, script(serve, expose, expose, {"text": "Look."}))
    events = [event async for event in client.stream(thread_id, run_id=first.run_id)]
    links = [event.url for event in events if isinstance(event, PreviewExposed)]
    secrets = [urlsplit(link).netloc.partition(".")[0] for link in links]
    assert len(set(secrets)) == 2
    second = await client.execute(thread_id, script({"text": f"{links[1]}docs or {secrets[0].upper()}"}))
    _ = [event async for event in client.stream(thread_id, run_id=second.run_id)]
    for run, parts in ((first, ("http://preview-1.", "http://preview-2.")), (second, ("preview-2.", " or preview-1"))):
        file = tmp_path / "run.jsonl"
        assert run_script("export", run.run_id, "--url", line.url, "-o", str(file), line=line).returncode == 0
        text = file.read_text()
        assert not [secret for secret in secrets if secret in text.lower()]
        assert all(part in text for part in parts)
        replayed = run_script("replay", str(file), line=line)
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr


async def test_a_live_model_runs_its_commands_in_a_sandbox_of_its_own(
    line: Line, client: AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "given.txt").write_text("given")
    task = script(bash("cat given.txt 2>/dev/null || echo nothing"), {"text": "Done."})
    file = await exported(line, client, tmp_path, task)
    live = run_script("replay", str(file), "--model", "scripted", "--json", line=line)
    assert json.loads(live.stdout)["same"] is True, live.stdout + live.stderr
    cassette = Cassette.read(file.read_text().split("\n"))
    replayed = await replay(
        cassette, Settings(), environ={}, model="scripted", tools="sandbox", workspace=tmp_path / "files"
    )
    (result,) = [event for event in replayed.events if isinstance(event, ToolResulted)]
    assert result.output.startswith("given\n")
    assert cassette.tools[0].output.startswith("nothing\n")


async def test_what_a_cassette_says_reaches_no_terminal_as_a_command(
    line: Line, client: AsyncClient, tmp_path: Path
) -> None:
    file = await exported(line, client, tmp_path, script({"text": "Done."}))
    file.write_text(file.read_text().replace('"summary":"Done."', '"summary":"\\u001b]0;title\\u0007"'))
    replayed = run_script("replay", str(file), line=line)
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    assert "title" in replayed.stdout and not {"\x1b", "\x07"} & set(replayed.stdout)


async def test_another_configuration_shows_in_the_comparison_and_the_exit_status(
    line: Line, client: AsyncClient, tmp_path: Path
) -> None:
    file = await exported(line, client, tmp_path, script(bash("true"), bash("true"), {"text": "Done."}))
    config = tmp_path / "config.toml"
    config.write_text("[agent]\nmax_turns = 2\n")
    replayed = run_script("replay", str(file), "--config", str(config), line=line)
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    assert "failed (budget_exceeded)" in replayed.stdout
    assert replayed.stdout.endswith("NOT the same\n")


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("export", ("0123.abcd",), 1),
        ("export", ("nonsense",), 2),
        ("replay", ("missing.jsonl",), 2),
        ("replay", ("README.md",), 2),
        ("replay", ("README.md", "--prompt", "missing.md"), 2),
    ],
)
def test_what_cannot_be_exported_or_played_is_said_in_one_line(
    line: Line, name: str, arguments: tuple[str, ...], status: int
) -> None:
    done = run_script(name, *arguments, line=line)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_export_says_that_there_is_no_gateway(line: Line) -> None:
    assert run_script("export", "0123.abcd", "--url", "http://127.0.0.1:1", line=line).returncode == 4
