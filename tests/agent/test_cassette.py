"""A run in a file, played again through the same agent: alike when nothing changed, told apart when something did."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.agent.bench import RUN, THREAD, Bench, bench, running
from tests.agent.test_agent import Poke, plan
from workflow.core.config import ModelSettings
from workflow.core.errors import BadInput, LeaseLost, ModelRefused
from workflow.core.events import Effect, RunQueued, ToolCall
from workflow.core.ids import CallId, RunId, thread_of
from workflow.core.records import Budgets, RunOptions
from workflow.llm.base import ModelRequest
from workflow.llm.cassette import Cassette, Exchange
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.runner.outcome import diff
from workflow.runner.recording import record
from workflow.runner.replay import Replayed, replay


def taped(subject: Bench, options: RunOptions | None = None) -> Cassette:
    """The run's cassette, through its file."""
    cassette = record(subject.journal.events, RUN, options=options)
    again = Cassette.read(list(cassette.lines()))
    assert again == cassette
    return again


async def played(subject: Bench, options: RunOptions | None = None, **agent: Any) -> Replayed:
    """The replay of the bench's run; `agent` are settings that differ from the recorded ones."""
    settings = subject.settings
    if agent:
        settings = settings.model_copy(update={"agent": settings.agent.model_copy(update=agent)})
    async with asyncio.timeout(20):
        return await replay(taped(subject, options), settings, environ={})


def assert_same(replayed: Replayed) -> None:
    assert replayed.mismatches == ()
    assert replayed.now == replayed.then
    assert replayed.is_same


FILES = tool_call("files_creation", files=[{"path": "a.txt", "content": "one\ntwo\n"}])
EDIT = tool_call("file_edit", path="a.txt", old="two", new="three")
READ = tool_call("file_read", path="a.txt")


# -- nothing changed


async def test_a_run_with_a_plan_files_and_parallel_calls_is_played_alike() -> None:
    subject = bench(
        Turn(text="First the plan.", tool_calls=(plan("in_progress", "pending"),)),
        Turn(tool_calls=(FILES, tool_call("todo_write", items=[{"content": "x", "status": "pending"}]))),
        Turn(tool_calls=(READ,)),
        Turn(tool_calls=(EDIT, tool_call("ls", path="."), tool_call("todo_read"))),
        Turn(tool_calls=(plan("done", "done"),)),
        "All done.",
    )
    await subject.attempt()
    replayed = await played(subject)
    assert_same(replayed)
    assert replayed.now.status == "finished"
    assert replayed.now.summary == "All done."
    assert replayed.now.files[0].startswith("a.txt modified")
    assert len(replayed.now.calls) == 8


async def test_a_replay_touches_nothing_and_asks_no_model() -> None:
    poke = Poke()
    subject = bench(Turn(tool_calls=(tool_call("poke", what="it"),)), "Done.", tools=[poke])
    await subject.attempt()
    assert_same(await played(subject))
    assert poke.count == 1


async def test_what_was_refused_before_it_ran_is_refused_alike() -> None:
    broken = ToolCall(id=CallId("c1"), name="bash", arguments='{"command": ')
    subject = bench(
        Turn(tool_calls=(broken, tool_call("no_such_tool", x=1))),
        Turn(tool_calls=(tool_call("ls", nonsense=True),)),
        "I give up.",
    )
    await subject.attempt()
    errors = [event.error for event in subject.journal.of("tool.result")]
    assert sorted(errors) == ["cut_off", "invalid_arguments", "unknown_tool"]
    assert_same(await played(subject))


async def test_failing_tools_fail_alike() -> None:
    subject = bench(Turn(tool_calls=(tool_call("file_read", path="missing.txt"), EDIT)), "It is not there.")
    await subject.attempt()
    assert_same(await played(subject))


async def test_what_a_person_said_is_said_at_the_same_place() -> None:
    poke = Poke(hang=False)
    subject = bench(
        Turn(tool_calls=(tool_call("poke", what="a"),)),
        Turn(tool_calls=(tool_call("poke", what="b"),)),
        "Done, in English.",
        tools=[poke],
    )
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        subject.journal.say("In English, please.")
        await task
    replayed = await played(subject)
    assert_same(replayed)
    said = [line for line in taped(subject).exchanges if line.type == "person"]
    assert len(said) == 1


async def test_approvals_and_questions_are_answered_as_they_were() -> None:
    ask = tool_call("ask_person", question="Which one?", choices=["left", "right"])
    subject = bench(
        Turn(tool_calls=(ask,)),
        Turn(tool_calls=(tool_call("ls", path="."),)),
        "Left it is.",
        approvals={"ls": "ask"},
    )
    for answer in ("left", "approve"):
        assert await subject.attempt(reason="answered") is not None
        (question,) = [q for q in subject.journal.of("approval.requested") if q.question_id not in _answered(subject)]
        subject.journal.answer(question.question_id, answer)
    assert await subject.attempt(reason="answered") is None
    assert_same(await played(subject))


def _answered(subject: Bench) -> set[str]:
    return {event.question_id for event in subject.journal.of("approval.resolved")}


async def test_a_run_that_was_taken_over_is_played_alike() -> None:
    poke = Poke(Effect.PURE)
    subject = bench(
        Turn(tool_calls=(tool_call("poke", what="a"),)),
        Turn(tool_calls=(tool_call("poke", what="b"),)),
        "Done.",
        tools=[poke],
    )
    subject.journal.die_after = 8
    with pytest.raises(LeaseLost):
        await subject.attempt()
    subject.journal.die_after = None
    await subject.attempt(reason="worker_lost")
    assert subject.journal.types().count("run.resumed") == 1
    assert_same(await played(subject))


async def test_a_run_that_was_cancelled_in_a_tool_ends_there_again() -> None:
    poke = Poke(hang=True)
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "never said", tools=[poke])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        subject.control.stop("cancel")
        await task
    replayed = await played(subject)
    assert_same(replayed)
    assert replayed.now.status == "cancelled"


@pytest.mark.parametrize("budget", [Budgets(turns=2), Budgets(tokens=1)])
async def test_a_run_that_used_up_its_budget_ends_there_again(budget: Budgets) -> None:
    options = RunOptions(budgets=budget)
    subject = bench(Turn(tool_calls=(READ,)), Turn(tool_calls=(READ,)), Turn(tool_calls=(READ,)), "never said")
    await subject.attempt(options=options)
    replayed = await played(subject, options)
    assert_same(replayed)
    assert replayed.now.reason == "budget_exceeded"


async def test_a_run_that_its_provider_refused_ends_there_again() -> None:
    subject = bench(Turn(tool_calls=(READ,)), ModelRefused("no more money on this key"))
    await subject.attempt()
    replayed = await played(subject)
    assert_same(replayed)
    assert (replayed.now.status, replayed.now.reason) == ("failed", "model_refused")


async def test_a_run_that_a_bug_ended_ends_there_again() -> None:
    class Buggy(Poke):
        async def run(self, args: Any, context: Any) -> Any:
            raise ValueError("a bug")

    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "never said", tools=[Buggy()])
    await subject.attempt()
    replayed = await played(subject)
    assert_same(replayed)
    assert replayed.now.reason == "internal"


async def test_a_run_that_made_room_makes_it_again() -> None:
    numbers = iter(range(6))

    def answer(request: ModelRequest) -> Turn | str:
        if not request.cache_breakpoints:
            return "These are my notes: files."
        number = next(numbers, None)
        if number is None:
            return "Done."
        file = {"path": f"{number}.txt", "content": "x" * 3000}
        return Turn(text="y" * 3000, tool_calls=(tool_call("files_creation", files=[file]),))

    subject = bench(*([answer] * 20))
    subject.context_tokens = 10_000
    small = ModelSettings(model="scripted", driver="scripted", context_tokens=10_000, max_output_tokens=2000)
    subject.settings = subject.settings.model_copy(
        update={"llm": subject.settings.llm.model_copy(update={"models": {"small": small}})}
    )
    await subject.attempt()
    assert "context.compacted" in subject.journal.types()
    notes = [line for line in taped(subject).answers if line.purpose == "notes"]
    assert {line.text for line in notes} == {"These are my notes: files."}
    assert_same(await played(subject))
    without = subject.settings.llm.model_copy(update={"models": {}})
    roomy = await replay(taped(subject), subject.settings.model_copy(update={"llm": without}), environ={})
    assert any("no summary was asked for" in mismatch for mismatch in roomy.mismatches)


async def test_a_later_run_of_a_thread_knows_the_earlier_ones() -> None:
    first = bench("My name is Bob.")
    await first.attempt(task="Who are you?")
    second = bench("I said Bob.")
    second.run_id = RunId("t1.r2")
    second.journal.events = list(first.journal.events)
    await second.journal.commit(RunQueued(thread_id=THREAD, run_id=second.run_id, task="Who did you say?"))
    await second.attempt(task="Who did you say?")
    cassette = record(second.journal.events, second.run_id)
    assert cassette.answers[0].sent[0]["text"].startswith("Who are you?")
    assert cassette.answers[0].sent[1] == {"role": "assistant", "text": "My name is Bob."}
    assert_same(await replay(cassette, second.settings, environ={}))


CALLS = st.sampled_from(
    [
        FILES,
        EDIT,
        READ,
        plan("in_progress"),
        plan("done"),
        tool_call("todo_write", items=[{"content": "x", "status": "pending"}]),
        tool_call("todo_read"),
        tool_call("ls", path="."),
        tool_call("grep", pattern="o"),
        tool_call("nonsense"),
        tool_call("suggest_next_steps", items=["rest"]),
    ]
)
TURNS = st.lists(
    st.builds(
        Turn, text=st.sampled_from(["", "Going on."]), tool_calls=st.lists(CALLS, min_size=1, max_size=3).map(tuple)
    ),
    max_size=5,
)


@given(turns=TURNS)
@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_whatever_a_run_did_its_replay_does_the_same(turns: list[Turn]) -> None:
    subject = bench(*turns, "Done.", "Done.", "Done.", "Done.")
    await subject.attempt()
    assert_same(await played(subject))


# -- something changed


async def test_other_limits_show_in_the_outcome_and_in_what_was_not_reached() -> None:
    subject = bench(Turn(tool_calls=(plan("in_progress"),)), "Done.", Turn(tool_calls=(plan("done"),)), "Really done.")
    await subject.attempt()
    assert_same(await played(subject))
    replayed = await played(subject, max_turns=2)
    assert not replayed.is_same
    assert (replayed.now.status, replayed.now.reason) == ("failed", "budget_exceeded")
    assert "turn 3 was not reached" in replayed.mismatches


async def test_a_question_that_nobody_was_asked_then_leaves_the_replay_waiting() -> None:
    subject = bench(Turn(tool_calls=(tool_call("ls", path="."),)), "Done.")
    await subject.attempt()
    replayed = await played(subject, approvals={"ls": "ask"})
    assert replayed.now.status == "waiting"
    assert not replayed.is_same


async def test_a_prompt_that_was_sent_otherwise_is_shown_with_its_turn_and_message() -> None:
    subject = bench(Turn(tool_calls=(READ,)), "Done.")
    await subject.attempt()
    cassette = taped(subject)
    first, *rest = cassette.exchanges
    assert isinstance(first, Exchange)
    forged = first.model_copy(update={"sent": ({"role": "user", "text": "another task"},)})
    changed = Cassette(cassette.header, cassette.before, (forged, *rest), cassette.end)
    replayed = await replay(changed, subject.settings, environ={})
    assert replayed.mismatches[0].startswith("turn 1: message 1 was user: 'another task' and is user: 'do it")
    assert not replayed.is_same


async def test_a_call_that_was_never_made_is_answered_as_unrecorded() -> None:
    subject = bench(Turn(tool_calls=(READ, tool_call("ls", path="."))), "Done.")
    await subject.attempt()
    cassette = taped(subject)
    without = tuple(line for line in cassette.exchanges if line.type != "tool" or line.tool != "ls")
    replayed = await replay(
        Cassette(cassette.header, cassette.before, without, cassette.end), subject.settings, environ={}
    )
    assert "turn 1: ls was called as it was not when recorded" in replayed.mismatches
    assert any(event.type == "tool.result" and event.error == "not_recorded" for event in replayed.events)


async def test_another_model_is_played_live_and_compared() -> None:
    script = '```script\n[{"text": "Another answer."}]\n```'
    subject = bench(Turn(tool_calls=(READ,)), "Done.")
    await subject.attempt(task=script)
    replayed = await replay(taped(subject), subject.settings, environ={}, model="scripted")
    assert (replayed.now.status, replayed.now.summary, replayed.now.calls) == ("finished", "Another answer.", ())
    text = "\n".join(diff(replayed.then, replayed.now))
    assert "-Done." in text
    assert "+Another answer." in text
    assert '-file_read {"path": "a.txt"}' in text
    assert not replayed.is_same


# -- files that are no cassettes


async def test_a_file_that_was_cut_or_forged_is_refused_with_its_line() -> None:
    subject = bench(Turn(tool_calls=(READ,)), "Done.")
    await subject.attempt()
    lines = list(taped(subject).lines())
    wrong: dict[str, list[str]] = {
        "cut off": lines[:-1],
        "begins with its header": lines[1:],
        "line 2": [lines[0], "{}", *lines[1:]],
        "version 9": [lines[0].replace('"version":1', '"version":9'), *lines[1:]],
        "one run": [*lines[:-1], lines[-1], lines[-1]],
        "line 1": ["not json"],
        "no run of thread_id": [lines[0].replace(f'"thread_id":"{thread_of(RUN)}"', '"thread_id":"../up"'), *lines[1:]],
        "no run of": [line.replace(thread_of(RUN), "../up") for line in lines],
        "no id": [line.replace('"before","event":{"id":"', '"before","event":{"id":"x') for line in lines],
        "run.queued": [line for line in lines if "run.queued" not in line],
    }
    for message, given_lines in wrong.items():
        with pytest.raises(BadInput, match=message):
            Cassette.read(given_lines)
    with pytest.raises(BadInput):
        Cassette.read([])


async def test_runs_that_have_not_ended_or_never_began_have_no_cassette() -> None:
    subject = bench("Done.")
    await subject.attempt()
    events = subject.journal.events
    with pytest.raises(BadInput, match="has not ended"):
        record(events[:-1], RUN)
    with pytest.raises(BadInput, match="never began"):
        record([event for event in events if event.type != "run.started"], RUN)


async def test_a_cassette_holds_no_webhook() -> None:
    subject = bench("Done.")
    await subject.attempt()
    cassette = taped(subject, RunOptions(webhook="https://example.org/?token=secret"))
    assert "secret" not in "\n".join(cassette.lines())
