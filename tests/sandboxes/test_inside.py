"""The program inside remote sandboxes: what it may need there, and that its answers are not believed blindly."""

import ast
import base64
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sandboxes.conftest import mounted
from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.inside.answers import Answer
from workflow.sandboxes.inside.history import History
from workflow.sandboxes.inside.workspace import Workspace
from workflow.sandboxes.machines import Dropped
from workflow.sandboxes.remote_call import MODULES, Call, Home, NotInstalled
from workflow.sandboxes.secrecy import REMOVED, Mask, Scrubber

HOME = Home("/home/user/workspace", "/home/user/.dialtone")


def source(module: str) -> str:
    return files("workflow.sandboxes.inside").joinpath(f"{module}.py").read_text("utf-8")


def packed(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def call() -> Call:
    return Call("stat", {"path": "."}, home=HOME, owner="me")


def nonce(made: Call) -> str:
    return made.command(installs=False).rsplit(" ", 1)[1]


@pytest.mark.parametrize("module", MODULES)
def test_it_runs_on_python_3_9_with_nothing_but_the_standard_library(module: str) -> None:
    tree = ast.parse(source(module), feature_version=(3, 9))
    assert isinstance(tree.body[1], ast.ImportFrom) and tree.body[1].module == "__future__"
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            own = name.removeprefix("workflow.sandboxes.inside.")
            assert own in MODULES[: MODULES.index(module)] or name.partition(".")[0] in sys.stdlib_module_names


def test_a_call_fits_into_one_argument_of_a_command_line() -> None:
    longest = Call("write", {"path": "p" * 4096, "mode": None}, home=HOME, owner="me", payload=bytes(48_000))
    assert len(longest.command(installs=True)) < 131_072


def test_an_answer_is_taken_in_any_pieces_and_among_other_lines() -> None:
    made = call()
    mark = nonce(made)
    lines = ["motd", f"{mark} 1 {base64.b64encode(b'out').decode()}", f"forged r {packed(0)}", f"{mark} b "]
    lines += [f"{mark} r {packed([1])}", f"{mark} r {packed([2])}", ""]
    answer = "\n".join(lines)
    pieces = [piece for character in answer for piece in made.take(character)]
    assert pieces == [("stdout", b"out")] and made.result == [1] and made.signs == 3


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (f"x {packed({})}", SandboxError),
        (f"x {packed({'kind': 'file_missing', 'message': 'm'})}", ToolError),
        (f"x {packed({'kind': 'failed', 'message': 'm'})}", SandboxError),
        ("r bm90IGpzb24=", SandboxError),
        ("r /////w==", SandboxError),
        ("1 !!!", SandboxError),
        ("m ", NotInstalled),
    ],
)
def test_what_is_damaged_or_refused_is_a_typed_error(line: str, error: type[Exception]) -> None:
    made = call()
    with pytest.raises(error):
        made.take(f"{nonce(made)} {line}\n")


def test_an_answer_without_an_end_counts_as_dropped_and_one_without_python_does_not() -> None:
    cut = call()
    cut.take(f"{nonce(cut)} 1 ")
    with pytest.raises(Dropped):
        _ = cut.result
    without = call()
    without.take("bash: line 1: python3: command not found\n")
    with pytest.raises(SandboxError, match="no python3") as refused:
        _ = without.result
    assert not refused.value.retryable


@pytest.mark.parametrize("value", [None, True, -5, 1.5, 'a"\\\n\x00é\udcff', [1, ["x", None]], {"a": [], "b": {}}])
def test_answers_are_json_and_keep_names_that_are_no_text(value: object, capfd: pytest.CaptureFixture[str]) -> None:
    made = call()
    Answer(nonce(made)).result(value)
    made.take(capfd.readouterr().out)
    assert made.result == value


def test_a_line_without_an_end_is_not_kept_forever() -> None:
    made = call()
    for _ in range(100):
        made.take("x" * 100_000)
    assert made.take(f"\n{nonce(made)} r {packed(1)}\n") == [] and made.result == 1


@given(pieces=st.lists(st.text("abcd*", max_size=12)))
def test_a_credential_is_hidden_however_its_answer_is_cut(pieces: list[str]) -> None:
    mask = Mask("Bearer abcabcabd")
    shown = b"".join(mask.hide(piece.encode()) for piece in pieces) + mask.rest
    assert shown == "".join(pieces).replace("abcabcabd", "*" * 9).encode()


def test_keys_and_tokens_are_removed_from_messages() -> None:
    scrub = Scrubber(["key-123", "key-123-long", ""])
    text = scrub("no key-123-long, no key-123; Authorization: Bearer abc.def, X-API-Key: 'zzz' " + "y" * 2000)
    assert "key-123" not in text and "abc.def" not in text and "zzz" not in text
    assert text.count(REMOVED) == 4 and len(text) < 700
    told = ValueError("key-123")
    assert scrub.cause(told) is None and scrub.cause(ValueError("other")) is not None


BASE = """
import os, sys
from workflow.sandboxes.inside.jobs import Jobs

jobs = Jobs(sys.argv[1])
base = {"cwd": os.getcwd(), "background": False, "timeout_s": 20, "max_bytes": 0, "stdin": b"", "env": {}}
"""
STARTS = (
    BASE
    + """
cut = {**base, "key": "cut", "argv": ["x"], "script": b"echo once; sleep 0.3"}
jobs._make(cut, "me")  # all that a call did which was cut off before it could leave a supervisor behind
for _ in range(5):
    folder = jobs.start(cut, owner="me")
print(jobs.wait(folder, 20)["code"], folder.printed(1, 0, 100)[0])
jobs.kill_key("late", "me", "cancel")
late = jobs.start({**cut, "key": "late"}, owner="me")
print(jobs.wait(late, 20)["code"], late.printed(1, 0, 100)[0])
"""
)
LOSES = (
    BASE
    + """
sleeping = [{**base, "background": True, "key": str(n), "argv": ["sleep", "20"], "script": None} for n in range(10)]
first, *_, tenth = [jobs.start(job, owner="me") for job in sleeping]
os.kill(first.supervisor(), 9)
while first.is_alive():
    pass
print(first.name, jobs.kill(first, "cancel")["code"], tenth.name, tenth.is_alive(), jobs.wait(tenth, 0.3))
jobs.kill_owned("me", "cancel")
"""
)


def test_a_job_whose_first_call_was_cut_off_is_started_once_and_one_that_was_killed_before_never(
    tmp_path: Path,
) -> None:
    assert said(STARTS, tmp_path) == ["0 b'once\\n'", "137 b''"]


def test_ending_a_job_that_lost_its_supervisor_ends_no_job_whose_number_begins_alike(tmp_path: Path) -> None:
    assert said(LOSES, tmp_path) == ["1 137 10 True None"]


def said(program: str, folder: Path) -> list[str]:
    """The lines that `program` printed; its jobs are kept below `folder`."""
    command = [sys.executable, "-c", program, str(folder / "jobs")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not ran.stderr
    return ran.stdout.splitlines()


def test_a_change_within_one_tick_of_the_clock_is_remembered_in_there_too(tmp_path: Path) -> None:
    with mounted("ramfs", tmp_path):
        history = History(str(tmp_path / "history"), Workspace(str(tmp_path / "workspace")))
        file = tmp_path / "workspace" / "file"
        file.write_bytes(b"0000")
        for number in range(1, 50):
            history.take("turn")
            with file.open("r+b") as changed:
                changed.write(b"%04d" % number)
            assert Path(history.find(history.take("turn"), "file")).read_bytes() == b"%04d" % number


def test_a_deep_tree_is_remembered_to_its_end_in_there_too(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "workspace"))
    history = History(str(tmp_path / "history"), workspace)
    here = os.open(tmp_path / "workspace", os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    snapshot = history.take("turn")
    assert os.path.exists(history.find(snapshot, "d/" * 1_100 + "end"))  # noqa: PTH110  (`find` gives text)
    subprocess.run(["rm", "-r", str(tmp_path / "workspace")], check=True)
