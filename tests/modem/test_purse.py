"""Money that runs of a thread and of a tenant share."""

import pytest

from modem.purse import RunPurse
from tests.modem.conftest import ALICE, EVE, Line
from workflow.core.config import AgentSettings
from workflow.core.errors import BudgetExceeded
from workflow.core.ids import RunId
from workflow.core.ports import Spend
from workflow.core.records import Caller

NOW = 1_790_000_000_000
LIMITS = AgentSettings(thread_max_usd=1.0, tenant_max_usd_per_day=1.5)


def purse(line: Line, run: str, caller: Caller = ALICE, *, now_ms: int = NOW) -> RunPurse:
    return RunPurse(line.connections, LIMITS, RunId(run), caller.tenant, now_ms=now_ms)


async def test_what_is_set_aside_counts_until_it_is_settled(line: Line) -> None:
    first, second = purse(line, "t.1"), purse(line, "t.2")
    await first.reserve(Spend(usd=0.7))
    with pytest.raises(BudgetExceeded, match="thread"):
        await second.reserve(Spend(usd=0.4))
    await first.settle(Spend(usd=0.1))
    await second.reserve(Spend(usd=0.4))


async def test_a_tenants_threads_share_its_day_and_the_next_day_is_new(line: Line) -> None:
    await purse(line, "a.1").settle(Spend(usd=0.9))
    await purse(line, "b.1").settle(Spend(usd=0.5))
    with pytest.raises(BudgetExceeded, match="tenant and day"):
        await purse(line, "c.1").reserve(Spend(usd=0.2))
    await purse(line, "c.1", EVE).reserve(Spend(usd=0.2))
    await purse(line, "c.1", now_ms=NOW + 86_400_000).reserve(Spend(usd=0.2))


async def test_a_run_that_reserves_again_after_a_takeover_is_counted_once(line: Line) -> None:
    await purse(line, "t.1").reserve(Spend(usd=0.8))
    await purse(line, "t.1").reserve(Spend(usd=0.8))


async def test_without_limits_nothing_is_kept(line: Line) -> None:
    free = RunPurse(line.connections, AgentSettings(), RunId("t.1"), ALICE.tenant, now_ms=NOW)
    await free.reserve(Spend(usd=1e9))
    await free.settle(Spend(usd=1e9))
    assert await line.connections.commands.keys("*money*") == []


LEFT = {"turns": 3, "tokens": 1000, "usd": 2.0, "seconds": 60.0}


@pytest.mark.parametrize("unit", LEFT)
@pytest.mark.parametrize(("shared", "scope", "per"), [("a.2", "thread", "thread"), ("b.1", "tenant", "tenant and day")])
async def test_every_unit_is_limited_per_thread_and_per_tenant_and_says_what_is_left(
    line: Line, unit: str, shared: str, scope: str, per: str
) -> None:
    name = f"thread_max_{unit}" if scope == "thread" else f"tenant_max_{unit}_per_day"
    settings = AgentSettings.model_validate({name: LEFT[unit]})

    def of(run: str) -> RunPurse:
        return RunPurse(line.connections, settings, RunId(run), ALICE.tenant, now_ms=NOW)

    half = Spend(turns=2, tokens=500, usd=1.0, seconds=30.0)
    first, second = of("a.1"), of(shared)
    await first.reserve(half)
    left = await first.settle(half)
    assert left == {f"{scope}_{unit}{'_today' if scope == 'tenant' else ''}": LEFT[unit] - getattr(half, unit)}
    await second.reserve(Spend(turns=1, tokens=400, usd=0.9))
    await second.settle(half)
    with pytest.raises(BudgetExceeded, match=f"{unit} per {per}"):
        await first.reserve(Spend(turns=1, tokens=1, usd=0.1))
