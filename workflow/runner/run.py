"""Takes one claimed run to exactly one terminal event, or to a pause that another worker goes on from."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from workflow.agent.agent import Agent, Parked
from workflow.agent.prompt import project_instructions, system_prompt
from workflow.core import genai
from workflow.core.errors import (
    BudgetExceeded,
    DialtoneError,
    LeaseLost,
    RunCancelled,
    ToolError,
    Unavailable,
)
from workflow.core.events import (
    Event,
    EventBase,
    Message,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    SandboxReady,
    Usage,
)
from workflow.core.events import (
    RunCancelled as RunCancelledEvent,
)
from workflow.core.ports import Journal, Purse
from workflow.core.records import RunRecord
from workflow.core.state import ThreadState, fold
from workflow.core.tracing import Span, Value, span, usage_attributes
from workflow.runner.build import Workshop
from workflow.runner.control import Control
from workflow.sandboxes.base import Sandbox

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One worker's turn at a run."""

    record: RunRecord
    number: int
    reason: str
    """`fresh`, or why it is resumed."""
    worker: str
    history: list[Event]
    journal: Journal
    purse: Purse
    cancel_reason: Callable[[], Awaitable[str]]
    """Why a cancel was asked for, in the caller's words; known only once it was."""
    now_ms: Callable[[], int]


async def execute(attempt: Attempt, shop: Workshop, control: Control) -> Parked | None:
    """Runs to the terminal event; a Parked when the run has to wait for a person.

    Raises: LeaseLost; Unavailable when Redis stays away (the run goes on elsewhere); CancelledError when the worker
    goes (`control.reason` is `release`) or lost the run.
    """
    record = attempt.record
    about: dict[str, Value] = {
        genai.OPERATION: "invoke_agent",
        genai.AGENT: "dialtone",
        genai.CONVERSATION: record.thread_id,
        genai.RUN: record.run_id,
        genai.ATTEMPT: attempt.number,
        genai.TENANT: record.tenant,
    }
    with span("invoke_agent dialtone", about, kind="consumer") as traced:
        return await _to_the_end(attempt, shop, control, traced)


async def _to_the_end(attempt: Attempt, shop: Workshop, control: Control, traced: Span) -> Parked | None:
    state = fold(attempt.history)
    task = asyncio.current_task()
    assert task is not None
    agents: list[Agent] = []
    try:
        control.bind(task)
        parked = await _work(attempt, shop, state, agents)
        traced.set({genai.OUTCOME: "waiting" if parked else "finished"} | usage_attributes(agents[0].account.spent))
        return parked
    except asyncio.CancelledError:
        if control.reason != "cancel":
            raise
        task.uncancel()
        error: BaseException = RunCancelled("cancelled by the caller")
    except (LeaseLost, Unavailable):
        raise
    except Exception as failure:  # noqa: BLE001  # the edge of a run: whatever it was, the run ends and says so
        error = _only(failure)
    spent = agents[0].account.spent if agents else state.runs[attempt.record.run_id].usage
    if agents:
        await agents[0].account.close()
    why = await attempt.cancel_reason() if isinstance(error, RunCancelled) else ""
    ending = _ending(attempt, state, error, spent, why)
    traced.set({genai.OUTCOME: ending.wire_name.removeprefix("run_")} | usage_attributes(spent))
    traced.fail(ending.reason if isinstance(ending, RunFailed) else "cancelled")
    await attempt.journal.commit(ending)
    return None


async def _work(attempt: Attempt, shop: Workshop, state: ThreadState, agents: list[Agent]) -> Parked | None:
    """agents: gets the run's agent as soon as there is one, so that an ending can tell what it has spent."""
    record = attempt.record
    agent = await _make_agent(attempt, shop, state)
    agents.append(agent)
    await agent.commit(*_opening(attempt, shop, agent.sandbox, agent.model.model))
    seconds = agent.budget.left(agent.progress).get("seconds")
    try:
        async with asyncio.timeout(seconds) as deadline:
            summary = await agent.run()
    except Parked as parked:
        await agent.account.close()
        return parked
    except TimeoutError:
        if not deadline.expired():
            raise
        raise BudgetExceeded(
            f"the run used up its seconds: the limit is {agent.budget.seconds:g}", budget="seconds"
        ) from None
    await agent.account.close()
    await agent.commit(
        RunFinished(
            thread_id=record.thread_id,
            run_id=record.run_id,
            turn=agent.progress.turn,
            summary=summary,
            usage=agent.progress.usage,
        )
    )
    return None


async def _make_agent(attempt: Attempt, shop: Workshop, state: ThreadState) -> Agent:
    """The run's agent, with the models that the run, its thread or the configuration chose."""
    record = attempt.record
    model = shop.models.get(record.options.model)
    planning = record.options.models.planning or shop.settings.llm.planning
    summaries = record.options.models.summaries or shop.settings.llm.summaries
    sandbox = await shop.sandboxes.open(record.thread_id)
    return Agent(
        record=record,
        settings=shop.settings,
        state=state,
        journal=attempt.journal,
        purse=attempt.purse,
        model=model,
        planning=shop.models.get(planning) if planning else model,
        summaries=shop.models.get(summaries) if summaries else model,
        registry=shop.registry,
        sandbox=sandbox,
        system=system_prompt(
            shop.settings.agent, sandbox.info, await project_instructions(shop.settings.agent, sandbox)
        ),
        locks=shop.locks,
        services=shop.services,
        now_ms=attempt.now_ms,
    )


def _opening(attempt: Attempt, shop: Workshop, sandbox: Sandbox, model: str) -> list[EventBase]:
    """What an attempt says first. The first attempt starts the run, later ones resume it."""
    record, info = attempt.record, sandbox.info
    started = any(e.type == "run.started" and e.run_id == record.run_id for e in attempt.history)
    ready = SandboxReady(
        thread_id=record.thread_id,
        run_id=record.run_id,
        provider=info.provider,
        tier=info.tier,
        network=info.network,
        gaps=info.gaps,
    )
    if started:
        resumed = RunResumed.model_validate(
            {
                "thread_id": record.thread_id,
                "run_id": record.run_id,
                "attempt": attempt.number,
                "reason": attempt.reason if attempt.reason != "fresh" else "redis_lost",
                "worker": attempt.worker,
                "config_hash": shop.config_hash,
            }
        )
        return [resumed]
    begun = RunStarted(
        thread_id=record.thread_id,
        run_id=record.run_id,
        attempt=attempt.number,
        worker=attempt.worker,
        model=model,
        sandbox=info.label,
        config_hash=shop.config_hash,
    )
    return [begun, ready]


def _only(error: BaseException) -> BaseException:
    """The failure inside a task group's group: the first that names itself, else the first."""
    while isinstance(error, BaseExceptionGroup):
        named = [e for e in error.exceptions if isinstance(e, DialtoneError | BaseExceptionGroup)]
        error = (named or list(error.exceptions))[0]
    return error


def _ending(attempt: Attempt, state: ThreadState, error: BaseException, spent: Usage, why: str) -> EventBase:
    """The terminal event that tells of `error`. Raises: LeaseLost, Unavailable, and what is not an Exception."""
    if isinstance(error, LeaseLost | Unavailable) or not isinstance(error, Exception):
        raise error
    record, run = attempt.record, state.runs[attempt.record.run_id]
    if isinstance(error, RunCancelled):
        return RunCancelledEvent(
            thread_id=record.thread_id,
            run_id=record.run_id,
            turn=run.turn,
            reason=why or "cancelled by the caller",
            usage=spent,
        )
    if isinstance(error, ToolError) and error.kind == "review_stop":
        reason, detail = "review_stop", error.message
    elif isinstance(error, DialtoneError):
        reason, detail = error.code, error.message
    else:
        log.exception("a bug ended the run", exc_info=error, extra={"run_id": record.run_id})
        reason, detail = "internal", f"{type(error).__name__}: a bug in Dialtone; the worker's log has the details"
    log.info("run ends: %s: %s", reason, detail, extra={"run_id": record.run_id})
    return RunFailed(
        thread_id=record.thread_id,
        run_id=record.run_id,
        turn=run.turn,
        reason=reason,
        detail=detail,
        summary=_so_far(state, record),
        usage=spent,
    )


def _so_far(state: ThreadState, record: RunRecord) -> str:
    """What is done, from the plan and the agent's last words."""
    steps = [f"- [{'x' if s.status == 'done' else ' '}] {s.title}" for s in state.plan]
    words = next(
        (
            e.text
            for e in reversed(state.transcript)
            if isinstance(e, Message) and e.role == "assistant" and e.run_id == record.run_id and e.text
        ),
        "",
    )
    return "\n".join([*steps, words]).strip()[:4000]
