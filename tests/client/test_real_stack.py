"""Both clients on the whole of Dialtone: embedded Redis, gateway, worker, scripted model, real commands."""

import io
import json
import signal
import zipfile
from pathlib import Path

import pytest

from dialtone import Client, Conflict, NotFound, StreamItem
from dialtone.cli import main
from dialtone.items import read_item
from dialtone.view import render
from tests.client.real_stack import call, script
from tests.client.test_cli import read_until, running
from workflow.core.events import ApprovalRequested, Delta, DeltaKind, EventBase, Message, ToolResulted

pytestmark = pytest.mark.timeout(120)

SHELL = script(
    {"text": "I print.", "tool_calls": [call("bash", command="for i in 1 2 3; do echo line $i; sleep 0.1; done")]},
    {"text": "All **done**.", "delay_ms": 20},
)


@pytest.fixture(autouse=True)
def _gateway(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_URL", stack)


def play(client: Client, task: str) -> tuple[str, list[StreamItem]]:
    """The run's id and everything that its stream gave."""
    thread_id = client.initiate(title="real")
    run = client.execute(thread_id, task)
    return run.run_id, list(client.stream(thread_id, run_id=run.run_id))


def texts(items: list[StreamItem], kind: DeltaKind) -> str:
    return "".join(item.text for item in items if isinstance(item, Delta) and item.kind is kind)


def test_a_run_streams_previews_and_facts_that_agree(stack: str) -> None:
    with Client(stack) as client:
        _run_id, items = play(client, SHELL)
    said = {str(item.item): item.text for item in items if isinstance(item, Message)}
    pieces = [item for item in items if isinstance(item, Delta) and item.kind is DeltaKind.TEXT]
    (result,) = [item for item in items if isinstance(item, ToolResulted)]
    assert list(said.values()) == ["I print.", "All **done**."]
    assert pieces and all(said[piece.item][piece.offset :].startswith(piece.text) for piece in pieces)
    assert texts(items, DeltaKind.STDOUT) in result.output
    assert items[-1].type == "run.finished"


def test_the_view_of_the_stream_is_the_view_of_the_log(stack: str) -> None:
    with Client(stack) as client:
        run_id, items = play(client, SHELL)
        thread_id = run_id.split(".")[0]
        facts: list[StreamItem] = list(client.events(thread_id, run_id=run_id))
    assert [item for item in items if isinstance(item, EventBase)] == facts
    live = render([item for item in items if item.type != "waiting"])
    assert live == render(facts)
    assert live.count("  │ line 2\n") == 1 and live.count("All **done**.") == 1


def test_a_stream_resumes_from_every_event_without_hole_or_repeat(stack: str) -> None:
    with Client(stack) as client:
        run_id, items = play(client, SHELL)
        thread_id = run_id.split(".")[0]
        ids = [item.id for item in items if isinstance(item, EventBase)]
        for index, last_id in enumerate(ids):
            rest = client.stream(thread_id, run_id=run_id, last_id=last_id, deltas=False)
            assert [item.id for item in rest if isinstance(item, EventBase)] == ids[index + 1 :]


def test_an_unknown_thread_is_not_found_and_a_foreign_cursor_resets(stack: str) -> None:
    with Client(stack) as client:
        run_id, _items = play(client, script({"text": "Hi."}))
        thread_id = run_id.split(".")[0]
        items = list(client.stream(thread_id, run_id=run_id, last_id="1-99999"))
        assert items[0].type == "reset"
        with pytest.raises(NotFound):
            client.thread("0" * 20)
        with pytest.raises(NotFound):
            next(client.stream("0" * 20))


def test_files_go_in_are_changed_by_the_agent_and_come_out(stack: str) -> None:
    with Client(stack) as client:
        thread_id = client.initiate()
        client.put_file(thread_id, "in put/ü.txt", content=b"one\n")
        run = client.execute(thread_id, script({"tool_calls": [call("bash", command="cat 'in put/ü.txt' >> out.txt")]}))
        _ = list(client.stream(thread_id, run_id=run.run_id))
        assert client.get_file(thread_id, "out.txt") == b"one\n"
        assert {entry.path for entry in client.files(thread_id, depth=3)} >= {"in put", "in put/ü.txt", "out.txt"}
        assert b"out.txt" in client.archive(thread_id)
        with zipfile.ZipFile(io.BytesIO(client.archive(thread_id, format="zip"))) as packed:
            assert packed.testzip() is None and packed.read("in put/ü.txt") == b"one\n"
        with zipfile.ZipFile(io.BytesIO(client.archive(thread_id, "in put", format="zip"))) as packed:
            assert packed.namelist() == ["ü.txt"]
        client.delete_file(thread_id, "out.txt")
        with pytest.raises(NotFound):
            client.get_file(thread_id, "out.txt")


def test_a_question_waits_for_its_answer(stack: str) -> None:
    ask = script(
        {"tool_calls": [call("ask_person", question="Which colour?", choices=["red", "blue"])]}, {"text": "Ok."}
    )
    with Client(stack) as client:
        thread_id = client.initiate()
        run = client.execute(thread_id, ask)
        types: list[str] = []
        for item in client.stream(thread_id, run_id=run.run_id, deltas=False):
            types.append(item.type)
            if isinstance(item, ApprovalRequested):
                question_id = item.question_id
                client.answer(thread_id, question_id, "blue")
        assert types[-1] == "run.finished" and "approval.resolved" in types
        with pytest.raises(Conflict):
            client.answer(thread_id, question_id, "red")


def test_steering_reaches_the_agent(stack: str) -> None:
    with Client(stack) as client:
        thread_id = client.initiate()
        run = client.execute(thread_id, script({"tool_calls": [call("bash", command="sleep 2")]}, {"text": "Ok."}))
        said: list[str] = []
        for item in client.stream(thread_id, run_id=run.run_id):
            if item.type == "tool.call":
                client.steer(run.run_id, "hurry up")
            if isinstance(item, Message) and item.origin == "person":
                said.append(item.text)
        assert said == ["hurry up"]


@pytest.mark.parametrize(
    ("task", "status"), [(script({"text": "Fine."}), 0), (script({"error": "refused"}), 1)], ids=["finished", "failed"]
)
def test_the_exit_status_of_run_tells_its_end(capsys: pytest.CaptureFixture[str], task: str, status: int) -> None:
    assert main(["run", task]) == status
    assert "\x1b" not in capsys.readouterr().out


def test_ctrl_c_ends_a_command_that_runs_for_ever(stack: str) -> None:
    with running("run", script({"tool_calls": [call("bash", command="echo begun; sleep 600")]})) as (process, out):
        read_until(out, "begun")
        process.send_signal(signal.SIGINT)
        assert "■ cancelled" in read_until(out, "$")
        assert process.wait(10) == 3


def test_an_exported_run_replays_as_it_was_shown(
    stack: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", SHELL]) == 0
    header, live = capsys.readouterr().out.split("\n", 1)
    file = tmp_path / "run.jsonl"
    assert main(["export", header.split()[1], "-o", str(file)]) == 0
    assert main(["replay", str(file)]) == 0
    replayed = capsys.readouterr().out
    assert replayed == "".join(line for line in live.splitlines(keepends=True) if "waiting" not in line)
    assert [read_item(line).type for line in file.read_text().splitlines()][-1] == "run.finished"
    assert json.loads(file.read_text().splitlines()[0])["type"] == "run.queued"
