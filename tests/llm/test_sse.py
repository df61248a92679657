"""Cutting a byte stream into events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.core.errors import ModelOverloaded
from workflow.llm.sse import SseData

values = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(st.lists(values, max_size=8), st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(1, 20), min_size=1))
def test_events_are_the_same_however_the_bytes_are_cut(payloads: list[Any], end: str, cuts: list[int]) -> None:
    frames = [f": comment{end}event: x{end}data: {json.dumps(value)}{end}{end}" for value in payloads]
    body = "".join(frames).encode()
    parser = SseData()
    events: list[bytes] = []
    place = 0
    while place < len(body):
        size = cuts[place % len(cuts)]
        events += parser.feed(body[place : place + size])
        place += size
    assert [json.loads(event) for event in events] == payloads
    assert parser.end() == []


def test_data_on_several_lines_is_one_event() -> None:
    assert SseData().feed(b"data: {\ndata:  1}\n\n") == [b"{\n 1}"]


def test_the_last_event_counts_without_its_blank_line() -> None:
    parser = SseData()
    assert parser.feed(b"data: [DONE]") == []
    assert parser.end() == [b"[DONE]"]


def test_an_event_without_end_is_given_up() -> None:
    with pytest.raises(ModelOverloaded):
        SseData(max_event_bytes=100).feed(b"data: " + b"x" * 100)


def test_an_event_without_data_is_none() -> None:
    assert SseData().feed(b"data:\n\ndata: \n\nevent: ping\n\ndata: [DONE] \n\n") == [b"[DONE]"]
