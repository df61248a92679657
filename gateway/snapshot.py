"""The folded state of a thread as JSON: what `gap`, `reset` and `GET …/state` carry."""

import asyncio

from pydantic import TypeAdapter

from modem.pool import Connections
from modem.retention import base
from modem.stream import START, Log, parse_cursor
from workflow.core.events import decode
from workflow.core.ids import ThreadId
from workflow.core.state import ThreadState

_STATE = TypeAdapter(ThreadState)


def state_json(state: ThreadState) -> bytes:
    """`state` as JSON."""
    return _STATE.dump_json(state)


async def fold_log(connections: Connections, thread_id: ThreadId) -> ThreadState:
    """The state that the whole log tells, page by page, so that others run in between. Raises: Unavailable."""
    log, state = Log(connections), await base(connections, thread_id)
    after = parse_cursor(state.last_id) if state.last_id else START
    while page := await log.read(thread_id, after=after, count=256):
        for _, envelope in page:
            state.apply(decode(envelope))
        after = parse_cursor(page[-1][0])
        await asyncio.sleep(0)
    return state
