"""Putting answers together, as differently as servers send them."""

import json
from dataclasses import asdict

import pytest

from tests.llm.asking import ask
from workflow.core.texts import sound
from workflow.llm.pieces import Pieces, count


def calls_of(pieces: Pieces) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in pieces.completion().tool_calls]


def test_id_and_name_repeated_in_every_piece() -> None:
    pieces = Pieces(ask("x"))
    for arguments in ("{", "}"):
        pieces.add_call(0, call_id="a", name="bash", arguments=arguments)
    assert calls_of(pieces) == [("bash", "{}")]


def test_no_id_at_all() -> None:
    pieces = Pieces(ask("x"))
    pieces.add_call(0, name="bash", arguments="{}")
    pieces.add_call(1, name="ls", arguments="{}")
    calls = pieces.completion().tool_calls
    assert [call.name for call in calls] == ["bash", "ls"]
    assert len({call.id for call in calls}) == 2
    assert all(call.id for call in calls)


def test_every_call_numbered_0_and_told_apart_by_id() -> None:
    pieces = Pieces(ask("x"))
    pieces.add_call(0, call_id="a", name="bash", arguments="{}")
    pieces.add_call(0, call_id="b", name="ls", arguments="{}")
    assert calls_of(pieces) == [("bash", "{}"), ("ls", "{}")]


def test_the_same_id_for_every_call() -> None:
    pieces = Pieces(ask("x"))
    for key, name in enumerate(("bash", "ls")):
        pieces.add_call(key, call_id="same", name=name, arguments="{")
        pieces.add_call(key, call_id="same", arguments="}")
    calls = pieces.completion().tool_calls
    assert calls_of(pieces) == [("bash", "{}"), ("ls", "{}")]
    assert len({call.id for call in calls}) == 2


def test_pieces_without_a_number_belong_to_the_open_call() -> None:
    pieces = Pieces(ask("x"))
    pieces.add_call(None, call_id="a", name="bash", arguments="{")
    pieces.add_call(None, arguments="}")
    pieces.add_call(None, call_id="b", name="ls", arguments="{}")
    assert calls_of(pieces) == [("bash", "{}"), ("ls", "{}")]


def test_stop_after_calls_means_that_they_are_to_be_run() -> None:
    pieces = Pieces(ask("x"))
    pieces.finish_reason = "stop"
    pieces.add_call(0, call_id="a", name="bash", arguments="{}")
    assert pieces.completion().finish_reason == "tool_calls"


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_joined() -> None:
    assert sound("plain") == "plain"
    assert sound("Grüße 👋") == "Grüße 👋"
    assert sound("a\ud83d") == "a\ufffd"
    assert sound("\ud83d\udc4b") == "👋"
    pieces = Pieces(ask("x"))
    pieces.add_text("a\ud83d").text.encode()
    pieces.add_call(0, call_id="a\ud83d", name="bash\ud83d", arguments='{"a": "\ud83d"}')
    pieces.opaque.append({"type": "thinking", "thinking": "\ud83d\udc4b \ude00", "signature": "s"})
    json.dumps(asdict(pieces.completion()), ensure_ascii=False, default=dict).encode()
    assert pieces.completion().opaque[0]["thinking"] == "👋 \ufffd"


@pytest.mark.parametrize(
    ("sent", "tokens"), [(7, 7), (7.0, 7), ("7", 7), (-7, 0), (None, 0), ("many", 0), (float("inf"), 0), ([], 0)]
)
def test_a_count_is_read_whatever_a_server_makes_of_it(sent: object, tokens: int) -> None:
    assert count(sent) == tokens
