"""Runs of a thread: list, read, what they cost, cancel, steer."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway.bodies import Body, Cursor, Limit, Spoken, Text
from gateway.deps import Reader, RunPath, ServicesDep, ThreadPath, Writer, run_of
from gateway.errors import documented
from workflow.core.events import Usage
from workflow.core.records import RunRecord

router = APIRouter(prefix="/api/agent/{thread_id}/runs", tags=["runs"])


class RunPage(BaseModel):
    items: list[RunRecord]
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


class CancelBody(Body):
    reason: Text = Field("", max_length=500, description="stands in the run's last event")


class SteerBody(Body):
    text: Spoken = Field(max_length=100_000, description="read at the run's next turn")


@router.get("", responses=documented(400, 401, 403, 404, 422, 429, 503))
async def list_runs(
    thread_id: ThreadPath, caller: Reader, held: ServicesDep, limit: Limit = 50, cursor: Cursor = ""
) -> RunPage:
    """The thread's runs, newest first."""
    items, next_cursor = await held.threads.runs(caller, thread_id, limit=limit, cursor=cursor)
    return RunPage(items=items, next_cursor=next_cursor or None)


@router.get("/{run_id}", responses=documented(401, 403, 404, 429, 503))
async def get_run(thread_id: ThreadPath, run_id: RunPath, caller: Reader, held: ServicesDep) -> RunRecord:
    """One run: its status, its place in the queue, its end."""
    return await held.threads.run(caller, run_of(thread_id, run_id))


@router.get("/{run_id}/usage", responses=documented(401, 403, 404, 429, 503))
async def get_usage(thread_id: ThreadPath, run_id: RunPath, caller: Reader, held: ServicesDep) -> Usage:
    """Tokens and money of the run so far."""
    return (await held.threads.run(caller, run_of(thread_id, run_id))).usage


@router.post("/{run_id}/cancel", responses=documented(400, 401, 403, 404, 422, 429, 503))
async def cancel_run(
    thread_id: ThreadPath, run_id: RunPath, caller: Writer, held: ServicesDep, body: CancelBody | None = None
) -> RunRecord:
    """Asks for the run's end, which comes within 3 s. A run that has ended stays as it is."""
    reason = body.reason if body is not None else ""
    return await held.threads.cancel(caller, run_of(thread_id, run_id), reason=reason)


@router.post(
    "/{run_id}/steer",
    status_code=202,
    response_class=Response,
    responses=documented(400, 401, 403, 404, 409, 413, 422, 429, 503),
)
async def steer_run(
    thread_id: ThreadPath, run_id: RunPath, caller: Writer, held: ServicesDep, body: SteerBody
) -> Response:
    """Hands a message to the run while it works. 409 when it has ended."""
    await held.threads.steer(caller, run_of(thread_id, run_id), text=body.text)
    return Response(status_code=202)
