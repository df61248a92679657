"""The stream parser: every way of cutting and ending lines gives the same messages."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialtone.errors import ProtocolError
from dialtone.sse import SseMessage, SseParser

lines_of_text = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)
names = st.text(st.characters(categories=["L"]), min_size=1, max_size=12)


@st.composite
def messages(draw: st.DrawFn) -> SseMessage:
    data = "\n".join(draw(st.lists(lines_of_text, min_size=1, max_size=3)))
    own_id = draw(st.none() | lines_of_text.filter(lambda text: "\0" not in text))
    return SseMessage(draw(names), data, own_id)


def parse(stream: bytes, cuts: list[int]) -> list[SseMessage]:
    parser = SseParser()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [message for start, end in pairwise(edges) for message in parser.feed(stream[start:end])]


@given(
    st.lists(messages(), max_size=5),
    st.lists(st.integers(0, 10_000), max_size=8),
    st.sampled_from(["\n", "\r", "\r\n"]),
    st.booleans(),
)
def test_messages_survive_any_split_and_any_line_end(
    sent: list[SseMessage], cuts: list[int], end: str, with_bom: bool
) -> None:
    lines = ["\ufeff: a comment" if with_bom else ": a comment"]
    for message in sent:
        lines.append(f"event: {message.event}")
        lines += [] if message.id is None else [f"id: {message.id}"]
        lines += [f"data: {line}" for line in message.data.split("\n")]
        lines.append("")
    stream = "".join(line + end for line in lines).encode()
    assert parse(stream, cuts) == sent


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_give_the_same_messages_however_they_are_split(stream: bytes, cuts: list[int]) -> None:
    assert parse(stream, cuts) == parse(stream, [])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data\n\n", [SseMessage("message", "")]),
        (b"data:a\ndata: b\ndata:  c\n\n", [SseMessage("message", "a\nb\n c")]),
        (b"event: x\n\ndata: y\n\n", [SseMessage("message", "y")]),
        (b"id: 1\0\ndata: y\n\n", [SseMessage("message", "y")]),
        (b"id\ndata: y\n\n", [SseMessage("message", "y", "")]),
        (b"nonsense: x\n:comment\ndata: y\n\n", [SseMessage("message", "y")]),
        (b"data: cut off at the end", []),
        (b"data: no empty line\n", []),
        (b"data: \xff\n\n", [SseMessage("message", "\ufffd")]),
        ("data: a\u2028b\x0bc\x85d\n\n".encode(), [SseMessage("message", "a\u2028b\x0bc\x85d")]),
    ],
)
def test_fields_are_read_as_the_standard_says(stream: bytes, expected: list[SseMessage]) -> None:
    assert SseParser().feed(stream) == expected


def test_the_newest_id_and_retry_are_kept() -> None:
    parser = SseParser()
    parser.feed(b"id: 7\n\nretry: 250\nretry: soon\ndata: x\n\n")
    assert (parser.last_id, parser.retry_ms) == ("7", 250)


@pytest.mark.parametrize("line_end", [b"", b"\n"])
def test_a_message_without_end_is_refused_instead_of_kept(line_end: bytes) -> None:
    parser = SseParser(max_bytes=1000)
    parser.feed((b"data: " + b"x" * 90 + line_end) * 9)
    with pytest.raises(ProtocolError, match="longer than 1000"):
        parser.feed((b"data: " + b"x" * 90 + line_end) * 9)
