"""What is too long or unreadable for a model, made short and readable without losing anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.harness import make_context
from workflow.core.config import ToolSettings
from workflow.core.errors import SandboxError
from workflow.sandboxes.memory import MemorySandbox
from workflow.tools.output import colours, file_name, is_binary, readable, show
from workflow.tools.truncate import head_and_tail


@given(st.text(alphabet="ab\n", max_size=400), st.integers(2, 200))
def test_head_and_tail_are_the_two_ends_and_nothing_is_counted_wrong(text: str, limit: int) -> None:
    cut = head_and_tail(text, limit)

    if cut is None:
        assert len(text) <= limit
        return
    assert text.startswith(cut.head)
    assert text.endswith(cut.tail)
    assert len(cut.head) + cut.dropped_chars + len(cut.tail) == len(text)
    assert len(cut.head) + len(cut.tail) <= limit


def test_a_cut_is_made_at_line_ends() -> None:
    text = "".join(f"line {n}\n" for n in range(1000))

    cut = head_and_tail(text, 1000)

    assert cut is not None
    assert cut.head.split("\n")[-1].startswith("line ")
    assert cut.tail.startswith("line ")
    shown = [int(line[5:]) for line in [*cut.head.split("\n"), *cut.tail.split("\n")] if line]
    assert len(shown) + cut.dropped_lines == 1000


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        (b"\x1b(Btext\x1b=", "text"),
        (b"10%\r20%\r30%\n", "30%\n"),
        (b"working...\rdone      \r\n", "done      \n"),
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"N\bNA\bAM\bME\bE", "NAME"),
        (b"a\0b", "a␀b"),
        (b"bell\x07", "bell"),
        ("ü€😀".encode(), "ü€😀"),
        (b"ab\xffcdefghijklmnop", "ab\ufffdcdefghijklmnop"),
        (b"", ""),
    ],
)
def test_terminal_output_becomes_plain_text(raw: bytes, text: str) -> None:
    assert readable(raw) == text


@given(st.binary(max_size=300))
def test_any_output_becomes_text_without_control_characters(raw: bytes) -> None:
    assert not any(char < " " and char not in "\n\t" for char in readable(raw))


def test_lists_with_nul_are_text_and_programs_are_binary() -> None:
    assert not is_binary(b"a.txt\0b.txt\0")
    assert is_binary(bytes(range(256)) * 4)


async def test_short_output_is_shown_as_it_is_and_not_kept() -> None:
    sandbox = MemorySandbox()

    shown = await show(make_context(sandbox), "short")

    assert (shown.text, shown.note, shown.file) == ("short", "", "")
    assert await sandbox.list(".", depth=5) == []


async def test_the_note_stands_below_the_text_and_names_the_file() -> None:
    sandbox = MemorySandbox()
    text = "\n".join(map(str, range(5000)))

    shown = await show(make_context(sandbox, settings=ToolSettings(output_chars=1000)), text)

    body, _, note = shown.with_note("other").rpartition("\n\n")
    assert note.startswith("[other]\n[Cut to 1,000 characters. All 5,000 lines are in .dialtone/outputs/")
    assert "[" not in body
    assert (await sandbox.read(shown.file)).decode() == text
    assert await sandbox.read(".dialtone/.gitignore") == b"*\n"


async def test_output_that_cannot_be_kept_is_still_shown() -> None:
    class Full(MemorySandbox):
        async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
            raise SandboxError("no space left")

    shown = await show(make_context(Full(), settings=ToolSettings(output_chars=1000)), "x" * 5000)

    assert "could not be kept" in shown.note
    assert len(shown.text) < 1200


@pytest.mark.parametrize("call_id", ["call_0", "1", "../../etc/x", "a/b c", "ü" * 80, "x" * 500, ""])
def test_any_call_id_gives_a_plain_file_name_of_its_own(call_id: str) -> None:
    sandbox = MemorySandbox()

    one = file_name(make_context(sandbox, call_id=call_id, turn=1))
    two = file_name(make_context(sandbox, call_id=call_id, turn=2))

    assert one != two
    assert all(part.isascii() and (part.isalnum() or part in "_-") for part in one)
    assert len(one) < 80


def test_colours_are_kept_for_people_and_every_other_code_is_not() -> None:
    assert colours(b"plain\n\x1b[2Jcleared") == ""
    assert colours(b"\x1b]0;title\x07\x1b[1;31mred\x1b[0m\x1b[5A") == "\x1b[1;31mred\x1b[0m"
    long = colours(b"\x1b[32mok\x1b[0m\n" * 10_000)
    assert len(long) <= 20_000 and long.startswith("\x1b[32mok") and long.endswith("\n")
