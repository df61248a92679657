"""Money that runs share: per thread for its life, per tenant for a day (UTC, the server's clock)."""

from datetime import UTC, datetime

from modem import keys
from modem.pool import Connections, translated
from workflow.core.config import AgentSettings
from workflow.core.errors import BudgetExceeded
from workflow.core.ids import RunId, TenantId, thread_of

DAY_TTL_S = 3 * 86_400
THREAD_TTL_S = 400 * 86_400


class RunPurse:
    """Implements `workflow.core.ports.Purse` for one run; costs no call to Redis where no limit is set."""

    def __init__(
        self, connections: Connections, settings: AgentSettings, run_id: RunId, tenant: TenantId, *, now_ms: int
    ) -> None:
        """now_ms: the server's clock when the run was claimed; its day is the one that pays."""
        self._scripts = connections.scripts
        self._run_id = run_id
        day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
        self._limits = [
            (name, key, limit, ttl_s)
            for name, key, limit, ttl_s in (
                ("thread", keys.thread_money(thread_of(run_id)), settings.thread_max_usd, THREAD_TTL_S),
                ("tenant and day", keys.tenant_money(tenant, day), settings.tenant_max_usd_per_day, DAY_TTL_S),
            )
            if limit
        ]

    async def reserve(self, usd: float) -> None:
        """Sets `usd` aside. Raises: BudgetExceeded when a shared budget has not that much left; Unavailable."""
        for name, key, limit, ttl_s in self._limits:
            async with translated():
                left = await self._scripts.reserve(keys=[key], args=[self._run_id, usd, limit, ttl_s])
            if left:
                raise BudgetExceeded(
                    f"the next call costs about {usd:.4f} USD; {left.decode()} of {limit:g} USD per {name} are left",
                    budget=name,
                )

    async def settle(self, usd: float) -> None:
        """Books what was really spent in place of what was set aside."""
        for _, key, _, ttl_s in self._limits:
            async with translated():
                await self._scripts.settle(keys=[key], args=[self._run_id, usd, ttl_s])
