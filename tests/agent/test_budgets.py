"""Shared budgets: every model call is set aside before and booked after, whatever becomes of it."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from tests.agent.bench import Bench, bench, running
from tests.agent.test_agent import Poke, terminal
from tests.until import until
from workflow.core.errors import BudgetExceeded, ModelOverloaded
from workflow.core.events import Usage
from workflow.core.ports import Spend
from workflow.llm.base import ModelRequest
from workflow.llm.scripted_turns import Turn, tool_call


@dataclass
class Till:
    """A purse that remembers; `usd` is what it holds, None without end."""

    usd: float | None = None
    reserved: list[Spend] = field(default_factory=list)
    booked: list[Spend] = field(default_factory=list)

    async def reserve(self, need: Spend) -> None:
        if self.usd is not None and need.usd > self.usd:
            raise BudgetExceeded("nothing left in the thread", budget="thread_usd")
        self.reserved.append(need)

    async def settle(self, spent: Spend) -> dict[str, float]:
        self.booked.append(spent)
        if self.usd is None:
            return {}
        self.usd -= spent.usd
        return {"thread_usd": self.usd}

    @property
    def total(self) -> Spend:
        return Spend(
            usd=sum(spend.usd for spend in self.booked),
            tokens=sum(spend.tokens for spend in self.booked),
            turns=sum(spend.turns for spend in self.booked),
            seconds=sum(spend.seconds for spend in self.booked),
        )


def with_till(subject: Bench, till: Till) -> Bench:
    subject.purse = till
    return subject


WORK = Turn(text="I work.", tool_calls=(tool_call("poke"),), usage=Usage(input_tokens=100, output_tokens=50))


async def test_what_is_booked_is_what_the_run_says_it_cost() -> None:
    till = Till()
    subject = with_till(bench(WORK, WORK, "Done.", tools=[Poke()]), till)
    await subject.attempt()
    usage = terminal(subject).usage
    assert (till.total.tokens, till.total.turns) == (usage.tokens, 3)
    assert till.total.usd == pytest.approx(usage.cost_usd)
    assert till.total.seconds > 0
    assert len(till.reserved) == 3
    assert all(need.usd > 0 and need.tokens > 0 and need.turns == 1 for need in till.reserved)


async def test_summaries_are_set_aside_and_booked_like_turns() -> None:
    till = Till()

    def answer(request: ModelRequest) -> Turn | str:
        if not request.cache_breakpoints:
            return Turn(text="NOTES", usage=Usage(input_tokens=7000, output_tokens=70))
        if till.total.turns > 12:
            return "Done."
        return replace(WORK, text="x" * 2000, tool_calls=(tool_call("poke", what="y" * 2000),))

    subject = with_till(bench(*[answer] * 40, tools=[Poke()], compact_at=0.6, keep_recent=0.2), till)
    subject.context_tokens = 12_000
    await subject.attempt()
    assert subject.journal.of("context.compacted")
    assert till.total.tokens == terminal(subject).usage.tokens
    assert 7070 in [spend.tokens for spend in till.booked]
    assert len(till.reserved) == till.total.turns


async def test_failed_calls_are_booked() -> None:
    till = Till()
    broken = Turn(text="half of it", error=ModelOverloaded("cut"))
    subject = with_till(bench(broken), till)
    await subject.attempt()
    assert terminal(subject).reason == "model_overloaded"
    assert till.total.tokens == terminal(subject).usage.tokens > 0


async def test_cancelled_calls_are_booked() -> None:
    till = Till()
    subject = with_till(bench(Turn(text="word " * 400, delay_s=0.02)), till)

    async def shown() -> bool:
        return bool(subject.journal.deltas)

    async with running(subject) as task, asyncio.timeout(10):
        await until(shown, what="the first word")
        subject.control.stop("cancel")
        await task
    usage = terminal(subject).usage
    assert terminal(subject).type == "run.cancelled"
    assert usage.tokens == till.total.tokens > 0
    assert till.total.usd == pytest.approx(usage.cost_usd)


async def test_usage_says_what_is_left_of_shared_budgets_and_an_empty_one_ends_the_run_with_a_summary() -> None:
    till = Till(usd=0.0106)
    subject = with_till(bench(*[WORK] * 9, tools=[Poke()]), till)
    await subject.attempt()
    left = [usage.left["thread_usd"] for usage in subject.journal.of("usage")]
    assert left == pytest.approx([0.0101, 0.0096])
    end = terminal(subject)
    assert (end.type, end.reason, end.summary) == ("run.failed", "budget_exceeded", "I work.")
