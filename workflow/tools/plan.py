"""job_plan: the run's plan, made, revised and worked off."""

import re
from typing import Literal

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, PlanStep, PlanUpdated
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput

MAX_STEPS = 50
Status = Literal["pending", "in_progress", "done", "dropped"]
_NUMBERED = re.compile(r"s(\d{1,9})")
MARKS: dict[str, str] = {"pending": "[ ]", "in_progress": "[>]", "done": "[x]", "dropped": "[-]"}


class StepArgs(ToolArgs):
    id: str = Field("", max_length=40, description="existing id to change a step; empty for a new one")
    title: str = Field("", max_length=300, description="may be left out for an existing step")
    status: Status | None = None
    note: str = Field("", max_length=2000, description="evidence when done; the reason (needed) when dropped")


class PlanArgs(ToolArgs):
    steps: tuple[StepArgs, ...] = Field(min_length=1, max_length=MAX_STEPS, description="the whole plan, in order")
    only_changes: bool = Field(False, description="true: `steps` holds only the steps that change, by id")


class JobPlan(Tool[PlanArgs]):
    name = "job_plan"
    effect = Effect.IDEMPOTENT
    changes_files = False
    description = (
        "Makes or revises the plan of this job: the whole plan, or with only_changes just the steps that change. Keep "
        "at most one step in_progress; set it done as soon as it is, with the evidence in `note`. The job cannot end "
        "before every step is done or dropped with a reason."
    )

    def resources(self, args: PlanArgs) -> frozenset[str]:
        return frozenset({"plan"})

    async def run(self, args: PlanArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `steps_missing`, `unknown_step`, `no_title`, `reason_needed`, `two_active`, `too_many`."""
        before = context.state.plan
        after = within_limit(updated(before, args.steps) if args.only_changes else revised(before, args.steps))
        check(after)
        return ToolOutput(
            text=f"{'Plan revised' if before else 'Plan made'}.\n{render(after)}\n{next_step(after)}",
            data={"steps": [step.model_dump(mode="json") for step in after]},
            events=(context.event(PlanUpdated, steps=after),),
        )


def revised(before: tuple[PlanStep, ...], steps: tuple[StepArgs, ...]) -> tuple[PlanStep, ...]:
    """The new whole plan. Finished steps that it leaves out stay in front; open ones may not vanish silently."""
    by_id = {step.id: step for step in before}
    by_title = {step.title.strip().lower(): step for step in before}
    after: list[PlanStep] = []
    taken = set(by_id)
    for given in steps:
        old = by_id.get(given.id) if given.id else by_title.get(given.title.strip().lower())
        new = _step(given, old, taken)
        if any(step.id == new.id for step in after):
            raise ToolError(f"The step {new.id} is given twice. Give every step once.", kind="unknown_step")
        taken.add(new.id)
        after.append(new)
    named = {step.id for step in after}
    gone = [step for step in before if step.id not in named]
    vanished = [step.id for step in gone if step.status in ("pending", "in_progress")]
    if vanished:
        raise ToolError(
            f"The new plan leaves out unfinished steps: {', '.join(vanished)}. Keep them, or give them with status "
            "dropped and the reason in note.",
            kind="steps_missing",
            steps=vanished,
        )
    return (*gone, *after)


def updated(before: tuple[PlanStep, ...], changes: tuple[StepArgs, ...]) -> tuple[PlanStep, ...]:
    """The plan with single steps changed; steps without an id are added at the end."""
    after = {step.id: step for step in before}
    for given in changes:
        if given.id and given.id not in after:
            known = ", ".join(after) or "none yet"
            raise ToolError(f"There is no step {given.id!r}. Steps: {known}.", kind="unknown_step", known=list(after))
        new = _step(given, after.get(given.id), set(after))
        after[new.id] = new
    return tuple(after.values())


def within_limit(steps: tuple[PlanStep, ...]) -> tuple[PlanStep, ...]:
    """The plan without as many of its oldest finished steps as are too many."""
    finished = [step.id for step in steps if step.status in ("done", "dropped")]
    gone = set(finished[: max(0, len(steps) - MAX_STEPS)])
    return tuple(step for step in steps if step.id not in gone)


def _step(given: StepArgs, old: PlanStep | None, taken: set[str]) -> PlanStep:
    title = given.title.strip() or (old.title if old else "")
    if not title:
        raise ToolError(f"The new step {given.id!r} needs a title.", kind="no_title")
    status = given.status or (old.status if old else "pending")
    note = given.note or (old.note if old and old.status == status else "")
    return PlanStep(id=old.id if old else given.id or _new_id(taken), title=title, status=status, note=note)


def _new_id(taken: set[str]) -> str:
    numbers = (int(found[1]) for step_id in taken if (found := _NUMBERED.fullmatch(step_id)))
    return f"s{max(numbers, default=0) + 1}"


def check(steps: tuple[PlanStep, ...]) -> None:
    """Raises: ToolError if the plan breaks a rule."""
    if len(steps) > MAX_STEPS:
        raise ToolError(f"A plan has at most {MAX_STEPS} unfinished steps. Join small ones.", kind="too_many")
    unexplained = [step.id for step in steps if step.status == "dropped" and not step.note.strip()]
    if unexplained:
        raise ToolError(
            f"Say in `note` why these steps are dropped: {', '.join(unexplained)}.",
            kind="reason_needed",
            steps=unexplained,
        )
    active = [step.id for step in steps if step.status == "in_progress"]
    if len(active) > 1:
        raise ToolError(
            f"Only one step may be in_progress, not {', '.join(active)}. Set the others to pending or done.",
            kind="two_active",
            steps=active,
        )


def render(steps: tuple[PlanStep, ...]) -> str:
    """The plan as lines: `[x] s1 Title — note`."""
    return "\n".join(f"{MARKS[s.status]} {s.id} {s.title}{f' — {s.note}' if s.note else ''}" for s in steps)


def next_step(steps: tuple[PlanStep, ...]) -> str:
    """One line that says what to do now."""
    for wanted, text in (("in_progress", "Go on with"), ("pending", "Next: set in_progress and do")):
        step = next((s for s in steps if s.status == wanted), None)
        if step is not None:
            return f"{text} {step.id}."
    return "Every step is finished: check the result, then give the final answer."
