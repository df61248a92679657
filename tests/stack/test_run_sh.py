"""`run.sh` itself: its commands from any folder, and what it says when it cannot go on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.bench import bench
from tests.stack.conftest import Launch, gone
from workflow.runner.recording import record

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "run.sh"


def installed(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """`environ` with an environment that is this one under another name and passes for installed: uv is not needed."""
    bin_folder = folder / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    python = bin_folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    locked = (ROOT / "uv.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    stamp = subprocess.run(["cksum"], input=locked, capture_output=True, check=True).stdout.decode().strip()
    (folder / "venv" / ".dialtone-installed").write_text(f"dev {stamp}\n")
    return {**environ, "UV_PROJECT_ENVIRONMENT": str(folder / "venv")}


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return installed(environ, tmp_path)


def run(
    *arguments: str, environ: dict[str, str], cwd: Path | None = None, script: Path = RUN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *arguments], env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_names_every_command(environ: dict[str, str]) -> None:
    done = run("help", environ=environ)
    assert done.returncode == 0
    for command in (
        "demo",
        "gateway | modem",
        "config",
        "keys",
        "export",
        "replay",
        "sandbox check",
        "sandbox vm",
        "test",
        "check",
        "chaos | bench",
    ):
        assert f"./run.sh {command}" in done.stdout


def test_an_unknown_command_is_refused_with_the_list(environ: dict[str, str]) -> None:
    done = run("strat", environ=environ)
    assert done.returncode == 2
    assert "no command strat" in done.stderr
    assert "./run.sh demo" in done.stderr


async def test_replay_takes_files_of_the_callers_folder_and_code_of_none(
    environ: dict[str, str], tmp_path: Path
) -> None:
    subject = bench("All done.")
    await subject.attempt()
    (tmp_path / "run.jsonl").write_text("\n".join(record(subject.journal.events, subject.run_id).lines()))
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "replay.py").write_text("raise SystemExit('foreign code')")
    done = run("replay", "run.jsonl", environ=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the same\n")


def test_commands_work_from_any_folder_through_a_link(environ: dict[str, str], tmp_path: Path) -> None:
    done = run("config", "explain", "gateway.port", environ=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "DIALTONE_GATEWAY__PORT" in done.stdout


def test_a_relative_configuration_is_looked_up_where_the_caller_is(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[agent]\nmax_turns = 7\n")
    done = run("config", "print", "--changed", environ={**environ, "DIALTONE_CONFIG": "mine.toml"}, cwd=tmp_path)
    assert "mine.toml:2" in done.stdout


def test_a_wrong_configuration_stops_the_start_with_every_mistake(environ: dict[str, str]) -> None:
    Path(environ["DIALTONE_CONFIG"]).write_text('[gateway]\nprt = 1\n[log]\nlevel = "LOUD"\n')
    done = run(environ=environ)
    assert done.returncode == 78
    assert "config.toml:2: gateway.prt: unknown key; did you mean gateway.port?" in done.stderr
    assert "config.toml:4: log.level: must be" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_part_alone_without_a_redis_says_what_to_set(environ: dict[str, str]) -> None:
    done = run("modem", environ=environ)
    assert done.returncode == 1
    assert "set REDIS_URL" in done.stderr


def test_without_python_it_says_what_to_install(environ: dict[str, str], tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("bash", "env", "cat", "cksum", "dirname"):
        (bare / name).symlink_to(str(shutil.which(name)))
    shutil.rmtree(tmp_path / "venv")
    script = tmp_path / "clone" / "run.sh"
    script.parent.mkdir()
    for name in ("run.sh", "uv.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, script.parent)
    done = run("config", environ={**environ, "PATH": str(bare)}, script=script)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr


def test_an_installation_that_fails_says_so_and_leaves_no_stamp(environ: dict[str, str], tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no network" >&2\nexit 2\n')
    fake.chmod(0o755)
    stamp = tmp_path / "venv" / ".dialtone-installed"
    stamp.write_text("dev outdated\n")
    done = run("config", environ={**environ, "PATH": f"{fake.parent}:{environ['PATH']}"})
    assert done.returncode == 1
    assert "no network" in done.stderr
    assert "uv could not install the dependencies" in done.stderr
    assert stamp.read_text() == "dev outdated\n"


def test_development_packages_are_kept_by_a_run_and_asked_for_by_a_test(
    environ: dict[str, str], tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo "$@" >> {tmp_path}/calls\n')
    fake.chmod(0o755)
    stamp = tmp_path / "venv" / ".dialtone-installed"
    stamp.write_text(stamp.read_text().replace("dev", "run"))
    environ = {**environ, "PATH": f"{fake.parent}:{environ['PATH']}"}
    assert run("config", "check", environ=environ).returncode == 0
    assert not (tmp_path / "calls").exists()
    assert run("test", "--version", environ=environ).returncode == 0
    calls = (tmp_path / "calls").read_text()
    assert "sync" in calls
    assert "--frozen --inexact" in calls
    assert "--no-dev" not in calls
    assert stamp.read_text().startswith("dev ")


async def test_a_killed_run_sh_takes_the_installer_with_it(
    launch: Launch, environ: dict[str, str], tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho installing\nexec sleep 600\n')
    fake.chmod(0o755)
    (tmp_path / "venv" / ".dialtone-installed").unlink()
    beside = await launch(str(RUN), PATH=f"{fake.parent}:{environ['PATH']}")
    await beside.until("installing")
    family = beside.descendants()
    assert family
    beside.process.terminate()
    assert await gone(family, within_s=5) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
async def test_even_kill_takes_the_installer_with_it(launch: Launch, environ: dict[str, str], tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho installing\nexec sleep 600\n')
    fake.chmod(0o755)
    (tmp_path / "venv" / ".dialtone-installed").unlink()
    beside = await launch(str(RUN), PATH=f"{fake.parent}:{environ['PATH']}")
    await beside.until("installing")
    family = beside.descendants()
    os.kill(beside.process.pid, 9)
    assert await gone(family, within_s=5) == []


def test_the_supervisor_starts_without_what_takes_long_to_import() -> None:
    slow = ("litellm", "celery", "kombu", "typer", "rich", "httpx", "redis", "fastapi", "aiohttp")
    code = f"import sys, scripts.stack.__main__; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
