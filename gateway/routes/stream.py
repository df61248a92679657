"""The event stream of a thread, and the ticket that opens it without a header."""

import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from gateway.bodies import CURSOR_PATTERN, event_query
from gateway.deps import Reader, ServicesDep, ThreadPath, admit, run_of
from gateway.errors import documented
from gateway.frames import BUSINESS
from gateway.services import Services
from gateway.sse import EventStream, Start, come_back, is_at_end, read_start
from gateway.stream_schema import SYSTEM
from gateway.subscription import Subscription, Wish
from workflow.core.ids import ThreadId
from workflow.core.records import TERMINAL_STATUSES, Caller, RunRecord, ThreadRecord

router = APIRouter(prefix="/api/agent/{thread_id}", tags=["stream"])

LastId = Annotated[str, event_query("resume after this event; the header `Last-Event-ID` wins")]
LastEventId = Annotated[
    str,
    Header(
        description="what an EventSource sends when it comes back",
        json_schema_extra={"pattern": CURSOR_PATTERN},
    ),
]
From = Annotated[str, Query(alias="from", description="`start` (all events), `now`, or the last id that you have")]
RunFilter = Annotated[str, Query(max_length=129, description="only this run; the stream ends with it")]
Deltas = Annotated[bool, Query(description="whether previews of unfinished text come along")]
Ticket = Annotated[str, Query(max_length=100, description="one-use ticket in place of a credential")]

STREAM_RESPONSES = documented(400, 401, 403, 404, 422, 429, 503) | {
    200: {
        "description": "Events until the client leaves; see docs/events.md",
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "properties": {
                        "event": {"type": "string", "enum": [BUSINESS, *SYSTEM]},
                        "id": {"type": "string", "pattern": CURSOR_PATTERN},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                        "retry": {"type": "integer"},
                    },
                },
                "example": 'event: task_agent_execute\nid: 1790000000000-1\ndata: {"type":"run.queued", ...}\n\n',
            }
        },
    },
    204: {"description": "You have seen everything and nothing more is coming: do not reconnect"},
}


class TicketIssued(BaseModel):
    ticket: str = Field(description="good for one connection to this thread: `stream?ticket=…` or `ws?ticket=…`")
    expires_at: int = Field(description="milliseconds since 1970")


@router.get("/stream", response_class=Response, responses=STREAM_RESPONSES)
async def stream(
    thread_id: ThreadPath,
    request: Request,
    held: ServicesDep,
    last_event_id: LastEventId = "",
    last_id: LastId = "",
    from_: From = "",
    run_id: RunFilter = "",
    deltas: Deltas = True,
    ticket: Ticket = "",
) -> Response:
    """Everything that happens in the thread, as Server-Sent Events; exact resume from any event."""
    caller = await held.auth.caller(request, thread_id=thread_id)
    await admit(request, held, caller, scope="read", kind="requests")
    start = read_start(header=last_event_id, last_id=last_id, origin=from_)
    return await open_stream(held, caller, thread_id, start, run_id=run_id, deltas=deltas)


async def open_stream(
    held: Services, caller: Caller, thread_id: ThreadId, start: Start, *, run_id: str, deltas: bool = True
) -> Response:
    """The response of a stream: 204 at the end of a finished thread or run, else the events."""
    if held.hub.is_draining:
        return come_back(held.settings.gateway.retry_ms)
    thread = await held.threads.get(caller, thread_id)
    run = await held.threads.run(caller, run_of(thread_id, run_id)) if run_id else None
    cursor = start.after(thread)
    if start.is_resume and await is_at_end(held.log, thread, run, cursor):
        return Response(status_code=204)
    subscription = await subscribe(held, caller, thread, run, Wish(cursor, deltas=deltas))
    return EventStream(held.hub, subscription, start, retry_ms=held.settings.gateway.retry_ms)


async def subscribe(
    held: Services, caller: Caller, thread: ThreadRecord, run: RunRecord | None, wish: Wish
) -> Subscription:
    """A place in the thread's stream, or in one run's; the caller of this gives it back to the hub."""
    if run is not None:
        wish = Wish(wish.cursor, run.run_id, run.status in TERMINAL_STATUSES, wish.deltas)
    waiting = [run] if run is not None else []
    if run is None and (thread.queued_runs or thread.last_status == "queued"):
        waiting, _ = await held.threads.runs(caller, thread.thread_id, limit=20)
    elif run is None and thread.active_run is not None:
        waiting = [await held.threads.run(caller, thread.active_run)]
    subscription = held.hub.open(caller, thread.thread_id, wish)
    for one in waiting:
        if one.waits:
            held.hub.note_waiting(one)
    return subscription


@router.post("/ticket", responses=documented(401, 403, 404, 429, 503))
async def issue_ticket(thread_id: ThreadPath, caller: Reader, held: ServicesDep) -> TicketIssued:
    """A ticket for an EventSource or WebSocket that cannot send a header. It works once, within a minute."""
    await held.threads.get(caller, thread_id)
    ttl_s = held.settings.auth.ticket_ttl_s
    ticket = await held.tickets.issue(caller, thread_id, ttl_s=ttl_s)
    return TicketIssued(ticket=ticket, expires_at=int((time.time() + ttl_s) * 1000))
