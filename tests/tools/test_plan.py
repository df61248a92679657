"""The plan, the todo list, suggestions and questions."""

from typing import Any

import pytest

from tests.tools.harness import Bench
from workflow.core.events import PlanUpdated, SuggestionsMade, TodoUpdated
from workflow.sandboxes.memory import MemorySandbox
from workflow.tools.base import ToolOutput


@pytest.fixture
def bench() -> Bench:
    return Bench(MemorySandbox())


def shown(bench: Bench) -> list[tuple[str, str, str]]:
    return [(step.id, step.title, step.status) for step in bench.state.plan]


async def plan(bench: Bench, *steps: dict[str, Any], **more: Any) -> ToolOutput:
    return await bench("job_plan", steps=list(steps), **more)


async def test_a_plan_is_made_logged_and_shown(bench: Bench) -> None:
    result = await plan(bench, {"title": "Look"}, {"title": "Mend", "status": "in_progress"})

    assert shown(bench) == [("s1", "Look", "pending"), ("s2", "Mend", "in_progress")]
    assert result.text.split("\n") == ["Plan made.", "[ ] s1 Look", "[>] s2 Mend", "Go on with s2."]
    assert [type(event) for event in result.events] == [PlanUpdated]


async def test_ids_stay_with_their_steps_and_are_not_used_again(bench: Bench) -> None:
    await plan(bench, {"title": "Look"}, {"title": "Mend"})

    await plan(bench, {"title": "Test"}, {"title": "Mend"}, {"id": "s1", "title": "Look closely"})

    assert shown(bench) == [("s3", "Test", "pending"), ("s2", "Mend", "pending"), ("s1", "Look closely", "pending")]


async def test_ids_may_be_chosen_by_the_model(bench: Bench) -> None:
    await plan(bench, {"id": "write", "title": "Write"}, {"id": "run", "title": "Run", "status": "done", "note": "ok"})

    assert shown(bench) == [("write", "Write", "pending"), ("run", "Run", "done")]


async def test_single_steps_change_without_the_others(bench: Bench) -> None:
    await plan(bench, {"title": "Look"}, {"title": "Mend"})

    await plan(
        bench,
        {"id": "s1", "status": "done", "note": "found it"},
        {"id": "s2", "status": "in_progress"},
        {"title": "Test"},
        only_changes=True,
    )

    assert shown(bench) == [("s1", "Look", "done"), ("s2", "Mend", "in_progress"), ("s3", "Test", "pending")]
    assert bench.state.plan[0].note == "found it"


async def test_a_note_stays_while_the_status_does(bench: Bench) -> None:
    await plan(bench, {"title": "Look", "status": "done", "note": "seen"})
    await plan(bench, {"id": "s1", "title": "Look again"}, only_changes=True)
    assert bench.state.plan[0].note == "seen"

    await plan(bench, {"id": "s1", "status": "in_progress"}, only_changes=True)
    assert bench.state.plan[0].note == ""


async def test_finished_steps_may_be_left_out_and_are_kept(bench: Bench) -> None:
    await plan(bench, {"title": "Look", "status": "done"}, {"title": "Mend"})

    await plan(bench, {"id": "s2"}, {"title": "Test"})

    assert shown(bench) == [("s1", "Look", "done"), ("s2", "Mend", "pending"), ("s3", "Test", "pending")]


async def test_finished_steps_make_room_for_new_ones_whose_ids_are_new(bench: Bench) -> None:
    await plan(bench, *({"title": f"step {n}", "status": "done"} for n in range(50)))

    await plan(bench, {"title": "Look"})
    await plan(bench, {"title": "Mend"}, only_changes=True)

    assert len(shown(bench)) == 50
    assert shown(bench)[0] == ("s3", "step 2", "done")
    assert shown(bench)[-2:] == [("s51", "Look", "pending"), ("s52", "Mend", "pending")]


async def test_the_last_step_done_says_to_finish(bench: Bench) -> None:
    result = await plan(bench, {"title": "Look", "status": "done"})

    assert "give the final answer" in result.text


@pytest.mark.parametrize(
    ("steps", "only_changes", "kind"),
    [
        ([{"id": "s1", "status": "in_progress"}, {"id": "s2", "status": "in_progress"}], False, "two_active"),
        ([{"id": "s1", "status": "dropped"}, {"id": "s2"}], False, "reason_needed"),
        ([{"id": "s1"}], False, "steps_missing"),
        ([{"id": "s1"}, {"id": "s1"}, {"id": "s2"}], False, "unknown_step"),
        ([{"id": "s9", "status": "done"}], True, "unknown_step"),
        ([{"id": "new"}, {"id": "s1"}, {"id": "s2"}], False, "no_title"),
        ([{"status": "pending"}], True, "no_title"),
        ([{"title": f"step {n}"} for n in range(49)], True, "too_many"),
        ([], False, "invalid_arguments"),
        ([{"title": "A", "status": "finished"}], False, "invalid_arguments"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_plan_that_breaks_a_rule_changes_nothing(
    bench: Bench, steps: list[dict[str, str]], only_changes: bool, kind: str
) -> None:
    await plan(bench, {"title": "Look"}, {"title": "Mend"})

    error = await bench.fails("job_plan", steps=steps, only_changes=only_changes)

    assert error.kind == kind
    assert shown(bench) == [("s1", "Look", "pending"), ("s2", "Mend", "pending")]


async def test_a_step_is_dropped_with_a_reason(bench: Bench) -> None:
    await plan(bench, {"title": "Look"})

    result = await plan(bench, {"id": "s1", "status": "dropped", "note": "not needed"}, only_changes=True)

    assert "[-] s1 Look — not needed" in result.text


async def test_todos_are_written_read_and_cleared(bench: Bench) -> None:
    assert "empty" in (await bench("todo_read")).text
    first = await bench("todo_write", items=[{"content": "a", "status": "in_progress"}, {"content": "b"}])
    second = await bench("todo_write", items=[{"content": "a", "status": "completed"}, {"content": "b"}])

    assert first.text == "2 of 2 left.\n[>] a\n[ ] b"
    assert second.text == "Completed: a. 1 of 2 left.\n[x] a\n[ ] b"
    assert [type(event) for event in second.events] == [TodoUpdated]
    assert (await bench("todo_read")).text == "[x] a\n[ ] b"
    assert (await bench("todo_write", items=[])).text == "List cleared."
    assert bench.state.todos == ()


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ([{"content": "a", "status": "in_progress"}, {"content": "b", "status": "in_progress"}], "two_active"),
        ([{"content": "  "}], "empty_item"),
        ([{"content": "x" * 501}], "invalid_arguments"),
        ([{"status": "pending"}], "invalid_arguments"),
    ],
)
async def test_todos_that_break_a_rule_change_nothing(bench: Bench, items: list[dict[str, str]], kind: str) -> None:
    await bench("todo_write", items=[{"content": "kept"}])

    assert (await bench.fails("todo_write", items=items)).kind == kind
    assert [item.content for item in bench.state.todos] == ["kept"]


async def test_suggestions_are_tidied_and_logged(bench: Bench) -> None:
    result = await bench("suggest_next_steps", items=["Run the  tests", "Run the tests", "", "Deploy\nit"])

    assert result.data["items"] == ["Run the tests", "Deploy it"]
    (event,) = result.events
    assert isinstance(event, SuggestionsMade)
    assert bench.state.suggestions == ("Run the tests", "Deploy it")
    assert (await bench("suggest_next_steps", items=[])).text.startswith("No suggestions are shown.")


async def test_suggestions_are_few_and_short(bench: Bench) -> None:
    assert (await bench.fails("suggest_next_steps", items=["x" * 201])).kind == "too_long"
    assert (await bench.fails("suggest_next_steps", items=["a", "b", "c", "d", "e"])).kind == "invalid_arguments"


async def test_a_question_that_nobody_can_answer_says_to_decide(bench: Bench) -> None:
    error = await bench.fails("ask_person", question="Red or blue?", choices=["red", "blue"])

    assert error.kind == "unattended"
    assert "Choose" in error.message
