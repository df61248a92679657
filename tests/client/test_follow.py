"""The rules of following a stream: cursor, pauses, end. No network, a clock by hand."""

import json

import pytest

from dialtone.errors import BadRequest, NotFound, Unreachable
from dialtone.follow import Follow, is_after
from dialtone.items import Gap, Reset, StreamItem
from tests.client.stub_gateway import fact_frame, frame


def notice(seq: int, *, run_id: str = "t.r", type: str = "notice", epoch: int = 9) -> bytes:
    fields = {"code": "c", "text": "x"} if type == "notice" else {}
    return fact_frame({"id": f"{epoch}-{seq}", "at": 1, "thread_id": "t", "run_id": run_id, "type": type, **fields})


def take(follow: Follow, *frames: bytes) -> list[StreamItem]:
    follow.opened()
    return [item for piece in frames for item in follow.feed(piece)]


def test_the_cursor_moves_only_over_events_that_were_taken() -> None:
    follow = Follow()
    follow.opened()
    items = follow.feed(notice(1) + notice(2))
    next(items)
    assert follow.headers()["Last-Event-ID"] == "9-1"
    next(items)
    assert follow.headers()["Last-Event-ID"] == "9-2"


def test_an_event_that_comes_again_is_dropped() -> None:
    follow = Follow()
    assert len(take(follow, notice(1), notice(2), notice(2), notice(1), notice(3))) == 3


def test_a_fresh_stream_asks_for_its_start_and_a_resumed_one_for_its_cursor() -> None:
    follow = Follow(run_id="t.r", start="9-4", deltas=False)
    assert follow.params() == {"deltas": "false", "run_id": "t.r", "from": "9-4"}
    take(follow, notice(5))
    assert follow.params() == {"deltas": "false", "run_id": "t.r"}


def test_the_terminal_event_of_the_run_ends_the_stream_and_that_of_another_does_not() -> None:
    follow = Follow(run_id="t.r")
    take(follow, notice(1, run_id="t.other", type="run.finished"))
    assert not follow.done
    take(follow, notice(2, type="run.finished"))
    assert follow.done and follow.pause_s() == 0


def test_204_ends_the_stream() -> None:
    follow = Follow()
    follow.answered(204, b"")
    assert follow.done


def test_after_a_gap_the_stream_resumes_behind_it() -> None:
    follow = Follow(last_id="9-2")
    (gap,) = take(follow, frame("gap", json.dumps({"from": "9-3", "to": "9-8", "state": {"plan": []}})))
    assert gap == Gap(first="9-3", last="9-8", state={"plan": []})
    assert follow.headers()["Last-Event-ID"] == "9-8"


def test_a_gap_whose_state_holds_the_end_of_the_run_ends_the_stream() -> None:
    follow = Follow(run_id="t.r", last_id="9-2")
    take(
        follow, frame("gap", json.dumps({"from": "9-3", "to": "9-8", "state": {"runs": {"t.r": {"status": "failed"}}}}))
    )
    assert follow.done


def test_a_reset_forgets_the_cursor_and_takes_the_new_log_from_its_start() -> None:
    follow = Follow(last_id="5-100")
    items = take(follow, frame("reset", '{"epoch": 9}'), notice(1))
    assert isinstance(items[0], Reset) and len(items) == 2
    assert follow.headers()["Last-Event-ID"] == "9-1"


def test_a_retryable_error_inside_the_stream_reconnects_and_another_one_is_raised() -> None:
    follow = Follow()
    assert take(follow, frame("error", '{"status": 503, "code": "unavailable"}') + notice(1)) == []
    assert not follow.connected and not follow.done
    with pytest.raises(BadRequest, match="bad_cursor"):
        take(follow, frame("error", '{"status": 400, "code": "bad_cursor"}'))


def test_refusals_that_cannot_heal_are_raised_and_others_waited_out_as_told() -> None:
    follow = Follow(jitter=lambda: 0.0)
    follow.answered(503, b"not even json", retry_after="7")
    assert 7 <= follow.pause_s() < 8
    with pytest.raises(NotFound):
        follow.answered(404, b"{}")


def test_pauses_grow_from_what_the_gateway_asks_for_and_shrink_again_after_a_word() -> None:
    follow = Follow(jitter=lambda: 1.0, patience_s=1e9)
    take(follow, b"retry: 200\n\n")
    pauses = []
    for _ in range(4):
        follow.lost(OSError("cut"))
        pauses.append(follow.pause_s())
    assert pauses == [0.2, 0.4, 0.8, 1.6]
    take(follow, notice(1))
    follow.lost(OSError("cut"))
    assert follow.pause_s() == 0.2


def test_patience_ends_only_after_an_unbroken_silence() -> None:
    now = [0.0]
    follow = Follow(patience_s=10, clock=lambda: now[0])
    for moment in (100.0, 109.0):
        now[0] = moment
        follow.lost(OSError("refused"))
    now[0] = 111.0
    with pytest.raises(Unreachable, match="refused"):
        follow.lost(OSError("refused"))


def test_a_preview_or_message_of_an_unknown_kind_is_passed_over() -> None:
    follow = Follow()
    assert take(follow, frame("task_agent_execute", '{"type": "hologram"}'), frame("keep_alive", "{}")) == []


@pytest.mark.parametrize(
    ("event_id", "cursor", "after"),
    [("9-10", "9-9", True), ("9-9", "9-9", False), ("9-9", "9-10", False), ("8-1", "9-1", True), ("9-1", "", True)],
)
def test_ids_compare_as_numbers_within_one_log(event_id: str, cursor: str, after: bool) -> None:
    assert is_after(event_id, cursor) is after
