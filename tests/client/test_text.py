"""Nothing from outside can steer the terminal, and no line is wider than asked."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialtone.text import clip, columns, neutral, neutral_line, one_line, safe_lines


def is_harmless(text: str, *, allowed: str = "\n") -> bool:
    return all(char in allowed or unicodedata.category(char) not in {"Cc", "Cs"} for char in text)


@given(st.text(st.characters()))
def test_no_control_character_survives(text: str) -> None:
    assert is_harmless(neutral(text))
    assert is_harmless(neutral_line(text.replace("\n", "")), allowed="")


@given(st.text(st.characters()), st.integers(0, 200))
def test_text_in_pieces_is_made_safe_as_the_whole_is(text: str, cut: int) -> None:
    assert neutral(text[:cut]) + neutral(text[cut:]) == neutral(text)


@given(st.text(), st.integers(1, 100))
def test_a_clipped_line_is_never_wider_than_asked(text: str, width: int) -> None:
    assert columns(clip(neutral_line(text.replace("\n", "")), width)) <= width


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq payload\x1b\\x", "x"),
        ("10%\r 50%\r100%", "100%"),
        ("done\r", "done"),
        ("a\tb", "a    b"),
        ("half\x1b", "half␛"),
        ("bell\x07 \x9b31m", "bell␇ \ufffd31m"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
    ],
)
def test_a_line_reads_as_a_person_would_have_seen_it(line: str, seen: str) -> None:
    assert neutral_line(line) == seen


def test_wide_characters_count_twice_and_marks_not_at_all() -> None:
    assert columns("日本") == 4
    assert columns("e\u0301") == 1
    assert clip("日本語", 4) == "日…"


def test_huge_texts_are_cut_before_they_are_worked_on() -> None:
    assert one_line("x" * 10_000_000, 20) == "x" * 19 + "…"
    assert safe_lines("a\n" + "y" * 1_000_000, 10) == ["a", "yyyyyyyyy…"]
