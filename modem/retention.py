"""Keeps logs within their limit without forgetting what they told.

What is trimmed is folded first, into the log's base: the state of the thread as of the newest trimmed event. A
reader whose place in the log is gone is given the base and then every event that is left.
"""

from importlib.resources import files

from pydantic import TypeAdapter

from modem import keys
from modem.pool import Connections, translated
from modem.stream import START, Log, StreamId, parse_cursor
from workflow.core.events import decode
from workflow.core.ids import ThreadId
from workflow.core.state import ThreadState

BASE_TRANSCRIPT = 1000
"""So many messages and results a base holds, the newest; what is older can no longer be had."""
_STATE = TypeAdapter(ThreadState)


async def base(connections: Connections, thread_id: ThreadId) -> ThreadState:
    """What the trimmed part of the log told; an empty state when nothing was trimmed. Raises: Unavailable."""
    async with translated():
        stored = await connections.commands.hget(keys.base(thread_id), "state")
    return ThreadState() if stored is None else _STATE.validate_json(stored)


async def trim(connections: Connections, thread_id: ThreadId, *, keep: int) -> int:
    """Forgets the oldest events beyond `keep`, after folding them into the base; how many. Raises: Unavailable."""
    async with translated():
        surplus = int(await connections.commands.xlen(keys.stream(thread_id))) - keep
    if surplus <= 0:
        return 0
    state = await base(connections, thread_id)
    known = state.last_id
    first = await _fold(Log(connections), thread_id, state, surplus)
    state.transcript = state.transcript[-BASE_TRANSCRIPT:]
    script = connections.commands.register_script((files("modem") / "lua" / "trim.lua").read_text())
    async with translated():
        done = await script(
            keys=[keys.base(thread_id), keys.stream(thread_id)],
            args=[known, state.last_id, _STATE.dump_json(state), str(first)],
        )
    return surplus if done else 0


async def _fold(log: Log, thread_id: ThreadId, state: ThreadState, count: int) -> StreamId:
    """Folds the oldest `count` events into `state`; gives back the first id that stays."""
    after = START
    while count:
        page = await log.read(thread_id, after=after, count=min(count, 256))
        for event_id, envelope in page:
            after = parse_cursor(event_id)
            state.apply(decode(envelope))
        count -= len(page)
    return StreamId(after.epoch, after.seq + 1)
