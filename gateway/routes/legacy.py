"""The reference's flow endpoint, on the same log: a flow is a thread, a flow input is a run."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gateway.deps import ServicesDep, admit, as_thread_id
from gateway.routes.stream import STREAM_RESPONSES, LastEventId, LastId, open_stream
from gateway.sse import read_start

router = APIRouter(prefix="/agent", tags=["legacy"])


@router.get("/event-stream", response_class=Response, responses=STREAM_RESPONSES)
async def event_stream(
    request: Request,
    held: ServicesDep,
    flow_uuid: Annotated[str, Query(alias="flowUuid", max_length=64, description="the thread")],
    flow_input_uuid: Annotated[str, Query(alias="flowInputUuid", max_length=129, description="the run")] = "",
    last_id: LastId = "",
    last_event_id: LastEventId = "",
) -> Response:
    """A run's events (or a thread's, without `flowInputUuid`), as `GET /api/agent/{thread_id}/stream` sends them."""
    thread_id = as_thread_id(flow_uuid)
    caller = await held.auth.caller(request, thread_id=thread_id)
    await admit(request, held, caller, scope="read", kind="requests")
    start = read_start(header=last_event_id, last_id=last_id)
    return await open_stream(held, caller, thread_id, start, run_id=flow_input_uuid)
