"""The operator's desk, reading: the whole installation, runs of all tenants, history, costs."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.bodies import Cursor, Limit, is_one_line
from gateway.deps import Operator, ServicesDep
from gateway.errors import documented
from modem.desk import Block
from modem.history import DAYS, HOURS, Cost, Point
from modem.overview import Overview
from modem.survey import OpenRun, OpenStatus, Wanted
from modem.webhooks import DeadNotice
from workflow.core.errors import BadInput
from workflow.core.ids import TenantId

router = APIRouter(prefix="/api/operator", tags=["operator"])

Tenant = Annotated[str, Query(max_length=200, description="only of this tenant; empty: of all")]
Status = Annotated[OpenStatus | Literal[""], Query(description="only those that stand so; empty: all")]
InTrouble = Annotated[bool, Query(description="only those that something is wrong with")]
Hours = Annotated[int, Query(ge=1, le=HOURS, description="how far back")]
Days = Annotated[int, Query(ge=1, le=DAYS, description="so many days (UTC), today included")]


class OpenRunPage(BaseModel):
    items: list[OpenRun]
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


class History(BaseModel):
    items: list[Point] = Field(description="oldest first, without holes")
    step_ms: int = Field(description="the length of a point")


class CostPage(BaseModel):
    items: list[Cost] = Field(description="dearest first")
    total_usd: float = Field(description="of all tenants and models")
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


class DeadNoticePage(BaseModel):
    items: list[DeadNotice]
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


class BlockPage(BaseModel):
    items: list[Block]


@router.get("/overview", responses=documented(401, 403, 429, 503))
async def get_overview(caller: Operator, held: ServicesDep) -> Overview:
    """Processes, queues, webhooks and Redis, as they are now."""
    return await held.desk.overview()


@router.get("/runs", responses=documented(400, 401, 403, 422, 429, 503))
async def list_open_runs(
    caller: Operator,
    held: ServicesDep,
    tenant: Tenant = "",
    status: Status = "",
    in_trouble: InTrouble = False,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> OpenRunPage:
    """Runs of all tenants that have not ended, by id: why they wait, and what is wrong with them."""
    wanted = Wanted(tenant=one_tenant(tenant), status=status or None, in_trouble=in_trouble)
    items, next_cursor = await held.desk.runs(wanted, limit=limit, cursor=cursor)
    return OpenRunPage(items=items, next_cursor=next_cursor or None)


@router.get("/history", responses=documented(401, 403, 422, 429, 503))
async def get_history(caller: Operator, held: ServicesDep, hours: Hours = 3) -> History:
    """Throughput, latency, load and money of the last hours, in at most 120 points."""
    items, step_ms = await held.desk.history(hours=hours)
    return History(items=items, step_ms=step_ms)


@router.get("/costs", responses=documented(400, 401, 403, 422, 429, 503))
async def list_costs(
    caller: Operator, held: ServicesDep, days: Days = 1, tenant: Tenant = "", limit: Limit = 50, cursor: Cursor = ""
) -> CostPage:
    """What the models' calls cost, per tenant and model."""
    wanted = one_tenant(tenant)
    found = [one for one in await held.desk.costs(days=days) if wanted is None or one.tenant == wanted]
    start = int(cursor) if cursor.isdecimal() else 0
    return CostPage(
        items=found[start : start + limit],
        total_usd=round(sum(one.usd for one in found), 6),
        next_cursor=str(start + limit) if start + limit < len(found) else None,
    )


@router.get("/webhooks/dead", responses=documented(400, 401, 403, 422, 429, 503))
async def list_all_dead(caller: Operator, held: ServicesDep, limit: Limit = 50, cursor: Cursor = "") -> DeadNoticePage:
    """Notices of all tenants that were given up, newest first."""
    items, next_cursor = await held.desk.dead(limit=limit, cursor=cursor)
    return DeadNoticePage(items=items, next_cursor=next_cursor or None)


@router.get("/tenants/blocked", responses=documented(401, 403, 429, 503))
async def list_blocked(caller: Operator, held: ServicesDep) -> BlockPage:
    """Tenants that may start no runs."""
    return BlockPage(items=await held.desk.blocked())


def one_tenant(text: str) -> TenantId | None:
    """The tenant that `text` names; None for all. Raises: BadInput for what can be no name."""
    if not is_one_line(text):
        raise BadInput("a tenant's name has one line", field="tenant")
    return TenantId(text) if text else None
