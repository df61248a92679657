"""The operator's desk, acting. Every action leaves a line in the log: who, what, to whom."""

import logging
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from gateway.bodies import Body, Line, Spoken
from gateway.deps import Operator, RunPath, ServicesDep, as_run_id
from gateway.errors import documented
from gateway.routes.webhooks import NoticePath
from modem.desk import MOST_AT_ONCE, Block, CancelledMany, Reloaded
from modem.survey import OpenRun, OpenStatus, Wanted
from workflow.core.errors import BadInput
from workflow.core.ids import RUN_ID, RunId, TenantId
from workflow.core.records import Caller

router = APIRouter(prefix="/api/operator", tags=["operator"])
_audit = logging.getLogger("gateway.audit")

WorkerPath = Annotated[str, Path(max_length=200, description="the worker's name")]
OneTenant = Annotated[Line, Field(min_length=1, max_length=200, examples=["acme"])]


class DrainBody(Body):
    hand_over: bool = Field(False, description="its runs go on elsewhere at once, instead of ending where they are")


class CancelManyBody(Body):
    """Which runs: either `run_ids`, or any of the others, which must all hold."""

    run_ids: tuple[Annotated[Line, Field(pattern=RUN_ID.pattern, max_length=129)], ...] = Field(
        (), max_length=MOST_AT_ONCE
    )
    tenant: Line = Field("", max_length=200)
    status: OpenStatus | None = None
    in_trouble: bool = False
    older_than_s: float = Field(0, ge=0, le=10_000_000, description="accepted longer ago than this")
    cursor: Line = Field("", max_length=129, description="`next_cursor` of the request before, which named no run_ids")
    reason: Line = Field("", max_length=500, description="stands in the runs' last event")


class BlockBody(Body):
    tenant: OneTenant
    reason: Spoken = Field(max_length=500, description="the tenant's callers read it")
    cancel_runs: bool = Field(False, description="also cancels the runs that it has, the first 500 of them")


class Blocked(BaseModel):
    block: Block
    cancelled: CancelledMany = Field(
        description="what came of `cancel_runs`. With a `next_cursor` it has more: go on with `runs/cancel`, and name "
        "the tenant, this `cursor` and this `reason`"
    )


class UnblockBody(Body):
    tenant: OneTenant


class ReloadPage(BaseModel):
    items: list[Reloaded]


@router.post(
    "/workers/{worker}/drain",
    status_code=202,
    response_class=Response,
    responses=documented(400, 401, 403, 404, 422, 429, 503),
)
async def drain_worker(
    worker: WorkerPath, caller: Operator, held: ServicesDep, body: DrainBody | None = None
) -> Response:
    """The worker takes no more runs, within two seconds. Those it has end there, or go on elsewhere at once."""
    hand_over = body is not None and body.hand_over
    await held.desk.drain(worker, by=name_of(caller), hand_over=hand_over)
    audit(caller, "drain a worker", worker=worker, hand_over=hand_over)
    return Response(status_code=202)


@router.post(
    "/workers/{worker}/undrain",
    status_code=202,
    response_class=Response,
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def undrain_worker(worker: WorkerPath, caller: Operator, held: ServicesDep) -> Response:
    """The worker takes runs again, within two seconds."""
    await held.desk.undrain(worker)
    audit(caller, "undrain a worker", worker=worker)
    return Response(status_code=202)


@router.post("/runs/{run_id}/requeue", responses=documented(401, 403, 404, 409, 422, 429, 503))
async def requeue_run(run_id: RunPath, caller: Operator, held: ServicesDep) -> OpenRun:
    """The run goes on elsewhere, first of its tenant's, with all its attempts. A worker that does not give it up
    within two seconds loses it. 409 when it has ended, or waits for a person or an earlier run of its thread."""
    found = await held.desk.requeue(as_run_id(run_id))
    audit(caller, "requeue a run", run_id=run_id, of_tenant=found.run.tenant)
    return found


@router.post("/runs/cancel", responses=documented(400, 401, 403, 413, 422, 429, 503))
async def cancel_many(caller: Operator, held: ServicesDep, body: CancelManyBody) -> CancelledMany:
    """Asks for the end of many runs, of any tenant, which comes within 3 s; at most 500 by one request."""
    reason = body.reason or "cancelled by an operator"
    wanted = Wanted(
        tenant=TenantId(body.tenant) if body.tenant else None,
        status=body.status,
        in_trouble=body.in_trouble,
        older_than_ms=int(body.older_than_s * 1000),
    )
    if bool(body.run_ids) == (wanted != Wanted()):
        raise BadInput("name run_ids, or else a tenant, a status, in_trouble or older_than_s", field="run_ids")
    if body.run_ids and body.cursor:
        raise BadInput("run_ids are cancelled by one request; leave the cursor out", field="cursor")
    if body.run_ids:
        done = await held.desk.cancel(map(RunId, body.run_ids), reason=reason)
    else:
        done = await held.desk.cancel_wanted(wanted, reason=reason, cursor=body.cursor)
    audit(caller, "cancel runs", count=len(done.run_ids), **body.model_dump(mode="json", exclude_defaults=True))
    return done


@router.post("/tenants/block", responses=documented(400, 401, 403, 413, 422, 429, 503))
async def block_tenant(caller: Operator, held: ServicesDep, body: BlockBody) -> Blocked:
    """The tenant starts no runs any more: its executes are answered with 403 `tenant_blocked` and the reason. Runs
    that were accepted before go on, unless they are cancelled along with it."""
    tenant = TenantId(body.tenant)
    block = await held.desk.block(tenant, by=name_of(caller), reason=body.reason)
    audit(caller, "block a tenant", of_tenant=tenant, reason=body.reason, cancel_runs=body.cancel_runs)
    cancelled = CancelledMany()
    if body.cancel_runs:
        reason = f"an operator has blocked the tenant: {body.reason}"
        cancelled = await held.desk.cancel_wanted(Wanted(tenant=tenant), reason=reason)
    return Blocked(block=block, cancelled=cancelled)


@router.post("/tenants/unblock", status_code=204, responses=documented(400, 401, 403, 404, 422, 429, 503))
async def unblock_tenant(caller: Operator, held: ServicesDep, body: UnblockBody) -> Response:
    """The tenant may start runs again. 404 when it was not blocked."""
    await held.desk.unblock(TenantId(body.tenant))
    audit(caller, "unblock a tenant", of_tenant=body.tenant)
    return Response(status_code=204)


@router.post("/config/reload", responses=documented(401, 403, 429, 503))
async def reload_config(caller: Operator, held: ServicesDep) -> ReloadPage:
    """Every gateway and worker reads config.toml and secrets.toml again: what took effect, what needs a restart, and
    what does not hold. Waits for their answers, for at most 4 s."""
    found = await held.desk.reload()
    audit(caller, "reload the configuration", processes=len(found))
    return ReloadPage(items=found)


@router.post(
    "/webhooks/{notice_id}/replay",
    status_code=202,
    response_class=Response,
    responses=documented(401, 403, 404, 409, 429, 503),
)
async def replay_any(notice_id: NoticePath, caller: Operator, held: ServicesDep) -> Response:
    """Delivers a dead notice of any tenant again. 409 while it is not dead."""
    tenant = await held.desk.replay(notice_id)
    audit(caller, "replay a notice", webhook_id=notice_id, of_tenant=tenant)
    return Response(status_code=202)


def name_of(caller: Caller) -> str:
    """An operator as others read it."""
    return f"{caller.user}@{caller.tenant}"


def audit(caller: Caller, action: str, **what: object) -> None:
    """Leaves a line in the log."""
    who = name_of(caller)
    _audit.warning("%s: %s", who, action, extra={"operator": who, "credential": caller.credential, **what})
