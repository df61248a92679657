"""What a run may still spend: turns, tokens, money, seconds."""

from dataclasses import dataclass

from workflow.core.config import AgentSettings
from workflow.core.errors import BudgetExceeded
from workflow.core.records import Budgets
from workflow.core.state import RunState


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one run; 0 means none. A caller's own limits can only be lower than the configured ones."""

    turns: int
    tokens: int
    usd: float
    seconds: float

    @classmethod
    def of(cls, settings: AgentSettings, asked: Budgets) -> "Budget":
        return cls(
            turns=int(_lower(settings.max_turns, asked.turns)),
            tokens=int(_lower(settings.max_tokens, asked.tokens)),
            usd=_lower(settings.max_usd, asked.usd),
            seconds=_lower(settings.max_seconds, asked.seconds),
        )

    def left(self, run: RunState) -> dict[str, float]:
        """What is left of each limit that is set, never below 0."""
        spent = {
            "turns": (self.turns, run.turn),
            "tokens": (self.tokens, run.usage.tokens),
            "usd": (self.usd, run.usage.cost_usd),
            "seconds": (self.seconds, run.active_ms / 1000),
        }
        return {name: round(max(0.0, limit - used), 6) for name, (limit, used) in spent.items() if limit}

    def check(self, run: RunState, *, next_tokens: int = 0, next_usd: float = 0.0) -> None:
        """Raises: BudgetExceeded when another model call of about that size does not fit."""
        left = self.left(run)
        for name, amount in left.items():
            limit = getattr(self, name)
            if amount <= 0:
                raise BudgetExceeded(f"the run used up its {name}: the limit is {limit:g}", budget=name)
        for name, need in (("tokens", next_tokens), ("usd", next_usd)):
            if name in left and need > left[name]:
                raise BudgetExceeded(
                    f"the next call needs about {need:g} {name} and {left[name]:g} of {getattr(self, name):g} are left",
                    budget=name,
                )

    def last_call(self, run: RunState) -> bool:
        """True when the next turn is the last one."""
        return self.turns - run.turn == 1


def _lower(configured: float, asked: float | None) -> float:
    if asked is None:
        return configured
    return asked if not configured else min(configured, asked)
