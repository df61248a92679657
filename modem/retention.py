"""Keeps logs within their limit without forgetting what they told.

What is trimmed is folded first, into the log's base: the state of the thread as of the newest trimmed event. A
reader whose place in the log is gone is given the base and then every event that is left.
"""

from collections.abc import AsyncIterator
from importlib.resources import files

from pydantic import TypeAdapter

from modem import keys
from modem.pool import Connections, translated
from modem.stream import START, Log, StreamId, parse_cursor
from workflow.core.events import Event, decode
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


async def trim(connections: Connections, thread_id: ThreadId, *, keep: int, since_ms: int = 0) -> int:
    """Forgets the oldest events after folding them into the base; how many. Raises: Unavailable.

    keep: so many stay at most. since_ms: what happened before goes, by the server's clock; 0: whatever its age.
    """
    async with translated():
        surplus = int(await connections.commands.xlen(keys.stream(thread_id))) - keep
    if surplus <= 0 and not since_ms:
        return 0
    doomed = _doomed(Log(connections), thread_id, surplus, since_ms)
    event = await anext(doomed, None)
    if event is None:
        return 0
    state, count = await base(connections, thread_id), 0
    known = state.last_id
    while event is not None:
        state.apply(event)
        count += 1
        event = await anext(doomed, None)
    state.transcript = state.transcript[-BASE_TRANSCRIPT:]
    last = parse_cursor(state.last_id)
    script = connections.commands.register_script((files("modem") / "lua" / "trim.lua").read_text())
    async with translated():
        done = await script(
            keys=[keys.base(thread_id), keys.stream(thread_id)],
            args=[known, state.last_id, _STATE.dump_json(state), str(StreamId(last.epoch, last.seq + 1))],
        )
    return count if done else 0


async def _doomed(log: Log, thread_id: ThreadId, surplus: int, since_ms: int) -> AsyncIterator[Event]:
    """The oldest events, as far as one of the limits asks for their end."""
    after = START
    while page := await log.read(thread_id, after=after, count=256):
        for event_id, envelope in page:
            event = decode(envelope)
            if surplus <= 0 and event.at >= since_ms:
                return
            yield event
            surplus -= 1
            after = parse_cursor(event_id)
