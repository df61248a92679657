"""The terminal client as people and scripts use it: output, exit status, Ctrl-C, questions."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dialtone.cli import main
from dialtone.prompt import choose
from tests.client.stub_gateway import (
    Step,
    StubGateway,
    UntilAnswered,
    UntilCancelled,
    UntilWatched,
    problem,
)
from workflow.core.events import (
    ApprovalRequested,
    Delta,
    DeltaKind,
    Message,
    Notice,
    RunCancelled,
    RunFailed,
    RunFinished,
)
from workflow.core.ids import ItemId, RunId, ThreadId

T = ThreadId("")
QUESTION = ApprovalRequested(
    thread_id=T, question_id="q1", kind="approval", prompt="Delete it?", choices=("allow", "deny"), tool="bash"
)


@pytest.fixture(autouse=True)
def _environment(gateway: StubGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALTONE_URL", gateway.url)
    monkeypatch.delenv("DIALTONE_KEY", raising=False)


def said(text: str) -> list[Step]:
    pieces = [Delta(run_id=RunId("t.r"), turn=1, item="m", kind=DeltaKind.TEXT, offset=0, text=text[:3])]
    return [UntilWatched(), *pieces, Message(thread_id=T, item=ItemId("m"), text=text)]


@contextmanager
def running(*arguments: str, terminal: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The client in a process of its own; what it writes is read from the descriptor."""
    command = [sys.executable, "-m", "dialtone", *arguments]
    if terminal:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
    else:
        ours, theirs = os.pipe()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait(10)
        with suppress(OSError):
            os.close(ours)


def read_until(descriptor: int, pattern: str, *, timeout_s: float = 15) -> str:
    """What comes up to the first match of `pattern`; `$` waits for the end."""
    text, deadline = "", time.monotonic() + timeout_s
    while not (pattern != "$" and re.search(pattern, text)):
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{pattern!r} did not come: {text!r}"
        try:
            piece = os.read(descriptor, 65_536)
        except OSError:  # the other end of a terminal is closed
            piece = b""
        if not piece:
            assert pattern == "$", f"ended before {pattern!r}: {text!r}"
            return text
        text += piece.decode(errors="replace")
    return text


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (RunFinished(thread_id=T), 0),
        (RunFailed(thread_id=T, reason="stuck", detail="in circles"), 1),
        (RunCancelled(thread_id=T), 3),
    ],
)
def test_the_exit_status_tells_how_the_run_ended(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str], ending: Step, status: int
) -> None:
    gateway.scripts["greet"] = [*said("Hello there."), ending]
    assert main(["run", "greet"]) == status
    shown = capsys.readouterr().out
    assert shown.count("Hello there.") == 1 and "\x1b" not in shown


def test_an_unreachable_gateway_is_status_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["threads", "--url", "http://127.0.0.1:9"]) == 4
    assert "no answer from the gateway" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["run"], ["run", "x", "--budget-usd", "0"], ["runs", "t", "--limit", "0"]]
)
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_what_the_gateway_refuses_is_status_1_with_the_reason(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.key = "dt_key"
    assert main(["threads"]) == 1
    assert capsys.readouterr().err == "dialtone: no valid key (unauthenticated)\n"
    assert main(["--key", "dt_key", "threads"]) == 0
    assert main(["cancel", "not-a-run-id"]) == 2


def test_json_mode_writes_one_event_per_line_and_previews_only_when_asked(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.scripts["greet"] = [*said("Hello"), RunFinished(thread_id=T)]
    assert main(["run", "greet", "--json"]) == 0
    types = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    assert types == ["run.queued", "message", "run.finished"]
    assert main(["run", "greet", "--json", "--deltas"]) == 0
    types = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    assert types == ["run.queued", "delta", "message", "run.finished"]


def test_run_sends_budgets_model_policy_and_files(gateway: StubGateway, tmp_path: Path) -> None:
    gateway.scripts["task"] = [RunFinished(thread_id=T)]
    file = tmp_path / "notes.txt"
    file.write_text("hi")
    options = ["--budget-usd", "0.5", "--budget-turns", "3", "--model", "fast", "--policy", "reject", "--title", "Mine"]
    assert main(["run", "task", *options, "--file", str(file)]) == 0
    (thread,) = gateway.threads.values()
    assert thread.title == "Mine" and thread.files == {"notes.txt": b"hi"}
    (body,) = [json.loads(seen.body) for seen in gateway.seen if seen.path.endswith("/execute")]
    assert body == {
        "task": "task",
        "model": "fast",
        "files": ["notes.txt"],
        "policy": "reject",
        "budgets": {"turns": 3, "usd": 0.5},
    }


def test_a_detached_run_prints_its_id_and_can_be_attached_to(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.scripts["task"] = [
        Notice(thread_id=T, code="n", text="working"),
        RunFailed(thread_id=T, reason="x", detail=""),
    ]
    assert main(["run", "task", "--detach"]) == 0
    run_id = capsys.readouterr().out.strip()
    assert main(["attach", run_id]) == 1
    assert "! working" in capsys.readouterr().out
    assert main(["run", "task", "--detach", "--json", "--thread", run_id.split(".")[0]]) == 0
    assert json.loads(capsys.readouterr().out)["thread_id"] == run_id.split(".")[0]


def test_threads_and_runs_are_listed(gateway: StubGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.scripts["task"] = [RunFinished(thread_id=T)]
    main(["run", "task", "--title", "First \x1b[31mthread"])
    capsys.readouterr()
    assert main(["threads", "-q", "First"]) == 0
    listed = capsys.readouterr().out
    assert "First thread" in listed and "\x1b" not in listed
    thread_id = listed.split()[0]
    assert main(["runs", thread_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "task"


def test_logs_export_and_replay_tell_the_same_run(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gateway.scripts["greet"] = [*said("Hello"), Notice(thread_id=T, code="n", text="careful"), RunFinished(thread_id=T)]
    main(["run", "greet"])
    live = capsys.readouterr().out.split("\n", 1)[1]
    (run_id,) = next(iter(gateway.threads.values())).runs
    assert main(["logs", run_id]) == 0
    logged = capsys.readouterr().out.splitlines()
    assert len(logged) == 4 and logged[2].endswith("notice: careful")
    file = tmp_path / "run.jsonl"
    assert main(["export", run_id, "-o", str(file)]) == 0
    assert main(["logs", run_id, "--json"]) == 0
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    assert exported == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert exported == next(iter(gateway.threads.values())).log
    assert main(["replay", str(file)]) == 0
    assert capsys.readouterr().out.strip() == live.strip()


def test_replay_says_where_a_cassette_is_played(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.cassette.jsonl"
    file.write_text('{"type":"cassette","version":1,"run_id":"t.r"}\n')
    assert main(["replay", str(file)]) == 1
    assert "./run.sh replay" in capsys.readouterr().err


def test_replay_names_the_line_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"type": "notice", "thread_id": "t", "code": "c", "text": "fine"}\n\nnonsense\n')
    assert main(["replay", str(file)]) == 1
    shown = capsys.readouterr()
    assert "fine" in shown.out and "line 3: not JSON" in shown.err


def test_files_go_up_and_come_down_unchanged(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["run", "x", "--detach"])
    thread_id = capsys.readouterr().out.split(".")[0]
    content = bytes(range(256))
    Path("raw.bin").write_bytes(content)
    assert main(["files", "put", thread_id, "raw.bin", "deep/raw.bin"]) == 0
    assert main(["files", "ls", thread_id]) == 0
    assert capsys.readouterr().out == "         256  deep/raw.bin\n"
    assert main(["files", "get", thread_id, "deep/raw.bin", "back.bin"]) == 0
    assert Path("back.bin").read_bytes() == content
    assert main(["files", "rm", thread_id, "deep/raw.bin"]) == 0
    assert main(["files", "get", thread_id, "deep/raw.bin"]) == 1


def test_previews_are_listed_whole_and_revoked(gateway: StubGateway, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "x", "--detach"])
    thread_id = capsys.readouterr().out.split(".")[0]
    link = {"id": "5c0f", "port": 8000, "run_id": f"{thread_id}.1", "created_at": 0, "expires_at": 1_790_000_000_000}
    url = f"http://{'k' * 26}.{'a-long-name.' * 8}example.org/"
    gateway.threads[thread_id].previews["5c0f"] = link | {"url": url}
    assert main(["previews", "ls", thread_id]) == 0
    assert capsys.readouterr().out == f"5c0f   8000  until 2026-09-21 14:13Z  {url}\n"
    assert main(["previews", "ls", thread_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == link | {"url": url}
    assert main(["previews", "revoke", thread_id, "5c0f"]) == 0
    assert main(["previews", "revoke", thread_id, "5c0f"]) == 1
    assert "no such preview" in capsys.readouterr().err


def test_without_a_terminal_a_question_says_how_to_answer_it(gateway: StubGateway) -> None:
    gateway.scripts["task"] = [QUESTION, UntilAnswered("q1"), RunFinished(thread_id=T)]
    with running("run", "task") as (process, out):
        shown = read_until(out, r"answer with: dialtone (answer \S+ q1) <allow\|deny>\n")
        command = re.search(r"dialtone (answer \S+ q1)", shown)
        assert command is not None
        assert main([*command[1].split(), "deny"]) == 0
        assert "answered: deny by u" in read_until(out, "$")
        assert process.wait(10) == 0


def test_on_a_terminal_the_person_is_asked_and_the_answer_sent(gateway: StubGateway) -> None:
    gateway.scripts["task"] = [QUESTION, UntilAnswered("q1"), RunFinished(thread_id=T)]
    with running("run", "task", terminal=True) as (process, terminal):
        read_until(terminal, "your answer")
        os.write(terminal, b"perhaps\n")
        read_until(terminal, r"one of: allow \| deny")
        os.write(terminal, b"a\n")
        read_until(terminal, "finished")
        assert process.wait(10) == 0
    assert next(iter(gateway.threads.values())).answers == {"q1": "allow"}


def test_on_a_terminal_a_question_that_somebody_else_answers_is_not_asked_any_more(gateway: StubGateway) -> None:
    gateway.scripts["task"] = [QUESTION, UntilAnswered("q1"), RunFinished(thread_id=T)]
    with running("run", "task", terminal=True) as (process, terminal):
        read_until(terminal, "your answer")
        main(["answer", next(iter(gateway.threads)), "q1", "deny"])
        read_until(terminal, "answered: deny")
        assert process.wait(10) == 0


def test_ctrl_c_cancels_the_run_and_waits_for_its_end(gateway: StubGateway) -> None:
    gateway.scripts["task"] = [Notice(thread_id=T, code="n", text="busy"), UntilCancelled()]
    with running("run", "task") as (process, out):
        read_until(out, "busy")
        process.send_signal(signal.SIGINT)
        assert "cancelled" in read_until(out, "$").split("again to leave)")[1]
        assert process.wait(10) == 3


def test_a_second_ctrl_c_leaves_while_the_run_goes_on(gateway: StubGateway) -> None:
    gateway.scripts["task"] = [Notice(thread_id=T, code="n", text="busy"), UntilAnswered("never")]
    with running("run", "task") as (process, out):
        read_until(out, "busy")
        process.send_signal(signal.SIGINT)
        read_until(out, "again to leave")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in read_until(out, "$")


def test_leaving_an_attached_run_does_not_cancel_it(gateway: StubGateway) -> None:
    gateway.scripts["task"] = [Notice(thread_id=T, code="n", text="busy"), UntilCancelled()]
    main(["run", "task", "--detach"])
    ((thread_id, thread),) = gateway.threads.items()
    with running("attach", thread_id) as (process, out):
        read_until(out, "busy")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in read_until(out, "$")
    assert not thread.cancelled


def test_a_reader_that_closes_the_pipe_ends_the_client_quietly(gateway: StubGateway) -> None:
    notices: list[Step] = [Notice(thread_id=T, code="n", text=f"{number} {'x' * 100}") for number in range(2000)]
    gateway.scripts["task"] = [UntilWatched(), *notices, RunFinished(thread_id=T)]
    command = [sys.executable, "-m", "dialtone", "run", "task"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(15) == 0
        assert process.stderr.read() == b""


def test_ctrl_c_ends_the_wait_for_standard_input(gateway: StubGateway) -> None:
    for arguments in (("run", "-"), ("files", "put", "t", "-", "name")):
        with running(*arguments, terminal=True) as (process, out):
            read_until(out, "up to Ctrl-D")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
    assert not gateway.threads


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["run", " "], 2, "the task says nothing"),
        (["run", "task", "--file", "/nowhere/a.csv"], 1, "/nowhere/a.csv"),
        (["run", "task", "--file", "one/a.csv", "--file", "two/a.csv"], 2, "two files have the same name"),
    ],
)
def test_what_cannot_be_started_leaves_no_thread(
    gateway: StubGateway,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(folder)
    assert main(arguments) == status
    assert complaint in capsys.readouterr().err
    assert not gateway.threads


def test_a_thread_is_called_as_its_task_begins(gateway: StubGateway) -> None:
    assert main(["run", "\n Add up\x1b[31m numbers.csv\nand more", "--detach"]) == 0
    assert [thread.title for thread in gateway.threads.values()] == ["Add up numbers.csv"]


def test_a_listed_path_is_whole_and_safe(gateway: StubGateway, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "task", "--detach"])
    ((thread_id, thread),) = gateway.threads.items()
    names = ["deep/" * 40 + "end.txt", "two\nlines", "red\x1b[31m"]
    thread.files.update(dict.fromkeys(names, b"x"))
    capsys.readouterr()
    assert main(["files", "ls", thread_id]) == 0
    shown = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert sorted(shown) == sorted([names[0], "two\u240alines", "red\u241b[31m"])


def test_a_list_of_as_many_files_as_come_at_once_says_so(
    gateway: StubGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "task", "--detach"])
    ((thread_id, thread),) = gateway.threads.items()
    for count, told in ((9_999, ""), (10_000, "only the first 10,000 are listed")):
        thread.files.update({f"f{number}": b"" for number in range(count)})
        capsys.readouterr()
        assert main(["files", "ls", thread_id]) == 0
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == count and told in shown.err and bool(told) == bool(shown.err)


def test_a_piped_file_needs_a_name(gateway: StubGateway, capsys: pytest.CaptureFixture[str]) -> None:
    with running("files", "put", "t", "-") as (process, out):
        assert process.wait(10) == 2
        assert "needs a name" in read_until(out, "PATH")


def test_an_unreachable_gateway_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:1", "steer", "a.b", "hi"]) == 4
    assert "http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense", "http://[::1"])
def test_what_is_no_address_is_status_2(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["--url", url, "threads"]) == 2
    assert "not the address of a gateway" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--budget-usd", "--budget-turns"])
def test_a_budget_that_is_none_is_told_in_words(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "task", option, "much"])
    assert "must be a" in capsys.readouterr().err


def test_help_needs_neither_httpx_nor_pydantic() -> None:
    code = "import sys, dialtone.cli as cli; cli.build_parser(); print({'httpx', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_busy_gateway_is_waited_for(gateway: StubGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.refusals = [problem(503, "unavailable", "Redis is away", {"Retry-After": "0"})]
    assert main(["threads"]) == 0


@pytest.mark.parametrize(
    ("line", "choice"),
    [
        ("allow\n", "allow"),
        ("DENY", "deny"),
        ("2", "deny"),
        ("a", "allow"),
        ("de", None),
        ("", None),
        ("9", None),
        ("x", None),
        ("²", None),
    ],
)
def test_an_answer_may_be_the_word_its_number_or_its_beginning(line: str, choice: str | None) -> None:
    assert choose(line, ("allow", "deny", "deny all")) == choice


def test_a_question_without_choices_takes_any_text() -> None:
    assert (choose(" blue \n", ()), choose("\n", ())) == ("blue", None)
