"""The readable view: what each event looks like, and that previews and facts never say the same twice."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialtone.items import Gap, Reset, StreamItem, UnknownEvent, Waiting
from dialtone.text import columns
from dialtone.view import View, ViewOptions, render
from tests.client.test_text import is_harmless
from workflow.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    ContextCompacted,
    Delta,
    DeltaKind,
    Effect,
    FileChanged,
    Message,
    Notice,
    PlanStep,
    PlanUpdated,
    PreviewExposed,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
    SandboxReady,
    SuggestionsMade,
    Todo,
    TodoUpdated,
    ToolCall,
    ToolCalled,
    ToolResulted,
    Usage,
    UsageUpdated,
)
from workflow.core.ids import CallId, ItemId, RunId, ThreadId

T, R = ThreadId("t"), RunId("t.r")


def piece(offset: int, text: str, *, item: str = "m1", kind: DeltaKind = DeltaKind.TEXT) -> Delta:
    return Delta(run_id=R, turn=1, item=item, kind=kind, offset=offset, text=text)


def said(text: str, *, item: str = "m1", reasoning: str = "") -> Message:
    return Message(thread_id=T, run_id=R, turn=1, item=ItemId(item), text=text, reasoning=reasoning)


def called(command: str, *, call_id: str = "c1", tool: str = "bash") -> ToolCalled:
    arguments = {"command": command}
    return ToolCalled(
        thread_id=T, run_id=R, call_id=CallId(call_id), tool=tool, arguments=arguments, effect=Effect.UNSAFE
    )


def resulted(output: str) -> ToolResulted:
    return ToolResulted(
        thread_id=T,
        run_id=R,
        call_id=CallId("c1"),
        tool="bash",
        ok=True,
        output=output,
        data={"exit_code": 0},
        duration_ms=300,
    )


def out(offset: int, text: str, *, call_id: str = "c1") -> Delta:
    return piece(offset, text, item=call_id, kind=DeltaKind.STDOUT)


def test_a_run_that_waits_for_a_place_says_so_once() -> None:
    place = Waiting(run_id=R, waiting_for="quota")
    started = RunStarted(thread_id=T, run_id=R, at=1000, worker="w1", model="scripted", sandbox="local/T1")
    assert render([started, place, place, Waiting(run_id=R)]) == (
        "  started on w1 · scripted · local/T1\n  waiting for quota\n"
    )


def test_a_whole_run_reads_like_a_story() -> None:
    steps = (PlanStep(id="1", title="Write it", status="in_progress"), PlanStep(id="2", title="Test it"))
    later = (steps[0].model_copy(update={"status": "done", "note": "runs"}), steps[1])
    diff = "--- a\n+++ b\n@@ -0,0 +1 @@\n+print('hello')\n"
    story: list[StreamItem] = [
        RunQueued(thread_id=T, run_id=R, at=1000, task="Write hello"),
        Waiting(run_id=R, position=2, waiting_for="worker"),
        Waiting(run_id=R, position=2, waiting_for="worker"),
        RunStarted(thread_id=T, run_id=R, worker="w1", model="scripted", sandbox="local/T1"),
        PlanUpdated(thread_id=T, run_id=R, steps=steps),
        piece(0, "I will "),
        piece(7, "write it."),
        said("I will write it."),
        called("python hello.py"),
        out(0, "hello\nwor"),
        out(9, "ld\n"),
        resulted("hello\nworld\n"),
        FileChanged(thread_id=T, run_id=R, path="hello.py", change="created", diff=diff),
        PlanUpdated(thread_id=T, run_id=R, steps=later),
        UsageUpdated(
            thread_id=T,
            run_id=R,
            turn=1,
            call=Usage(),
            run=Usage(input_tokens=1000, cache_read_tokens=500, cost_usd=0.0123),
            model="scripted",
            left={"usd": 4.98},
        ),
        SuggestionsMade(thread_id=T, run_id=R, items=("Add tests",)),
        RunFinished(thread_id=T, run_id=R, turn=1, at=13_300, summary="Done.", usage=Usage(output_tokens=7)),
    ]
    assert render(story) == (
        "▶ Write hello\n"
        "  waiting for worker · 2 before it\n"
        "  started on w1 · scripted · local/T1\n"
        "Plan\n"
        "  ◐ 1. Write it\n"
        "  ☐ 2. Test it\n"
        "\n"
        "I will write it.\n"
        "\n"
        "● bash python hello.py\n"
        "  │ hello\n"
        "  │ world\n"
        "  ✔ exit 0 · 0.3 s\n"
        "+ hello.py created +1 −0\n"
        "  @@ -0,0 +1 @@\n"
        "  +print('hello')\n"
        "Plan\n"
        "  ☑ 1. Write it — runs\n"
        "  turn 1 · 1,500 tokens (500 cached) · $0.0123 · $4.98 left\n"
        "Next\n"
        "  1. Add tests\n"
        "\n"
        "Done.\n"
        "\n"
        "✔ finished · 12 s · 1 turn · 7 tokens\n"
    )


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.data())
def test_a_message_is_shown_once_whatever_previews_were_lost_or_repeated(text: str, data: st.DataObject) -> None:
    edges = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=5))})
    pieces = [piece(start, text[start:end]) for start, end in pairwise(edges)]
    kept = [delta for delta in pieces if data.draw(st.booleans())]
    repeated = data.draw(st.lists(st.sampled_from(pieces), max_size=3)) if pieces else []
    late = data.draw(st.lists(st.sampled_from(pieces), max_size=2)) if pieces else []
    assert render([*kept, *repeated, said(text), *late]) == render([said(text)])


@given(st.lists(st.sampled_from(["a", "bb\n", "\n", "c\nd", "longer line\n"]), min_size=1, max_size=12), st.data())
def test_output_is_shown_once_when_the_end_of_its_previews_is_lost(chunks: list[str], data: st.DataObject) -> None:
    whole = "".join(chunks)
    seen = data.draw(st.integers(0, len(chunks)))
    offsets = [sum(map(len, chunks[:index])) for index in range(len(chunks))]
    pieces = [out(offset, chunk) for offset, chunk in zip(offsets, chunks, strict=True)]
    assert render([called("x"), *pieces[:seen], resulted(whole)]) == render([called("x"), resulted(whole)])


def test_output_with_a_hole_is_completed_from_the_result() -> None:
    text = render([called("x"), out(0, "one\n"), out(8, "three\n"), resulted("one\ntwo\nthree\n")])
    assert text == "● bash x\n  │ one\n  │ two\n  │ three\n  ✔ exit 0 · 0.3 s\n"


def test_a_message_that_turns_out_different_is_said_to_be_written_anew() -> None:
    assert render([piece(0, "Helo"), said("Hello")]) == "Helo\n\n(the message was written anew)\n\nHello\n\n"


@pytest.mark.parametrize("seen", range(4))
def test_output_as_the_shell_tool_reports_it_is_shown_once_with_its_remarks(seen: int) -> None:
    """The result has no escape codes, standard error after standard output, and notes in brackets."""
    pieces: list[StreamItem] = [
        out(0, "\x1b[32mone\x1b[0m\n50%\r100%\nla"),
        out(24, "st"),
        piece(0, "oops\n", item="c1", kind=DeltaKind.STDERR),
    ]
    result = resulted("one\n100%\nlast\noops\n\n[exit status 0, 0.3 s]\n[Cut to 30,000 characters.]")
    text = render([called("x"), *pieces[:seen], result])
    assert text.splitlines()[1:] == [
        "  │ one", "  │ 100%", *(["  │ oops", "  │ last"] if seen == 3 else ["  │ last", "  │ oops"]),
        "  Cut to 30,000 characters.", "  ✔ exit 0 · 0.3 s",
    ]  # fmt: skip


def test_output_whose_middle_was_left_out_ends_with_what_was_not_shown() -> None:
    start: list[StreamItem] = [called("x"), out(0, "one\ntwo\n")]
    cut = resulted("one\n… 8 lines (80 characters) left out …\nlast\n\n[exit status 0, 0.3 s]")
    assert "  │ … some output could not be shown live; it ends with\n" in render([*start, cut])
    assert render([*start, out(8, "last\n"), cut]).splitlines()[1:-1] == ["  │ one", "  │ two", "  │ last"]


def test_long_output_shows_its_head_and_its_tail() -> None:
    lines = [f"line {number}" for number in range(100)]
    options = ViewOptions(output_lines=3)
    offsets = [sum(len(x) + 1 for x in lines[:index]) for index in range(100)]
    live = [out(offset, f"{line}\n") for offset, line in zip(offsets, lines, strict=True)]
    text = render([called("x"), *live, resulted("\n".join(lines) + "\n")], options)
    shown = [line.removeprefix("  │ ") for line in text.splitlines()[1:-1]]
    assert shown == ["line 0", "line 1", "line 2", "… 92 more lines", *lines[95:]]


def test_parallel_calls_say_whose_lines_follow() -> None:
    text = render(
        [
            called("first", call_id="a"),
            called("second", call_id="b"),
            out(0, "from a\n", call_id="a"),
            out(0, "from b\n", call_id="b"),
            out(7, "a again\n", call_id="a"),
        ]
    )
    assert text.splitlines() == [
        "● bash first",
        "● bash second",
        "┄ ● bash first",
        "  │ from a",
        "┄ ● bash second",
        "  │ from b",
        "┄ ● bash first",
        "  │ a again",
    ]


def test_a_failed_call_names_its_error() -> None:
    failed = ToolResulted(
        thread_id=T, run_id=R, call_id=CallId("c1"), tool="file_edit", ok=False, output="no match", error="not_found"
    )
    assert render([called("x", tool="file_edit"), failed]).splitlines()[-1] == "  ✘ not_found 0.0 s"


def test_thinking_is_mentioned_and_shown_only_when_asked_for() -> None:
    items: list[StreamItem] = [
        piece(0, "Hmm, ", kind=DeltaKind.REASONING),
        piece(5, "so be it.", kind=DeltaKind.REASONING),
        said("Yes.", reasoning="Hmm, so be it."),
    ]
    assert render(items) == "thinking …\n\nYes.\n\n"
    assert render(items, ViewOptions(reasoning=True)) == "Hmm, so be it.\n\nYes.\n\n"
    assert render(items[-1:], ViewOptions(reasoning=True)) == "Hmm, so be it.\n\nYes.\n\n"


def test_only_the_steps_that_changed_are_shown_again() -> None:
    before = (Todo(content="a", status="in_progress"), Todo(content="b"))
    after = (Todo(content="a", status="completed"), Todo(content="b"))
    items: list[StreamItem] = [TodoUpdated(thread_id=T, run_id=R, items=x) for x in (before, before, after)]
    assert render(items) == "Todos\n  ◐ a\n  ☐ b\nTodos\n  ☑ a\n"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            RunFailed(thread_id=T, run_id=R, reason="budget_exceeded", detail="money"),
            "✘ failed: budget_exceeded\n  money\n",
        ),
        (RunCancelled(thread_id=T, run_id=R, reason="by you"), "■ cancelled: by you\n"),
        (
            RunResumed(thread_id=T, run_id=R, attempt=2, reason="worker_lost", worker="w2"),
            "w2 (attempt 2, worker_lost)",
        ),
        (SandboxReady(thread_id=T, provider="local", tier="T1", network="off", gaps=("x",)), "not guaranteed: x"),
        (PreviewExposed(thread_id=T, port=80, url="http://x/", expires_at=1), "↗ http://x/"),
        (ApprovalResolved(thread_id=T, question_id="q", answer="yes", by="ann"), "answered: yes by ann"),
        (ContextCompacted(thread_id=T, summary="s", through="1-1", tokens_before=9000, tokens_after=10), "9,000 → 10"),
        (Notice(thread_id=T, code="retry", text="trying again"), "! trying again"),
        (UnknownEvent(thread_id=T, type="hologram.shown"), "hologram.shown"),
        (Message(thread_id=T, role="user", item=ItemId("s"), text="faster"), "» faster"),
    ],
)
def test_every_other_event_has_its_line(event: StreamItem, line: str) -> None:
    assert line in render([event])


def test_a_question_shows_what_it_is_about_and_the_answers() -> None:
    question = ApprovalRequested(
        thread_id=T, question_id="q", kind="approval", prompt="Run it?", choices=("yes", "no"), tool="bash",
        arguments={"command": "rm -rf build"},
    )  # fmt: skip
    assert render([question]) == "? May it?\n  Run it?\n  bash rm -rf build\n  answers: yes | no\n"


def test_a_call_that_waits_for_approval_is_shown_whole_and_with_nothing_hidden() -> None:
    command = f"echo {'y' * 300} ; rm -rf /home\necho \x1b[8m2\rls \u202e3\n  echo 漢字漢字"
    question = ApprovalRequested(
        thread_id=T, question_id="q", kind="approval", prompt="May the agent do this? " * 9,
        choices=("yes " * 30, "no"), tool="bash", arguments={"command": command},
    )  # fmt: skip
    text = render([question], ViewOptions(width=60))
    assert all(columns(line) <= 60 for line in text.splitlines())
    together = "".join(line[2:] for line in text.splitlines())
    assert "y" * 300 in together and "rm -rf /home" in text and "echo ␛[8m2␍ls �3" in text and "漢字漢字" in text
    assert text.count("May the agent do this?") + text.count("May the\n") + text.count("May\n") >= 7
    assert together.count("yes") == 30 and "| no" in text


def test_every_argument_of_a_call_that_waits_for_approval_is_shown() -> None:
    question = ApprovalRequested(
        thread_id=T, question_id="q", kind="approval", prompt="May it?", tool="file_edit",
        arguments={"path": "a.txt", "old": "one", "new": "x" * 30_000},
    )  # fmt: skip
    text = render([question])
    assert '"new": "xxx' in text and '"old": "one"' in text and "more characters, in `dialtone logs" in text


def test_a_gap_tells_its_range_and_what_the_missing_events_would_have_told() -> None:
    state = {
        "transcript": [{"type": "message", "text": "Half way."}, {"type": "nonsense"}, "junk"],
        "plan": [{"id": "1", "title": "Write it", "status": "done"}],
        "todos": "unreadable",
        "files": {"b.py": {}, "a.py": {}},
        "questions": {"q": {"thread_id": "t", "question_id": "q", "kind": "question", "prompt": "Which?"}},
    }
    text = render([Gap(first="9-1", last="9-8", state=state)])
    assert text == (
        "! events 9-1 to 9-8 are no longer in the log\n\nHalf way.\n\nPlan\n  ☑ 1. Write it\nFiles\n  a.py\n  b.py\n"
        "? Question\n  Which?\n"
    )


def test_a_reset_forgets_what_was_shown() -> None:
    text = render([piece(0, "Old"), Reset(epoch=1), said("Old and new")])
    assert text == "Old\n\n! this is another log than before; it starts anew\n\nOld and new\n\n"


hostile = st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b\r\n\x07\x9b\u202e[]0;m"), max_size=80)


@given(hostile, st.booleans())
def test_no_field_of_any_event_reaches_the_screen_unsafe(text: str, reasoning: bool) -> None:
    call = ToolCall(id=CallId(text or "c"), name=text)
    items: list[StreamItem] = [
        RunQueued(thread_id=T, run_id=R, task=text),
        Waiting(run_id=R, waiting_for=text),
        RunStarted(thread_id=T, run_id=R, worker=text, model=text, sandbox=text),
        PlanUpdated(thread_id=T, run_id=R, steps=(PlanStep(id=text[:40], title=text, status="done", note=text),)),
        TodoUpdated(thread_id=T, run_id=R, items=(Todo(content=text),)),
        piece(0, text, kind=DeltaKind.REASONING),
        piece(0, text[:5]),
        said(text, reasoning=text).model_copy(update={"tool_calls": (call,)}),
        ToolCalled(
            thread_id=T, run_id=R, call_id=CallId("c"), tool=text, arguments={text: text}, effect=Effect.PURE, note=text
        ),
        out(0, text[:9], call_id="c"),
        ToolResulted(thread_id=T, run_id=R, call_id=CallId("c"), tool=text, ok=False, output=text, error=text),
        FileChanged(thread_id=T, run_id=R, path=text, change="modified", diff=text),
        ApprovalRequested(
            thread_id=T,
            question_id=text,
            kind="review",
            prompt=text,
            choices=(text,),
            tool=text,
            arguments={"path": text},
        ),
        ApprovalResolved(thread_id=T, question_id=text, answer=text, by=text, note=text),
        PreviewExposed(thread_id=T, port=1, url=text, expires_at=0),
        SandboxReady(thread_id=T, provider=text, tier=text, network=text, gaps=(text,)),
        SuggestionsMade(thread_id=T, items=(text,)),
        Notice(thread_id=T, code=text, text=text),
        UnknownEvent(thread_id=T, type=text),
        Message(thread_id=T, role="user", item=ItemId("u"), text=text),
        Gap(first=text, last=text, state={"transcript": [{"type": "message", "text": text}], "files": {text: 1}}),
        RunFailed(thread_id=T, run_id=R, reason=text, detail=text, summary=text),
    ]
    assert is_harmless(render(items, ViewOptions(reasoning=reasoning)))


def test_a_huge_line_costs_little_and_is_clipped() -> None:
    view = View(ViewOptions(width=80))
    view.feed(called("x"))
    for index in range(300):
        assert view.feed(out(index * 100_000, "z" * 100_000)) == ""
    (line, _verdict) = view.feed(resulted("z" * 30_000_000)).splitlines()
    assert line.endswith("…") and len(line) <= 80


def test_colors_are_used_only_when_asked_for() -> None:
    item = Notice(thread_id=T, code="c", text="\x1b[31mred")
    assert "\x1b" not in render([item])
    colored = render([item], ViewOptions(color=True))
    assert colored == "\x1b[33m  ! red\x1b[0m\n"


def test_rendering_a_replayed_run_gives_what_its_stream_gave() -> None:
    items: list[StreamItem] = [piece(0, "He"), said("Hello"), RunFinished(thread_id=T, run_id=R)]
    assert json.loads(items[1].model_dump_json())["text"] == "Hello"
    assert render(items) == render(items[1:])
