"""One contract for every tool, over the memory twin and the local sandbox alike: what it gives, what it refuses."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.tools.harness import Bench, shipped
from tests.tools.test_document import documented_errors
from workflow.core.errors import ToolError
from workflow.core.events import FileChanged, decode, encode
from workflow.tools.base import ToolOutput

MAX_DATA_BYTES = 20_000
FILE = "one\ntwo\nthree\n"


@dataclass(frozen=True)
class Sample:
    """A call that succeeds, part of what it says, and a call that is refused with its kind of error."""

    good: dict[str, Any]
    says: str
    bad: dict[str, Any]
    kind: str
    changes: tuple[str, ...] = ()
    """Files that are another afterwards."""
    read: bool = field(default=False)
    """Whether a.txt must have been read before."""


SAMPLES: dict[str, Sample] = {
    "bash": Sample({"command": "cat a.txt && pwd"}, "two\nthree\n/workspace", {"command": "echo \0"}, "bad_command"),
    "file_edit": Sample(
        {"path": "a.txt", "old": "two", "new": "2"},
        "-two",
        {"path": "a.txt", "old": "nine", "new": "9"},
        "not_found",
        ("a.txt",),
        read=True,
    ),
    "multi_edit": Sample(
        {"path": "a.txt", "edits": [{"old": "one", "new": "1"}, {"old": "1\ntwo", "new": "12"}]},
        "+12",
        {"path": "a.txt", "edits": [{"old": "1", "new": "x"}, {"old": "nine", "new": "9"}]},
        "not_found",
        ("a.txt",),
        read=True,
    ),
    "file_read": Sample({"path": "a.txt"}, "2\ttwo", {"path": "b.txt"}, "file_missing"),
    "files_creation": Sample(
        {"files": [{"path": "d/n.txt", "content": "new"}]},
        "d/n.txt",
        {"files": [{"path": "m.txt", "content": "new"}, {"path": "a.txt", "content": "other"}]},
        "exists",
        ("d/n.txt",),
    ),
    "glob": Sample({"pattern": "*.txt"}, "a.txt", {"pattern": "*", "path": "nowhere"}, "file_missing"),
    "grep": Sample({"pattern": "^tw", "output_mode": "content"}, "two", {"pattern": "("}, "bad_pattern"),
    "ls": Sample({}, "a.txt", {"path": "../x"}, "outside_workspace"),
    "job_plan": Sample(
        {"steps": [{"id": "1", "title": "Do it", "status": "in_progress"}]},
        "[>] 1 Do it",
        {"steps": [{"id": "1", "title": "Do it", "status": "dropped"}]},
        "reason_needed",
    ),
    "todo_write": Sample({"items": [{"content": "milk"}]}, "milk", {"items": [{"content": " "}]}, "empty_item"),
    "suggest_next_steps": Sample({"items": ["Run the tests"]}, "1", {"items": ["x" * 300]}, "too_long"),
    "use_template": Sample(
        {"action": "apply", "name": "static-site", "path": "site", "variables": {"title": "Birds"}},
        "site/index.html",
        {"action": "apply", "name": "nonsense"},
        "unknown_template",
        ("site/index.html",),
    ),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ask_person": ({"question": "Red?"}, "unattended"),
    "bash_output": ({"job": 99}, "no_such_process"),
    "bash_kill": ({"job": 99}, "no_such_process"),
    "url_expose": ({"port": 8123}, "previews_off"),
    "web_fetch": ({"url": "http://127.0.0.1/"}, "address_refused"),
    "web_search": ({"query": "birds"}, "search_off"),
}
"""Tools that need more than a sandbox to succeed; their own modules show that they do."""


@pytest.fixture
async def filled(bench: Bench) -> Bench:
    await bench.sandbox.write("a.txt", FILE.encode())
    return bench


def test_every_tool_keeps_the_contract_or_is_named_here() -> None:
    assert SAMPLES.keys() | REFUSED.keys() | {"todo_read"} == set(shipped().names)


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_call_gives_text_typed_data_and_facts_that_the_log_can_hold(filled: Bench, name: str) -> None:
    sample = SAMPLES[name]
    if sample.read:
        await filled("file_read", path="a.txt")
    before = await _files(filled)

    output = await filled(name, **sample.good)

    _check(filled, output)
    assert output.ok
    assert sample.says in output.text
    assert {path for path, content in (await _files(filled)).items() if before.get(path) != content} >= set(
        sample.changes
    )
    changed = {event.path for event in output.events if isinstance(event, FileChanged)}
    assert changed >= set(sample.changes)


@pytest.mark.parametrize("name", [*SAMPLES, *REFUSED])
async def test_a_refusal_has_a_documented_kind_says_what_to_do_and_changes_nothing(filled: Bench, name: str) -> None:
    bad, kind = REFUSED[name] if name in REFUSED else (SAMPLES[name].bad, SAMPLES[name].kind)
    await filled("file_read", path="a.txt")
    before = await _files(filled)

    error = await filled.fails(name, **bad)

    assert error.kind == kind
    assert kind in documented_errors(name)
    assert len(error.message.split()) >= 5
    assert await _files(filled) == before


async def test_todos_are_read_as_they_were_written(filled: Bench) -> None:
    await filled("todo_write", items=[{"content": "milk"}])
    output = await filled("todo_read")
    _check(filled, output)
    assert "milk" in output.text


@pytest.mark.parametrize("name", ["file_edit", "multi_edit"])
async def test_a_file_that_changed_since_it_was_read_is_not_overwritten(filled: Bench, name: str) -> None:
    await filled("file_read", path="a.txt")
    await filled.sandbox.write("a.txt", b"one\nchanged\nthree\n")
    error = await filled.attempt(name, **SAMPLES[name].good)
    assert isinstance(error, ToolError)
    assert error.kind in {"stale", "not_found"}
    assert await filled.sandbox.read("a.txt") == b"one\nchanged\nthree\n"


async def _files(bench: Bench) -> dict[str, bytes]:
    found = await bench.sandbox.list(".", depth=5)
    return {s.path: await bench.sandbox.read(s.path) for s in found if s.kind == "file" and ".dialtone" not in s.path}


def _check(bench: Bench, output: ToolOutput) -> None:
    """The parts of a result as the log and the model get them."""
    assert output.text.strip()
    assert len(json.dumps(output.data)) <= MAX_DATA_BYTES
    for event in bench.events:
        assert decode(encode(event)).wire_name == event.wire_name
    for path, sha256 in output.facts.items():
        assert not path.startswith("/")
        assert len(sha256) == 64
