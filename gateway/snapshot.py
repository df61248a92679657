"""The folded state of a thread as JSON: what `gap`, `reset` and `GET …/state` carry."""

import asyncio

from pydantic import TypeAdapter

from modem.stream import START, Log, parse_cursor
from workflow.core.events import decode
from workflow.core.ids import ThreadId
from workflow.core.state import ThreadState

_STATE = TypeAdapter(ThreadState)


def state_json(state: ThreadState) -> bytes:
    """`state` as JSON."""
    return _STATE.dump_json(state)


async def fold_log(log: Log, thread_id: ThreadId) -> ThreadState:
    """The state that the whole log tells, page by page, so that others run in between. Raises: Unavailable."""
    state, after = ThreadState(), START
    while page := await log.read(thread_id, after=after, count=256):
        for _, envelope in page:
            state.apply(decode(envelope))
        after = parse_cursor(page[-1][0])
        await asyncio.sleep(0)
    return state
