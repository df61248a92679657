"""What a run spends: set aside before a model call, booked after it whatever became of it, told in `usage` events."""

from collections.abc import Awaitable, Callable

from workflow.agent import compaction
from workflow.agent.budget import Budget
from workflow.agent.speaking import listen
from workflow.core.errors import ModelError
from workflow.core.events import Usage, UsageUpdated
from workflow.core.ids import RunId, ThreadId
from workflow.core.ports import Purse, Spend
from workflow.core.state import RunState, ThreadState
from workflow.llm.base import Completion, ModelEvent, ModelRequest
from workflow.llm.models import ResolvedModel
from workflow.llm.policy import ModelCall

ANSWER_TOKENS = 1_000
"""What an answer is taken to need when something is set aside for it; most need less."""


class Account:
    """One attempt's spending."""

    def __init__(
        self,
        *,
        thread_id: ThreadId,
        run_id: RunId,
        state: ThreadState,
        budget: Budget,
        purse: Purse,
        commit: Callable[[UsageUpdated], Awaitable[None]],
        notice: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._thread_id, self._run_id, self._state = thread_id, run_id, state
        self._budget, self._purse, self._commit, self._notice = budget, purse, commit, notice
        self._call: ModelCall | None = None
        self._booked_ms = self._run.active_ms
        self._shared: dict[str, float] = {}

    @property
    def spent(self) -> Usage:
        """What the run has cost so far, a model call under way included."""
        return self._run.usage + self._under_way

    async def ask(
        self, model: ResolvedModel, request: ModelRequest, *, show: Callable[[ModelEvent], None] | None = None
    ) -> Completion:
        """The model's answer, paid for; the `usage` event of a call that failed is committed here.

        Raises: BudgetExceeded before anything is spent, ModelError.
        """
        tokens = compaction.estimate(request.messages)
        usd = model.llm.estimate_usd(input_tokens=tokens, output_tokens=ANSWER_TOKENS)
        self._budget.check(self._run, next_tokens=tokens, next_usd=usd)
        await self._purse.reserve(Spend(usd=usd, tokens=tokens, turns=1))
        self._call = model.llm.call(request, on_notice=self._notice)
        try:
            completion = await listen(self._call.stream(), request, show)
        except ModelError:
            spent, self._call = self._call.usage, None
            await self._book(spent)
            if spent.tokens:
                await self._commit(self.event(spent, self._run.turn, model))
            raise
        self._call = None
        await self._book(completion.usage, turns=1)
        return completion

    async def close(self) -> None:
        """Books what is not booked yet: a call that was cut off, and time."""
        spent, self._call = self._under_way, None
        await self._book(spent)

    def event(self, spent: Usage, turn: int, model: ResolvedModel) -> UsageUpdated:
        """Tells of a call's cost and of what is left of every budget."""
        total = self._run.usage + spent
        run = RunState(self._run_id, turn=turn, usage=total, active_ms=self._run.active_ms)
        return UsageUpdated(
            thread_id=self._thread_id,
            run_id=self._run_id,
            turn=turn,
            call=spent,
            run=total,
            model=model.model,
            left=self._budget.left(run) | self._shared,
        )

    async def _book(self, spent: Usage, *, turns: int = 0) -> None:
        active_ms, self._booked_ms = self._run.active_ms - self._booked_ms, self._run.active_ms
        spend = Spend(usd=spent.cost_usd, tokens=spent.tokens, turns=turns, seconds=active_ms / 1000)
        self._shared = await self._purse.settle(spend)

    @property
    def _run(self) -> RunState:
        return self._state.runs[self._run_id]

    @property
    def _under_way(self) -> Usage:
        return self._call.usage if self._call is not None else Usage()
