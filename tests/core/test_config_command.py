"""`./run.sh config` shows what is in force, from where, and never a secret."""

import json
from pathlib import Path

import pytest

from scripts import config


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('[gateway]\nport = 9000\n[llm.models.fast]\nmodel = "scripted"\n')
    monkeypatch.setenv("DIALTONE_CONFIG", str(path))
    monkeypatch.setenv("DIALTONE_AUTH__JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2")
    monkeypatch.setenv("REDIS_URL", "redis://me:hunter2@h:1/0")
    monkeypatch.delenv("ENV", raising=False)
    return path


def test_print_shows_values_and_sources_with_secrets_masked(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["print"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in shown.splitlines()}
    assert lines["gateway.port"][1:] == ["9000", "config.toml:2"]
    assert lines["gateway.host"][1:] == ['"127.0.0.1"', "default"]
    assert lines["redis.url"][1:] == ['"redis://me:********@h:1/0"', "environment", "REDIS_URL"]
    assert lines["auth.jwt_secret"][1:3] == ['"********"', "environment"]
    assert lines["llm.models.fast.model"][1:] == ['"scripted"', "config.toml:4"]
    assert "hunter2" not in shown


def test_print_is_the_default_and_can_be_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main([]) == 0
    assert "gateway.port" in capsys.readouterr().out
    assert config.main(["print", "--json", "--changed"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"key": "gateway.port", "value": 9000, "source": "config.toml:2"} in answer["keys"]
    assert len(answer["hash"]) == 12


def test_check_says_in_order_or_what_is_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["check"]) == 0
    assert "in order" in capsys.readouterr().out
    file.write_text("[gateway]\nprt = 1\n")
    assert config.main(["check"]) == config.EX_CONFIG
    assert "config.toml:2: gateway.prt: unknown key; did you mean gateway.port?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("gateway.port", ["port to listen on", ">= 1, <= 65_535", "8080", "9000", "config.toml:2", "needs a restart"]),
        ("agent.max_turns", ["takes effect from the next run on", "DIALTONE_AGENT__MAX_TURNS"]),
        ("limits.max_running_per_tenant", ["takes effect at once"]),
        ("runs.busy_policy", ['"enqueue" | "reject"']),
        ("auth.jwt_secret", ["never from config.toml", "********"]),
        ("llm.models.fast.vision", ["DIALTONE_LLM__MODELS__FAST__VISION"]),
        ("gateway.cors_origins", ["(as JSON)"]),
    ],
)
def test_explain_tells_all_about_a_key(key: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["explain", key]) == 0
    shown = capsys.readouterr().out
    for part in parts:
        assert part in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("gateway.prt", "did you mean gateway.port?"),
        ("gateway", "its keys: gateway.host"),
        ("port", "did you mean gateway.port?"),
        ("a b", "the file knows env"),
        ("", "the file knows env"),
        ("gateway.port.x", "did you mean gateway.port?"),
    ],
)
def test_explain_of_no_key_says_which_there_are(key: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["explain", key]) == 2
    assert hint in capsys.readouterr().err
