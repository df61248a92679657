"""The tools of a process: what the model is told, names that are nearly right, plugins."""

import importlib
import json
from pathlib import Path

import pytest

from workflow.core.config import ToolSettings
from workflow.core.errors import ToolError
from workflow.core.events import Effect, ToolCall
from workflow.core.ids import CallId
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.build import build_registry
from workflow.tools.registry import ParsedCall, Registry

REFERENCE = {
    "job_plan", "bash", "file_read", "file_edit", "files_creation", "multi_edit", "grep", "glob", "ls", "web_search",
    "use_template", "todo_read", "todo_write", "suggest_next_steps", "url_expose",
}  # fmt: skip


def fresh(**settings: object) -> tuple[Registry, tuple[str, ...]]:
    return build_registry(ToolSettings.model_validate(settings), environ={})


def as_bytes(registry: Registry) -> bytes:
    specs = [{"name": s.name, "description": s.description, "parameters": s.parameters} for s in registry.specs()]
    return json.dumps(specs).encode()


def test_every_tool_of_the_reference_is_there() -> None:
    registry, problems = fresh()

    assert set(registry.names) >= REFERENCE
    assert problems == ()


def test_specs_are_the_same_bytes_in_every_process_and_at_every_call() -> None:
    registry, _ = fresh()

    assert as_bytes(registry) == as_bytes(registry) == as_bytes(fresh()[0])
    assert list(registry.names) == sorted(registry.names)


def test_schemas_are_small_flat_and_sorted() -> None:
    registry, _ = fresh()
    text = as_bytes(registry).decode()

    assert len(text) < 14_000  # system prompt and schemas together may have 32,000
    assert "$ref" not in text
    assert "$defs" not in text
    assert '"title": "' not in text
    for spec in registry.specs():
        assert list(spec.parameters) == sorted(spec.parameters)
        assert spec.parameters["type"] == "object"
        assert spec.parameters["additionalProperties"] is False


def test_every_tool_declares_its_effect_and_says_what_it_does() -> None:
    registry, _ = fresh()

    for name in registry.names:
        tool = registry.get(name)
        assert isinstance(tool.effect, Effect)
        assert 20 < len(tool.description) < 700
        assert tool.__class__.run.__doc__ or name in ("todo_read",)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("read_file", "file_read"),
        ("str_replace", "file_edit"),
        ("terminal", "bash"),
        ("shell", "bash"),
        ("multiedit", "multi_edit"),
        ("list_directory", "ls"),
        ("grpe", "grep"),
        ("file_raed", "file_read"),
        ("todos", "todo_write"),
        ("websearch", "web_search"),
        ("file_creation", "files_creation"),
        ("create_file", "files_creation"),
    ],
)
def test_an_unknown_tool_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    registry, _ = fresh()

    assert registry.nearest(name)[0] == nearest
    error = registry.parse(ToolCall(id=CallId("c"), name=name, arguments='{"command": "ls"}'))
    assert isinstance(error, ToolError)
    assert error.kind == "unknown_tool"
    assert nearest in error.message


def test_a_name_without_any_likeness_lists_all_tools() -> None:
    registry, _ = fresh()

    error = registry.parse(ToolCall(id=CallId("c"), name="rm -rf /"))

    assert isinstance(error, ToolError)
    assert all(name in error.message for name in registry.names)


@pytest.mark.parametrize(
    "name", ["Bash", "BASH", "functions.bash", " bash ", "bash<|channel|>", "bash</name>", "tools:bash", "tool.bash"]
)
def test_markup_and_case_around_a_name_are_taken_off(name: str) -> None:
    registry, _ = fresh()

    parsed = registry.parse(ToolCall(id=CallId("c"), name=name, arguments='{"command": "ls"}'))

    assert isinstance(parsed, ParsedCall)
    assert parsed.call.name == "bash"
    assert "took the tool name" in parsed.note


def test_dashes_in_a_name_are_underscores() -> None:
    registry, _ = fresh()

    assert isinstance(registry.parse(ToolCall(id=CallId("c"), name="todo-read")), ParsedCall)


def test_a_disabled_tool_is_gone_and_an_unknown_one_is_reported() -> None:
    registry, problems = fresh(disabled=("bash", "nonsense"))

    assert "bash" not in registry.names
    assert problems == ("[tools] disabled: there is no tool 'nonsense'",)


class EchoArgs(ToolArgs):
    text: str


class Echo(Tool[EchoArgs]):
    name = "echo"
    description = "Gives the text back."
    effect = Effect.PURE

    async def run(self, args: EchoArgs, context: ToolContext) -> ToolOutput:
        return ToolOutput(text=args.text)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools are called echo"):
        Registry([Echo(), Echo()])


GOOD = """
from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput

class ShoutArgs(ToolArgs):
    text: str

class Shout(Tool[ShoutArgs]):
    name = "shout"
    description = "Gives the text back in capitals."
    effect = Effect.PURE

    async def run(self, args: ShoutArgs, context: ToolContext) -> ToolOutput:
        return ToolOutput(text=args.text.upper())
"""


def test_a_file_in_the_plugin_folder_adds_a_tool(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(GOOD)
    (tmp_path / "_private.py").write_text("raise RuntimeError")
    (tmp_path / "notes.txt").write_text("not Python")

    registry, problems = fresh(plugin_folder=str(tmp_path))

    assert problems == ()
    parsed = registry.parse(ToolCall(id=CallId("c"), name="shout", arguments='{"text": "a"}'))
    assert isinstance(parsed, ParsedCall)


def test_a_plugin_may_postpone_its_annotations_and_have_dataclasses(tmp_path: Path) -> None:
    postponed = GOOD.replace(
        "    text: str", "    text: str\n    tone: Literal['loud'] = 'loud'\n\n@dataclass\nclass Own:\n    x: int"
    )
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import Literal\n"
    (tmp_path / "shout.py").write_text(f"{head}{postponed}")

    registry, problems = fresh(plugin_folder=str(tmp_path))

    assert problems == ()
    parsed = registry.parse(ToolCall(id=CallId("c"), name="shout", arguments='{"text": "a", "tone": "loud"}'))
    assert isinstance(parsed, ParsedCall)


BROKEN = {
    "syntax": "def (",
    "import": "import no_such_module_anywhere",
    "raises": "raise SystemError('no')",
    "exits": "raise SystemExit",
    "empty": "x = 1",
    "no_name": GOOD.replace('name = "shout"', ""),
    "bad_name": GOOD.replace('"shout"', '"Shout it"'),
    "no_effect": GOOD.replace("effect = Effect.PURE", ""),
    "not_async": GOOD.replace("async def run", "def run"),
    "taken_name": GOOD.replace('"shout"', '"bash"'),
    "no_description": GOOD.replace('"Gives the text back in capitals."', '""'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_left_out(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(BROKEN[name])
    (tmp_path / "z_good.py").write_text(GOOD.replace('"shout"', '"whisper"'))

    registry, problems = fresh(plugin_folder=str(tmp_path))

    assert len(problems) == 1
    assert name in problems[0] or "bash" in problems[0]
    assert set(registry.names) == {*fresh()[0].names, "whisper"}


def test_a_plugin_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    _, problems = fresh(plugin_folder=str(tmp_path / "none"))

    assert "is not a folder" in problems[0]


def test_an_entry_point_adds_a_tool_and_a_broken_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("importlib_metadata")  # as LiteLLM does: from then on entry points are of its own type
    (tmp_path / "dialtone_shout.py").write_text(GOOD)
    info = tmp_path / "dialtone_shout-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dialtone-shout\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dialtone.tools]\nshout = dialtone_shout:Shout\nbroken = dialtone_shout:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    registry, problems = fresh()

    assert "shout" in registry.names
    assert len(problems) == 1
    assert "entry point broken" in problems[0]


def test_a_search_provider_without_a_key_is_reported() -> None:
    registry, problems = fresh(search_provider="brave")

    assert "web_search" in registry.names
    assert problems == ("[tools] search_provider: brave has no key (or address) here",)
