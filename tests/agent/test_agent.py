"""What the agent promises, seen in the log of a run."""

import asyncio
import itertools
from typing import Any

import pytest

from tests.agent.bench import RUN, THREAD, Bench, bench, running
from workflow.core.errors import LeaseLost, ModelOverloaded, ModelRefused
from workflow.core.events import Effect, ToolCall, Usage
from workflow.core.ids import CallId
from workflow.core.records import Budgets, RunOptions
from workflow.llm.base import ModelRequest, ToolMessage, UserMessage
from workflow.llm.scripted import ScriptedLLM
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput


class PokeArgs(ToolArgs):
    what: str = ""


class Poke(Tool[PokeArgs]):
    """Counts its calls; may hang until told."""

    name = "poke"
    description = "Pokes."
    effect = Effect.UNSAFE

    def __init__(self, effect: Effect = Effect.PURE, *, hang: bool = False) -> None:
        self.kind = effect
        self.count = 0
        self.together = 0
        self.most_together = 0
        self.hang = hang
        self.started = asyncio.Event()

    def effect_of(self, args: PokeArgs) -> Effect:
        return self.kind

    async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
        self.count += 1
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        self.started.set()
        try:
            await asyncio.sleep(3600 if self.hang else 0.01)
        finally:
            self.together -= 1
        return ToolOutput(f"poked {args.what} ({self.count})")


def plan(*statuses: str) -> ToolCall:
    steps = [{"id": str(n), "title": f"Step {n}", "status": s} for n, s in enumerate(statuses, 1)]
    return tool_call("job_plan", steps=steps)


def terminal(subject: Bench) -> Any:
    ends = [event for event in subject.journal.events if event.terminal]
    assert len(ends) == 1, subject.journal.types()
    return ends[0]


async def test_a_run_that_only_answers_finishes_with_its_text() -> None:
    subject = bench("Hello there.")
    assert await subject.attempt() is None
    assert subject.journal.types() == ["run.queued", "run.started", "sandbox.ready", "message", "usage", "run.finished"]
    assert terminal(subject).summary == "Hello there."
    assert "".join(delta.text for delta in subject.journal.deltas) == "Hello there."


async def test_intents_are_committed_before_results_and_calls_run_side_by_side() -> None:
    poke = Poke()
    calls = tuple(tool_call("poke", what=str(n)) for n in range(3))
    subject = bench(Turn(tool_calls=calls), "Done.", tools=[poke])
    await subject.attempt()
    types = subject.journal.types()
    assert types.index("tool.result") > max(i for i, t in enumerate(types) if t == "tool.call")
    assert types.count("tool.call") == types.count("tool.result") == 3
    assert poke.most_together == 3
    assert terminal(subject).type == "run.finished"


async def test_tool_results_reach_the_model_in_call_order_with_the_plan() -> None:
    requests: list[ModelRequest] = []

    def last(request: ModelRequest) -> str:
        requests.append(request)
        return "Done."

    first = Turn(tool_calls=(plan("done"), tool_call("poke", what="a")))
    subject = bench(first, last, tools=[Poke()])
    await subject.attempt()
    answers = [m for m in requests[0].messages if isinstance(m, ToolMessage)]
    assert [m.name for m in answers] == ["job_plan", "poke"]
    assert answers[-1].text.endswith("<plan>[x] 1 Step 1</plan>")


async def test_unknown_tools_and_bad_arguments_go_back_to_the_model() -> None:
    calls = (
        tool_call("pokee"),
        ToolCall(id=CallId("c2"), name="poke", arguments='{"what": 3, "no": 1}'),
        ToolCall(id=CallId("c3"), name="poke", arguments='{"what": "x'),
    )
    subject = bench(Turn(tool_calls=calls), "Done.", tools=[poke := Poke()])
    await subject.attempt()
    results = subject.journal.of("tool.result")
    assert [r.ok for r in results] == [False] * 3
    assert "poke" in results[0].output
    assert poke.count == 0
    assert terminal(subject).type == "run.finished"


async def test_call_ids_that_a_model_repeats_are_told_apart() -> None:
    turn = Turn(tool_calls=(ToolCall(id=CallId("call_0"), name="poke", arguments="{}"),))
    subject = bench(turn, turn, "Done.", tools=[poke := Poke()])
    await subject.attempt()
    ids = [r.call_id for r in subject.journal.of("tool.result")]
    assert len(set(ids)) == 2 == poke.count


async def test_stopping_with_open_plan_steps_is_answered_by_a_reminder() -> None:
    subject = bench(
        Turn(tool_calls=(plan("done", "pending"),)), "All done.", Turn(tool_calls=(plan("done", "done"),)), "Really."
    )
    await subject.attempt()
    reminders = [m for m in subject.journal.of("message") if m.origin == "agent"]
    assert len(reminders) == 1
    assert terminal(subject).summary == "Really."


async def test_a_run_whose_plan_stays_open_ends_but_never_as_finished() -> None:
    subject = bench(Turn(tool_calls=(plan("done", "pending"),)), "A.", "B.", "C.")
    await subject.attempt()
    end = terminal(subject)
    assert (end.type, end.reason) == ("run.failed", "stuck")
    assert end.detail.endswith("neither done nor dropped: 2")
    assert end.summary == "- [x] Step 1\n- [ ] Step 2\nC."


async def test_calls_of_one_id_are_two_calls_and_need_two_approvals() -> None:
    call = tool_call("poke", what="x").model_copy(update={"id": "same"})
    tool = Poke()
    subject = bench(Turn(tool_calls=(call, call)), "Done.", tools=[tool], approvals={"poke": "ask"})
    await subject.attempt()
    first, second = subject.journal.of("approval.requested")
    subject.journal.answer(first.question_id, "approve")
    subject.journal.answer(second.question_id, "deny")
    await subject.attempt(reason="answered")
    assert tool.count == 1
    assert [result.error for result in subject.journal.of("tool.result")] == ["denied", ""]


async def test_of_hundreds_of_calls_in_one_answer_only_the_first_run() -> None:
    tool = Poke()
    subject = bench(Turn(tool_calls=tuple(tool_call("poke", what="x") for _ in range(300))), "Done.", tools=[tool])
    await subject.attempt()
    assert tool.count == 100
    assert [result.error for result in subject.journal.of("tool.result")].count("too_many_calls") == 200
    assert terminal(subject).type == "run.finished"


async def test_no_text_that_a_tool_comes_upon_ends_the_run() -> None:
    class Odd(Poke):
        async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
            return ToolOutput("half \ud83d", data={"half": ["\ud83d"]})

    subject = bench(
        Turn(tool_calls=(tool_call("poke", what="x"),)),
        *[Turn(tool_calls=(tool_call("file_read", path=path),)) for path in ("a.ipynb", "bad.txt")],
        Turn(tool_calls=(tool_call("file_edit", path="bad.txt", old="old", new="new"),)),
        "Done.",
        tools=[Odd()],
    )
    sandbox = await subject.sandboxes.open(THREAD)
    await sandbox.write("a.ipynb", b'{"cells": [{"source": "half \\ud83d"}]}')
    await sandbox.write("bad.txt", "Grüße\nold ".encode() + b"\xff\n")
    await subject.attempt()
    assert (terminal(subject).type, terminal(subject).summary) == ("run.finished", "Done.")
    assert await sandbox.read("bad.txt") == "Grüße\nnew ".encode() + b"\xff\n"
    odd, notebook, _, edited = subject.journal.of("tool.result")
    assert odd.output == "half \ufffd"
    assert odd.data["half"] == ["\ufffd"]
    assert "half \ufffd" in notebook.output
    assert "+new \ufffd" in edited.output


@pytest.mark.parametrize(
    ("answers", "whole"),
    [
        ([Turn(text="The answer ", finish_reason="length"), "is 42."], "The answer is 42."),
        ([Turn(text=f"{n}", finish_reason="length") for n in range(5)], "012"),
        ([Turn(text="I look. ", tool_calls=(tool_call("todo_read"),)), "Nothing to do."], "Nothing to do."),
    ],
    ids=["cut once", "cut again and again", "not cut"],
)
async def test_an_answer_that_came_in_pieces_is_told_whole(answers: list[Any], whole: str) -> None:
    subject = bench(*answers)
    await subject.attempt()
    assert (terminal(subject).type, terminal(subject).summary) == ("run.finished", whole)


async def test_empty_answers_end_the_run_as_stuck() -> None:
    subject = bench(" ", " ", " ", " ")
    await subject.attempt()
    assert (terminal(subject).type, terminal(subject).reason) == ("run.failed", "stuck")


async def test_a_circle_is_warned_about_and_then_ends_the_run() -> None:
    class Same(Poke):
        async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
            return ToolOutput("the same")

    turns = [Turn(tool_calls=(tool_call("poke", what="x"),))] * 20
    subject = bench(*turns, tools=[Same()], stuck_repeats=3)
    await subject.attempt()
    assert len([m for m in subject.journal.of("message") if m.origin == "agent"]) == 1
    assert len(subject.journal.of("tool.result")) == 6
    assert terminal(subject).reason == "stuck"


@pytest.mark.parametrize(
    ("budget", "options"),
    [("turns", Budgets(turns=2)), ("tokens", Budgets(tokens=6000)), ("usd", Budgets(usd=0.012))],
)
async def test_each_budget_ends_the_run_with_its_name_and_a_summary(budget: str, options: Budgets) -> None:
    turn = Turn(text="I work.", tool_calls=(tool_call("poke"),), usage=Usage(input_tokens=3000, output_tokens=500))
    subject = bench(*[turn] * 9, tools=[Poke()])
    await subject.attempt(options=RunOptions(budgets=options))
    end = terminal(subject)
    assert (end.type, end.reason) == ("run.failed", "budget_exceeded")
    assert budget in end.detail
    assert "I work." in end.summary


async def test_seconds_end_a_run_in_the_middle_of_a_tool() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), tools=[poke := Poke(hang=True)])
    await subject.attempt(options=RunOptions(budgets=Budgets(seconds=0.2)))
    assert terminal(subject).reason == "budget_exceeded"
    assert poke.together == 0


async def test_cancel_ends_a_run_in_the_middle_of_a_tool_with_one_event() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), tools=[poke := Poke(hang=True)])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        subject.control.stop("cancel")
        assert await asyncio.wait_for(task, 5) is None
    assert terminal(subject).type == "run.cancelled"
    assert poke.together == 0


async def test_a_cancel_seen_at_a_commit_ends_the_run() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke()])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        subject.journal.cancelled = True
        await asyncio.wait_for(task, 5)
    assert terminal(subject).type == "run.cancelled"


async def test_a_released_run_says_nothing_and_goes_on_elsewhere() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke(hang=True)])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        subject.control.stop("release")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
    poke.hang = False
    await subject.attempt(reason="released")
    assert terminal(subject).type == "run.finished"
    assert subject.journal.of("run.resumed")[0].reason == "released"
    assert poke.count == 2


async def test_a_takeover_after_any_event_repeats_no_finished_step() -> None:
    turns: list[Turn | str] = [Turn(tool_calls=(tool_call("poke", what=str(n)),)) for n in range(3)]
    turns.append("Done.")

    def make() -> tuple[Bench, Poke]:
        poke = Poke(Effect.KEYED)
        return bench(*turns, tools=[poke]), poke

    whole, _ = make()
    await whole.attempt()
    for cut in range(2, len(whole.journal.events)):
        subject, poke = make()
        subject.journal.die_after = cut
        with pytest.raises(LeaseLost):
            await subject.attempt()
        subject.journal.die_after = None
        subject.llm = ScriptedLLM.of(turns[len(subject.journal.of("message")) :])
        assert await subject.attempt(reason="worker_lost") is None
        assert terminal(subject).type == "run.finished"
        results = [r.call_id for r in subject.journal.of("tool.result")]
        assert len(results) == len(set(results)) == 3
        assert poke.count <= 4, "at most the step in flight runs again"


async def test_an_unsafe_call_in_flight_asks_before_it_runs_again() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke(Effect.UNSAFE, hang=True)])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        task.cancel()
    poke.hang = False
    assert await subject.attempt(reason="worker_lost") is not None
    question = subject.journal.of("approval.requested")[0]
    assert (question.kind, question.choices, poke.count) == ("review", ("retry", "done", "stop"), 1)
    subject.journal.answer(question.question_id, "done")
    assert await subject.attempt(reason="answered") is None
    assert (poke.count, terminal(subject).type) == (1, "run.finished")


@pytest.mark.parametrize(("answer", "count", "end"), [("retry", 2, "run.finished"), ("stop", 1, "run.failed")])
async def test_a_review_can_retry_or_stop(answer: str, count: int, end: str) -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke(Effect.UNSAFE, hang=True)])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        task.cancel()
    poke.hang = False
    await subject.attempt(reason="worker_lost")
    subject.journal.answer(subject.journal.of("approval.requested")[0].question_id, answer)
    await subject.attempt(reason="answered")
    assert (poke.count, terminal(subject).type) == (count, end)


async def test_only_the_word_retry_repeats_an_unsafe_call_and_other_words_reach_the_model() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke(Effect.UNSAFE, hang=True)])
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        task.cancel()
    poke.hang = False
    await subject.attempt(reason="worker_lost")
    subject.journal.answer(subject.journal.of("approval.requested")[0].question_id, "no, leave it")
    await subject.attempt(reason="answered")
    (result,) = subject.journal.of("tool.result")
    assert (poke.count, result.ok, result.error) == (1, False, "not_repeated")
    assert "A person says: no, leave it" in result.output
    assert terminal(subject).type == "run.finished"


async def test_words_in_place_of_an_approval_are_a_no_that_the_model_reads() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke()], approvals={"poke": "ask"})
    await subject.attempt()
    subject.journal.answer(subject.journal.of("approval.requested")[0].question_id, "use the other one")
    await subject.attempt(reason="answered")
    (result,) = subject.journal.of("tool.result")
    assert (poke.count, result.error) == (0, "denied")
    assert "use the other one" in result.output


@pytest.mark.parametrize(("answer", "count"), [("approve", 1), ("deny", 0)])
async def test_a_call_that_needs_approval_waits_for_it(answer: str, count: int) -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke()], approvals={"poke": "ask"})
    parked = await subject.attempt()
    assert parked is not None
    assert poke.count == 0
    question = subject.journal.of("approval.requested")[0]
    assert (question.kind, question.tool) == ("approval", "poke")
    subject.journal.answer(question.question_id, answer)
    assert await subject.attempt(reason="answered") is None
    assert poke.count == count
    assert terminal(subject).type == "run.finished"


@pytest.mark.parametrize(("effect", "asked"), [(Effect.UNSAFE, 1), (Effect.KEYED, 0), (Effect.PURE, 0)])
async def test_the_policy_risk_asks_only_for_what_cannot_be_repeated(effect: Effect, asked: int) -> None:
    poke = Poke(effect)
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke], approvals={"poke": "risk"})
    await subject.attempt()
    assert (len(subject.journal.of("approval.requested")), poke.count) == (asked, 1 - asked)


async def test_an_unsafe_call_runs_once_it_is_allowed_and_is_reviewed_only_if_its_worker_was_lost_then() -> None:
    poke = Poke(Effect.UNSAFE, hang=True)
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke], approvals={"poke": "ask"})
    await subject.attempt()
    subject.journal.answer(subject.journal.of("approval.requested")[0].question_id, "approve")
    async with running(subject) as task:
        await asyncio.wait_for(poke.started.wait(), 5)
        task.cancel()
    assert [question.kind for question in subject.journal.of("approval.requested")] == ["approval"]
    poke.hang = False
    await subject.attempt(reason="worker_lost")
    question = subject.journal.of("approval.requested")[1]
    assert (question.kind, poke.count) == ("review", 1)
    subject.journal.answer(question.question_id, "done")
    await subject.attempt(reason="answered")
    assert (poke.count, terminal(subject).type) == (1, "run.finished")


async def test_an_approval_holds_for_one_call_with_its_arguments_under_its_policy() -> None:
    poke = Poke(Effect.UNSAFE)
    same = Turn(tool_calls=(tool_call("poke", what="a"),))
    subject = bench(same, same, "Done.", tools=[poke], approvals={"poke": "ask"})
    await subject.attempt()
    subject.journal.answer(subject.journal.of("approval.requested")[0].question_id, "approve")
    await subject.attempt(reason="answered")
    first, second = subject.journal.of("approval.requested")
    assert (poke.count, first.question_id != second.question_id) == (1, True), "the same call again is asked about"
    assert first.binding == second.binding

    subject.journal.answer(second.question_id, "approve")
    agent = subject.settings.agent.model_copy(update={"approvals": {"poke": "risk"}})
    subject.settings = subject.settings.model_copy(update={"agent": agent})
    await subject.attempt(reason="answered")
    third = subject.journal.of("approval.requested")[2]
    assert (poke.count, third.binding != second.binding) == (1, True), "another policy asks anew"


async def test_a_forbidden_tool_is_refused_without_asking() -> None:
    subject = bench(Turn(tool_calls=(tool_call("poke"),)), "Done.", tools=[poke := Poke()], approvals={"poke": "never"})
    await subject.attempt()
    assert (poke.count, subject.journal.of("tool.result")[0].error) == (0, "denied")


async def test_a_question_to_the_person_becomes_the_tools_result() -> None:
    call = tool_call("ask_person", question="Red or blue?", choices=["red", "blue"])
    subject = bench(Turn(tool_calls=(call,)), "Done.")
    assert await subject.attempt() is not None
    question = subject.journal.of("approval.requested")[0]
    assert (question.prompt, question.choices) == ("Red or blue?", ("red", "blue"))
    subject.journal.answer(question.question_id, "blue")
    await subject.attempt(reason="answered")
    assert subject.journal.of("tool.result")[0].output == "blue"


async def test_steering_is_heard_at_the_next_turn() -> None:
    heard: list[str] = []

    def last(request: ModelRequest) -> str:
        heard.extend(m.text for m in request.messages if isinstance(m, UserMessage))
        return "Done."

    subject = bench(Turn(tool_calls=(tool_call("poke"),)), last, tools=[Poke()])
    subject.journal.say("use tabs")
    await subject.attempt()
    assert "use tabs" in heard


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ModelRefused("no such model"), "model_refused"), (ModelOverloaded("busy"), "model_overloaded")],
)
async def test_a_provider_that_fails_for_good_ends_the_run_with_its_reason(error: Exception, reason: str) -> None:
    subject = bench(Turn(error=error))
    await subject.attempt()
    assert terminal(subject).reason == reason


async def test_a_bug_in_a_tool_ends_the_run_loudly(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Poke):
        async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
            raise ZeroDivisionError

    subject = bench(Turn(tool_calls=(tool_call("poke"),)), tools=[Broken()])
    await subject.attempt()
    assert terminal(subject).reason == "internal"
    assert "ZeroDivisionError" in caplog.text


async def test_the_same_log_gives_the_same_prompt_and_a_longer_one_only_adds() -> None:
    prompts: list[tuple[Any, ...]] = []

    def note(request: ModelRequest) -> Turn:
        prompts.append(request.messages)
        return Turn(text="step", tool_calls=(tool_call("poke", what=str(len(prompts))),))

    def last(request: ModelRequest) -> str:
        prompts.append(request.messages)
        return "Done."

    subject = bench(*[note] * 5, last, tools=[Poke()])
    await subject.attempt()
    for shorter, longer in itertools.pairwise(prompts):
        assert longer[: len(shorter)] == shorter


async def test_a_full_context_is_compacted_and_the_task_survives_word_for_word() -> None:
    asked: list[ModelRequest] = []

    def work(request: ModelRequest) -> Turn:
        asked.append(request)
        return Turn(text="x" * 2000, tool_calls=(tool_call("poke", what="y" * 2000),))

    def notes(request: ModelRequest) -> str:
        asked.append(request)
        return "NOTES" if "no longer fits" in request.messages[-1].text else "Done."

    def either(request: ModelRequest) -> Any:
        return notes(request) if "no longer fits" in request.messages[-1].text or len(asked) > 12 else work(request)

    subject = bench(*[either] * 40, tools=[Poke()], compact_at=0.6, keep_recent=0.2)
    subject.context_tokens = 12_000
    await subject.attempt("Please keep exactly THIS wish.")
    compacted = subject.journal.of("context.compacted")
    assert compacted, subject.journal.types()
    assert compacted[0].tokens_after < compacted[0].tokens_before
    assert "NOTES" in compacted[0].summary
    assert any("exactly THIS wish" in m.text for m in asked[-1].messages)
    assert (terminal(subject).type, terminal(subject).run_id) == ("run.finished", RUN), terminal(subject)
