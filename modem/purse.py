"""Budgets that runs share: per thread for its life, per tenant for a day (UTC, the server's clock)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from modem import keys
from modem.pool import Connections, translated
from workflow.core.config import AgentSettings
from workflow.core.errors import BudgetExceeded
from workflow.core.ids import RunId, TenantId, thread_of
from workflow.core.ports import Spend

DAY_TTL_S = 3 * 86_400
THREAD_TTL_S = 400 * 86_400
UNITS = ("turns", "tokens", "usd", "seconds")
_MOMENT = Spend(seconds=0.001)
"""A call needs some time at least, so that a budget of seconds that is used up refuses it."""


@dataclass(frozen=True, slots=True)
class _Limit:
    name: str
    """As in `usage.left`."""
    per: str
    unit: str
    key: str
    limit: float
    ttl_s: int


class RunPurse:
    """Implements `workflow.core.ports.Purse` for one run; costs no call to Redis where no limit is set."""

    def __init__(
        self, connections: Connections, settings: AgentSettings, run_id: RunId, tenant: TenantId, *, now_ms: int
    ) -> None:
        """now_ms: the server's clock when the run was claimed; its day is the one that pays."""
        self._scripts = connections.scripts
        self._run_id = run_id
        day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
        self._limits = [limit for limit in _limits(settings, run_id, tenant, day) if limit.limit]

    async def reserve(self, need: Spend) -> None:
        """Sets `need` aside. Raises: BudgetExceeded when a shared budget has not that much left; Unavailable."""
        for limit in self._limits:
            amount = getattr(need, limit.unit) or getattr(_MOMENT, limit.unit)
            async with translated():
                left = await self._scripts.reserve(
                    keys=[limit.key], args=[self._run_id, amount, limit.limit, limit.ttl_s]
                )
            if left:
                raise BudgetExceeded(
                    f"the next call needs about {amount:g} {limit.unit}; {float(left):g} of {limit.limit:g} "
                    f"{limit.unit} per {limit.per} are left",
                    budget=limit.name,
                )

    async def settle(self, spent: Spend) -> dict[str, float]:
        """Books what was really used in place of what was set aside; what is left of each limit, never below 0."""
        left: dict[str, float] = {}
        for limit in self._limits:
            async with translated():
                total = await self._scripts.settle(
                    keys=[limit.key], args=[self._run_id, getattr(spent, limit.unit), limit.ttl_s]
                )
            left[limit.name] = round(max(0.0, limit.limit - float(total)), 6)
        return left


def _limits(settings: AgentSettings, run_id: RunId, tenant: TenantId, day: str) -> Iterator[_Limit]:
    thread_id = thread_of(run_id)
    for unit in UNITS:
        of_thread = float(getattr(settings, f"thread_max_{unit}"))
        yield _Limit(f"thread_{unit}", "thread", unit, keys.thread_money(thread_id, unit), of_thread, THREAD_TTL_S)
        of_tenant = float(getattr(settings, f"tenant_max_{unit}_per_day"))
        key = keys.tenant_money(tenant, day, unit)
        yield _Limit(f"tenant_{unit}_today", "tenant and day", unit, key, of_tenant, DAY_TTL_S)
