"""docs/tools.md says what the code does."""

import re
from pathlib import Path

import pytest

import workflow.tools
from tests.tools.document import PAGE, REGISTRY, blocks, effect, updated
from workflow.core.events import Effect
from workflow.tools.base import Tool
from workflow.tools.bash import Bash, BashArgs
from workflow.tools.template import TemplateArgs, UseTemplate

TEXT = PAGE.read_text(encoding="utf-8")
SOURCES = sorted(Path(workflow.tools.__path__[0]).glob("*.py"))
GENERAL = {"cut_off", "invalid_arguments", "invalid_json", "too_many_calls", "unknown_tool"}
"""Errors of the call itself, before any tool runs."""


def documented_errors(name: str) -> set[str]:
    section = TEXT.split(f"### {name}\n", 1)[1].split("\n### ")[0].split("\n## ")[0]
    (line,) = [line for line in section.split("\n") if line.startswith("Errors: ")]
    return set(re.findall(r"`(\w+)`", line))


def declared_errors(tool: Tool[object]) -> set[str]:  # type: ignore[type-var]  # any tool
    said = (tool.run.__doc__ or "").replace("\n", " ")
    listed = re.search(r"(?:Kinds of error:|with kind)(.*?)(?:\.|$|, always)", said)
    return set(re.findall(r"`(\w+)`", listed[1])) if listed else set()


def test_the_tables_are_those_of_the_code() -> None:
    assert updated(TEXT) == TEXT, "run: python -m tests.tools.document"


def test_every_tool_has_a_section_and_a_block() -> None:
    assert set(re.findall(r"<!-- begin (\w+) -->", TEXT)) == set(blocks())
    assert re.findall(r"^### (\w+)$", TEXT, re.MULTILINE) == list(REGISTRY.names)


@pytest.mark.parametrize("name", REGISTRY.names)
def test_the_errors_of_a_tool_are_those_it_declares(name: str) -> None:
    assert documented_errors(name) == declared_errors(REGISTRY.get(name))


def test_every_kind_of_error_in_the_code_is_explained_and_no_other() -> None:
    table = TEXT.split("## Kinds of errors", 1)[1].split("\n## ")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    raised = {kind for file in SOURCES for kind in re.findall(r'kind="(\w+)"', file.read_text())}
    raised |= {"is_directory"}  # chosen beside `not_regular`

    assert explained == raised
    assert {kind for name in REGISTRY.names for kind in documented_errors(name)} | GENERAL == explained


def test_classes_that_depend_on_the_call_are_as_documented() -> None:
    assert effect("bash") == "keyed; unsafe with a network"
    assert [Bash(network=network).effect_of(BashArgs(command="true")) for network in ("off", "open")] == [
        Effect.KEYED,
        Effect.UNSAFE,
    ]
    assert effect("use_template") == "pure to list; idempotent to apply"
    assert [UseTemplate().effect_of(TemplateArgs(action=action)) for action in ("list", "apply")] == [
        Effect.PURE,
        Effect.IDEMPOTENT,
    ]
