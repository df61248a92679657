"""The operator's desk in the terminal, on the whole of Dialtone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dialtone import Client, Forbidden, desk
from dialtone.cli import main
from dialtone.desk_view import age, bars, size
from tests.client.real_stack import call, real_stack, script
from tests.console.test_sign_in import new_key
from tests.until import until_sync

pytestmark = pytest.mark.timeout(120)

FOR_EVER = script({"tool_calls": [call("bash", command="sleep 600")]})


@pytest.fixture
def client(stack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("DIALTONE_URL", stack)
    monkeypatch.setenv("NO_COLOR", "1")
    with Client(stack) as client:
        _end_all(client)
        yield client
        _end_all(client)
        for worker in client.send(desk.overview()).workers:
            client.send(desk.undrain(worker.worker))


def _end_all(client: Client) -> None:
    """Leaves no run open, whoever began it."""
    client.send(desk.cancel(tenant="local"))
    until_sync(lambda: client.send(desk.overview()).runs.open == 0, timeout_s=30, what="all runs to end")


def start(client: Client, task: str = FOR_EVER, *, status: str = "running") -> str:
    """A run that stands so."""
    run_id = client.execute(client.initiate(), task).run_id
    until_sync(lambda: client.run(run_id).status == status, timeout_s=30, what=f"the run to be {status}")
    return run_id


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What the command wrote."""
    capsys.readouterr()
    assert main(["desk", *arguments]) == status
    return capsys.readouterr().out


def test_the_desk_shows_how_everything_stands(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = start(client)
    text = printed(capsys)
    assert "1 at work, 0 wait for a worker" in text
    assert "worker    " in text and "gateway   " in text and "\x1b" not in text
    until_sync(
        lambda: json.loads(printed(capsys, "show", "--json"))["workers"][0]["running"] == 1, what="the worker's record"
    )
    assert run_id in printed(capsys, "runs", "--tenant", "local", "--status", "running")
    assert printed(capsys, "runs", "--status", "waiting") == ""
    assert json.loads(printed(capsys, "runs", "--json"))["run"]["run_id"] == run_id
    assert json.loads(printed(capsys, "--json", "runs"))["run"]["run_id"] == run_id
    assert json.loads(printed(capsys, "--json"))["runs"]["open"] == 1


def test_many_runs_are_cancelled_by_what_they_have_in_common(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [start(client) for _ in range(3)]
    assert "3 runs cancelled" in printed(capsys, "cancel", "--status", "running", "--reason", "enough")
    until_sync(lambda: {client.run(run_id).status for run_id in runs} == {"cancelled"}, what="the runs to end")
    assert client.run(runs[0]).reason == "enough"
    printed(capsys, "cancel", status=2)


def test_what_was_not_done_is_told_by_the_exit_status(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = start(client)
    printed(capsys, "cancel", run_id, "--tenant", "another", status=2)
    assert client.run(run_id).status == "running"
    assert "1 runs cancelled, 1 unknown" in printed(capsys, "cancel", run_id, f"{run_id}0", status=1)


def test_a_configuration_that_does_not_hold_is_told_by_the_exit_status_of_a_reload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_stack(tmp_path) as url:
        monkeypatch.setenv("DIALTONE_URL", url)
        assert "configuration " in printed(capsys, "reload")
        (tmp_path / "config.toml").write_text("[agent]\nmax_turns = 0\n")
        assert "agent.max_turns" in printed(capsys, "reload", status=1)


def test_a_worker_is_drained_its_run_requeued_and_it_takes_runs_again(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = start(client)
    worker = client.send(desk.overview()).workers[0].worker
    printed(capsys, "drain", worker)
    until_sync(lambda: "DRAINED by local@local" in printed(capsys), timeout_s=30, what="the drain")
    assert "every worker is being drained" in printed(capsys, "requeue", run_id)
    printed(capsys, "undrain", worker)
    until_sync(lambda: client.run(run_id).status == "running", timeout_s=30, what="the run to go on")
    printed(capsys, "drain", "nobody:1:ff", status=1)


def test_a_blocked_tenant_is_told_why(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 runs cancelled" in printed(capsys, "block", "local", "--reason", "it mines coins", "--cancel-runs")
    try:
        assert "local  by local@local: it mines coins" in printed(capsys, "blocked")
        with pytest.raises(Forbidden, match="it mines coins") as refused:
            client.execute(client.initiate(), "go")
        assert refused.value.code == "tenant_blocked"
    finally:
        printed(capsys, "unblock", "local")
    assert printed(capsys, "blocked") == ""


def test_costs_and_history_show_what_was_done(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    start(client, script({"text": "Done."}), status="finished")
    until_sync(lambda: "scripted" in printed(capsys, "costs"), what="the costs")
    until_sync(lambda: "runs finished" in printed(capsys, "history", "--hours", "1"), what="the history")


def test_a_reload_says_what_every_process_made_of_it(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "reload").splitlines()
    assert [line.split()[0] for line in lines] == ["gateway", "worker"]
    assert all("configuration " in line for line in lines)


def test_without_the_operator_scope_the_desk_is_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_stack(tmp_path, DIALTONE_AUTH__MODE="on") as url:
        monkeypatch.setenv("DIALTONE_URL", url)
        monkeypatch.setenv("DIALTONE_KEY", new_key(tmp_path))
        assert main(["desk"]) == 1
        assert "lacks the scope `operator`" in capsys.readouterr().err


def test_numbers_are_short_and_bars_leave_out_what_is_unknown() -> None:
    assert [size(count) for count in (7, 1500, 2_000_000_000)] == ["7 B", "1.5 kB", "2.0 GB"]
    assert [age(ms) for ms in (5000, 65_000, 90_000_000)] == ["5 s", "1 min 5 s", "1 d 1 h"]
    assert bars([0, None, 4, 8], width=4) == "▁ ▅█"
    assert bars([1, 2, 3, 4], width=2) == "▅█"
