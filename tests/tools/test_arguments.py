"""What happens to the arguments a model writes: mended where there is one meaning, else answered, never half run."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.core.config import ToolSettings
from workflow.core.errors import ToolError
from workflow.core.events import ToolCall
from workflow.core.ids import CallId
from workflow.tools.arguments import read_arguments
from workflow.tools.build import build_registry
from workflow.tools.registry import ParsedCall, history_arguments

REGISTRY, _ = build_registry(ToolSettings(), environ={})


def parse(tool: str, arguments: str, finish_reason: str = "tool_calls") -> ParsedCall | ToolError:
    return REGISTRY.parse(ToolCall(id=CallId("c1"), name=tool, arguments=arguments), finish_reason=finish_reason)


def accepted(tool: str, arguments: str) -> dict[str, Any]:
    parsed = parse(tool, arguments)
    assert isinstance(parsed, ParsedCall), str(parsed)
    assert json.loads(parsed.call.arguments) == parsed.arguments
    return parsed.arguments


LS: dict[str, Any] = {"command": "ls -la"}
MENDED: list[tuple[str, str, str, dict[str, Any]]] = [
    # name, tool, text, what runs
    ("plain", "bash", '{"command": "ls -la"}', LS),
    ("blanks around", "bash", '  \n{"command": "ls -la"}\n ', LS),
    ("pretty printed", "bash", '{\n  "command": "ls -la"\n}', LS),
    ("raw line end in a text", "bash", '{"command": "echo a\necho b"}', {"command": "echo a\necho b"}),
    ("raw tab in a text", "bash", '{"command": "echo\ta"}', {"command": "echo\ta"}),
    ("escaped and raw line ends", "bash", '{"command": "a\\n\nb"}', {"command": "a\n\nb"}),
    ("code fence", "bash", '```json\n{"command": "ls -la"}\n```', LS),
    ("code fence without language", "bash", '```\n{"command": "ls -la"}\n```', LS),
    ("code fence left open", "bash", '```json\n{"command": "ls -la"}', LS),
    ("encoded twice", "bash", json.dumps('{"command": "ls -la"}'), LS),
    ("markup after", "bash", '{"command": "ls -la"}</tool_call>', LS),
    ("special token after", "bash", '{"command": "ls -la"}<|im_end|>', LS),
    ("fence after", "bash", '{"command": "ls -la"}\n```', LS),
    ("trailing comma", "bash", '{"command": "ls -la",}', LS),
    ("single quotes", "bash", "{'command': 'ls -la'}", LS),
    ("bare key", "bash", '{command: "ls -la"}', LS),
    ("brace too many", "bash", '{"command": "ls -la"}}', LS),
    ("missing comma", "grep", '{"pattern": "a" "path": "b"}', {"pattern": "a", "path": "b"}),
    ("Python words", "bash", "{'command': 'ls', 'background': True}", {"command": "ls", "background": True}),
    ("quotes inside a text", "bash", '{"command": "echo "hi" there"}', {"command": 'echo "hi" there'}),
    ("empty", "todo_read", "", {}),
    ("empty object", "todo_read", "{}", {}),
    ("wrapped in arguments", "bash", '{"arguments": {"command": "ls -la"}}', LS),
    ("wrapped in input", "bash", '{"input": {"command": "ls -la"}}', LS),
    ("null for an optional", "bash", '{"command": "ls -la", "timeout_s": null}', LS),
    ("number as text", "bash", '{"command": "ls", "timeout_s": "5"}', {"command": "ls", "timeout_s": 5.0}),
    ("boolean as text", "bash", '{"command": "ls", "background": "true"}', {"command": "ls", "background": True}),
    ("integer as text", "file_read", '{"path": "a", "offset": "10"}', {"path": "a", "offset": 10}),
    ("text as integer", "grep", '{"pattern": 404}', {"pattern": "404"}),
    ("narration", "bash", '{"command": "ls -la", "description": "List files"}', LS),
    ("list as text", "todo_write", json.dumps({"items": '[{"content": "a"}]'}), {"items": [{"content": "a"}]}),
    ("object for a list", "todo_write", '{"items": {"content": "a"}}', {"items": [{"content": "a"}]}),
    ("object as text for a list", "todo_write", json.dumps({"items": '{"content": "a"}'}),
     {"items": [{"content": "a"}]}),
    ("names of others", "file_edit", '{"file_path": "a", "old_string": "b", "new_string": "c"}',
     {"path": "a", "old": "b", "new": "c"}),
    ("names of others inside", "multi_edit", '{"path": "a", "edits": [{"old_str": "b", "new_str": "c"}]}',
     {"path": "a", "edits": [{"old": "b", "new": "c"}]}),
    ("flags of grep", "grep", '{"pattern": "a", "-A": 2, "-i": true, "-n": true}',
     {"pattern": "a", "after": 2, "ignore_case": True}),
    ("text pieces", "bash", '{"command": [{"type": "text", "text": "ls"}, {"type": "text", "text": " -la"}]}', LS),
    ("JSON in a text stays text", "files_creation", json.dumps({"files": [{"path": "a", "content": '{"b": 1}'}]}),
     {"files": [{"path": "a", "content": '{"b": 1}'}]}),
    ("a list in a text stays text", "bash", '{"command": "[1, 2]"}', {"command": "[1, 2]"}),
    ("escapes stay as given", "bash", '{"command": "printf \'a\\\\n\'"}', {"command": "printf 'a\\n'"}),
    ("surrogate pair", "bash", '{"command": "echo \\ud83d\\ude00"}', {"command": "echo 😀"}),
    ("line ends at the end of texts", "file_edit", '{"path": "a", "old": "b\\n", "new": " c \\n\\n",}',
     {"path": "a", "old": "b\n", "new": " c \n\n"}),
    ("a raw line end at the end", "file_edit", "{'path': 'a', 'old': 'b\n', 'new': ''}",
     {"path": "a", "old": "b\n", "new": ""}),
    ("an escape that JSON lacks", "grep", r'{"pattern": "\d+\.py$"}', {"pattern": r"\d+\.py$"}),
    ("a Unicode escape", "grep", r"{'pattern': '\u00fc'}", {"pattern": "ü"}),
    ("same key twice, same value", "bash", '{"command": "ls -la", "command": "ls -la"}', LS),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "text", "wanted"), [case[1:] for case in MENDED], ids=[case[0] for case in MENDED])
def test_arguments_with_one_meaning_run(tool: str, text: str, wanted: dict[str, Any]) -> None:
    assert accepted(tool, text) == wanted


REFUSED: list[tuple[str, str, str, str]] = [
    ("two objects", "bash", '{"command": "ls"}{"command": "rm -rf /"}', "invalid_json"),
    ("the same object twice", "bash", '{"command": "ls"}{"command": "ls"}', "invalid_json"),
    ("two objects on lines", "bash", '{"command": "ls"}\n{"command": "pwd"}', "invalid_json"),
    ("prose", "bash", "ls -la", "invalid_json"),
    ("prose around an object", "bash", 'I run {"command": "ls"} now', "invalid_json"),
    ("a list", "bash", '["ls"]', "invalid_json"),
    ("a number", "bash", "42", "invalid_json"),
    ("null", "bash", "null", "invalid_json"),
    ("comment", "bash", '{"command": "ls" /* all */}', "invalid_json"),
    ("same key, other value", "bash", '{"command": "ls", "command": "rm"}', "invalid_json"),
    ("NaN", "bash", '{"command": "ls", "timeout_s": NaN}', "invalid_arguments"),
    ("quotes twice", "file_edit", '{"path": "a", "old": "b", "new": ""c""}', "invalid_json"),
    ("a sum of texts", "bash", '{"command": "rm -rf a" + "b"}', "invalid_json"),
    ("backquotes", "bash", '{"command": `ls`}', "invalid_json"),
    ("signs before a bare word", "file_edit", '{"path": "a", "old": !!b, "new": "c"}', "invalid_json"),
    ("no value", "file_edit", '{"path": "a", "old": "b", "new": }', "invalid_json"),
    ("an escape of Python's", "bash", r"{'command': 'printf \x41'}", "invalid_json"),
    ("a line continued", "bash", "{'command': 'a\\\nb'}", "invalid_json"),
    ("half a surrogate pair", "bash", '{"command": "echo \\ud83d"}', "invalid_json"),
    ("nested too deeply", "bash", '{"command": ' + "[" * 100_000 + "]" * 100_000 + "}", "invalid_json"),
    ("missing key", "bash", "{}", "invalid_arguments"),
    ("missing keys", "file_edit", '{"path": "a"}', "invalid_arguments"),
    ("unknown key", "bash", '{"command": "ls", "sudo": true}', "invalid_arguments"),
    ("milliseconds of another program", "bash", '{"command": "ls", "timeout": 120000}', "invalid_arguments"),
    ("misspelt key", "bash", '{"comand": "ls"}', "invalid_arguments"),
    ("list of words as a command", "bash", '{"command": ["ls", "-la"]}', "invalid_arguments"),
    ("object as a text", "files_creation", '{"files": [{"path": "a", "content": {"b": 1}}]}', "invalid_arguments"),
    ("out of range", "file_read", '{"path": "a", "limit": 0}', "invalid_arguments"),
    ("not in the choices", "grep", '{"pattern": "a", "output_mode": "all"}', "invalid_arguments"),
    ("null for a needed key", "bash", '{"command": null}', "invalid_arguments"),
    ("broken list as text", "todo_write", json.dumps({"items": '[{"content": "a"'}), "invalid_arguments"),
    ("both our name and theirs", "file_read", '{"path": "a", "file_path": "b"}', "invalid_arguments"),
    ("brace missing", "bash", '{"command": "ls"', "cut_off"),
    ("open text", "bash", '{"command": "rm -rf ./bui', "cut_off"),
    ("open text in single quotes", "bash", "{'command': 'rm -rf }", "cut_off"),
    ("open list", "todo_write", '{"items": [{"content": "a"}', "cut_off"),
    ("after a key", "bash", '{"command":', "cut_off"),
    ("after a comma", "bash", '{"command": "ls",', "cut_off"),
    ("an opening brace", "bash", "{", "cut_off"),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "text", "kind"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_arguments_without_a_single_meaning_do_not_run(tool: str, text: str, kind: str) -> None:
    error = parse(tool, text)

    assert isinstance(error, ToolError)
    assert error.kind == kind
    assert "nothing ran" in error.message


LONG = json.dumps(
    {
        "files": [
            {"path": "src/a.py", "content": "def f():\n    return {'a': [1, 2]}\n"},
            {"path": "b.sh", "content": 'rm -rf ./build && echo "}" \\ done'},
        ],
        "overwrite": True,
    }
)


@pytest.mark.parametrize("finish_reason", ["length", "tool_calls", "stop", ""])
@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("bash", '{"command": "rm -rf ./build && make release", "timeout_s": 600}'),
        ("files_creation", LONG),
        ("files_creation", json.dumps(json.loads(LONG), indent=2)),
        ("file_edit", "{'path': 'a.py', 'old': 'x = {1}', 'new': 'y = [\"2\"]'}"),
        ("todo_write", '```json\n{"items": [{"content": "ü€😀"}]}\n```'),
        ("bash", json.dumps('{"command": "rm -rf ./build"}')),
    ],
    ids=["bash", "files", "pretty", "single quotes", "fence", "twice encoded"],
)
def test_arguments_cut_at_any_byte_never_run(tool: str, text: str, finish_reason: str) -> None:
    whole = accepted(tool, text)
    raw = text.encode()
    for end in range(len(raw)):
        parsed = parse(tool, raw[:end].decode("utf-8", "ignore"), finish_reason)
        if isinstance(parsed, ParsedCall):
            # Only the end of a code fence may be missing: the object itself is whole.
            assert parsed.arguments == whole, raw[:end]
            assert text.startswith("```")


@pytest.mark.parametrize("tool", REGISTRY.names)
def test_nothing_at_all_does_not_run_when_the_token_limit_was_reached(tool: str) -> None:
    error = parse(tool, "", "length")

    assert isinstance(error, ToolError)
    assert error.kind == "cut_off"
    assert "Send less at a time" in error.message


def test_a_call_of_an_answer_that_a_filter_broke_off_does_not_run() -> None:
    error = parse("bash", '{"command": "ls"}', "refusal")

    assert isinstance(error, ToolError)
    assert error.kind == "cut_off"
    assert "refusal" in error.message


def test_a_whole_call_before_the_token_limit_runs() -> None:
    assert isinstance(parse("bash", '{"command": "ls"}', "length"), ParsedCall)


def test_broken_json_is_not_mended_when_the_token_limit_was_reached() -> None:
    assert isinstance(parse("bash", '{"command": "ls",}', "length"), ToolError)


def test_what_was_mended_is_reported() -> None:
    parsed = parse("file_edit", "```\n{'file_path': 'a', 'old': 'b', 'new': 'c'}\n```")
    assert isinstance(parsed, ToolError)  # a fence and single quotes at once are too much guessing

    parsed = parse("file_edit", '```\n{"file_path": "a", "old": "b", "new": "c"}\n```')
    assert isinstance(parsed, ParsedCall)
    assert parsed.note == "removed a code fence; took file_path as path"


def test_a_call_as_it_should_be_has_no_note() -> None:
    parsed = parse("bash", '{"command": "ls", "description": "List"}')

    assert isinstance(parsed, ParsedCall)
    assert parsed.note == ""


def test_errors_name_keys_and_schema_but_no_values() -> None:
    error = parse("bash", '{"comand": "my secret", "timeout_s": "soon"}')

    assert isinstance(error, ToolError)
    assert "comand" in error.message
    assert "did you mean command?" in error.message
    assert "timeout_s" in error.message
    assert '"command"' in error.message
    assert "my secret" not in error.message
    assert "soon" not in error.message


def test_errors_inside_lists_say_where() -> None:
    error = parse("todo_write", '{"items": [{"content": "a"}, {"content": "b", "status": "later"}]}')

    assert isinstance(error, ToolError)
    assert "items[1].status" in error.message


def test_very_long_broken_arguments_are_not_guessed_at() -> None:
    error = parse("bash", '{"command": "' + "x" * 30_000 + '",}')

    assert isinstance(error, ToolError)


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_json_object_is_read_as_it_is(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)

    assert read_arguments(text) == (value, ())


_TEXTS = st.text(st.sampled_from("ab0 \n\t\\\"'{}[],:;+#/ü"), max_size=12)


@given(st.dictionaries(st.sampled_from("abc"), _TEXTS, max_size=3), st.sampled_from(["comma", "python", "bare keys"]))
def test_what_is_mended_is_what_was_meant_to_the_last_sign(value: dict[str, str], flaw: str) -> None:
    text = json.dumps(value)
    if flaw == "comma":
        text = f"{text[:-1]},}}"
    elif flaw == "python":
        text = repr(value)
    else:
        text = "{" + ", ".join(f"{key}: {json.dumps(item)}" for key, item in value.items()) + "}"
    try:
        read, _ = read_arguments(text)
    except ToolError:
        return  # to ask again is always right
    assert read == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_kind(text: str) -> None:
    outcome = parse("todo_read", text)

    assert isinstance(outcome, ParsedCall) or outcome.kind in ("cut_off", "invalid_json", "invalid_arguments")


@given(st.text(max_size=200))
def test_the_history_gets_a_json_object_whatever_was_written(text: str) -> None:
    assert isinstance(json.loads(history_arguments(text)), dict)
