"""The log as pages, its folded state, and the schema of its events."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.bodies import event_query
from gateway.deps import Reader, RunPath, ServicesDep, ThreadPath, run_of
from gateway.errors import documented
from gateway.services import Services
from gateway.snapshot import fold_log, state_json
from gateway.stream_schema import stream_schema
from modem.stream import START, parse_cursor
from workflow.core.events import Event
from workflow.core.ids import RunId, ThreadId
from workflow.core.state import ThreadState

router = APIRouter(tags=["events"])

After = Annotated[str, event_query("only events after this id", examples=["1790000000000-42"])]
PageSize = Annotated[int, Query(ge=1, le=1000, description="at most this many events")]
_SCAN = 512


class EventPage(BaseModel):
    """Events, oldest first."""

    items: list[Event]
    next_after: str = Field(description="`after` of the next page: the id of the last event seen so far")


_JSON_PAGE: dict[int | str, dict[str, Any]] = {200: {"model": EventPage}}
_JSON_STATE: dict[int | str, dict[str, Any]] = {200: {"model": ThreadState}}


@router.get("/api/agent/{thread_id}/events", responses=_JSON_PAGE | documented(400, 401, 403, 404, 422, 429, 503))
async def list_events(
    thread_id: ThreadPath, caller: Reader, held: ServicesDep, after: After = "", limit: PageSize = 200
) -> Response:
    """The thread's events after `after`."""
    await held.threads.get(caller, thread_id)
    return await _page(held, thread_id, None, after, limit)


@router.get(
    "/api/agent/{thread_id}/runs/{run_id}/events",
    responses=_JSON_PAGE | documented(400, 401, 403, 404, 422, 429, 503),
)
async def list_run_events(
    thread_id: ThreadPath, run_id: RunPath, caller: Reader, held: ServicesDep, after: After = "", limit: PageSize = 200
) -> Response:
    """One run's events after `after`."""
    run = await held.threads.run(caller, run_of(thread_id, run_id))
    return await _page(held, thread_id, run.run_id, after, limit)


@router.get("/api/agent/{thread_id}/state", responses=_JSON_STATE | documented(401, 403, 404, 429, 503))
async def get_state(thread_id: ThreadPath, caller: Reader, held: ServicesDep) -> Response:
    """The thread as its whole log tells it: runs, transcript, plan, todos, files, open questions."""
    await held.threads.get(caller, thread_id)
    state = await fold_log(held.connections, thread_id)
    return Response(state_json(state), media_type="application/json")


@router.get("/events/schema.json")
async def event_schema() -> dict[str, Any]:
    """JSON Schema of every event of a log; its member `x-stream` has one for each SSE event name of a stream."""
    return stream_schema()


async def _page(held: Services, thread_id: ThreadId, run_id: RunId | None, after: str, limit: int) -> Response:
    """The stored envelopes, unchanged."""
    cursor = parse_cursor(after) if after else START
    mark = None if run_id is None else f'"run_id":"{run_id}"'.encode()
    found: list[bytes] = []
    while len(found) < limit:
        page = await held.log.read(thread_id, after=cursor, count=limit if mark is None else _SCAN)
        for entry_id, envelope in page:
            cursor = parse_cursor(entry_id)
            if mark is None or mark in envelope:
                found.append(envelope)
                if len(found) == limit:
                    break
        if not page:
            break
    body = b'{"items":[%b],"next_after":"%b"}' % (b",".join(found), str(cursor).encode() if cursor != START else b"")
    return Response(body, media_type="application/json")
