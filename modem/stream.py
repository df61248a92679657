"""The event log of a thread: read it, know its bounds, append to it through the fence."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from modem import keys
from modem.pool import Connections, translated
from workflow.core.errors import BadCursor
from workflow.core.events import Event, decode
from workflow.core.ids import RunId, ThreadId

_CURSOR = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX = 2**64


class StreamId(NamedTuple):
    """`<epoch_ms>-<seq>`; compares as two integers."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START = StreamId(0, 0)


def parse_cursor(text: str) -> StreamId:
    """The id that `text` spells. Raises: BadCursor unless it is two decimal integers below 2^64."""
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[1]) >= _MAX or int(match[2]) >= _MAX:
        raise BadCursor(f"not an event id: {text[:60]!r}; an id looks like 1790000000000-42")
    return StreamId(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a log holds. `epoch` 0: there is none; `first_seq` > `last_seq`: it holds nothing (any more)."""

    epoch: int
    first_seq: int
    last_seq: int

    @property
    def last_id(self) -> StreamId:
        return StreamId(self.epoch, self.last_seq)


class Log:
    """Reads the logs of all threads."""

    def __init__(self, connections: Connections) -> None:
        self._redis = connections.commands

    @staticmethod
    def decode(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
        """Raw stream entries as events."""
        return [decode(fields[b"e"]) for _, fields in entries]

    async def read(self, thread_id: ThreadId, *, after: StreamId = START, count: int = 512) -> list[tuple[str, bytes]]:
        """(id, envelope) of the events after `after`, oldest first; at most `count`.

        Raises: Unavailable. Source: redis.io/docs/latest/commands/xrange
        """
        async with translated():
            entries = await self._redis.xrange(keys.stream(thread_id), min=f"({after}", count=count)
        return [(entry_id.decode(), fields[b"e"]) for entry_id, fields in entries]

    async def read_back(self, thread_id: ThreadId, *, upto: StreamId, count: int = 64) -> list[tuple[str, bytes]]:
        """(id, envelope) of the events up to and with `upto`, newest first; at most `count`. Raises: Unavailable."""
        async with translated():
            entries = await self._redis.xrevrange(keys.stream(thread_id), max=str(upto), count=count)
        return [(entry_id.decode(), fields[b"e"]) for entry_id, fields in entries]

    async def events(self, thread_id: ThreadId, *, after: StreamId = START) -> list[Event]:
        """All events after `after`, decoded; reads in pages and lets others run in between."""
        events: list[Event] = []
        while page := await self.read(thread_id, after=after):
            events += [decode(envelope) for _, envelope in page]
            after = parse_cursor(page[-1][0])
            await asyncio.sleep(0)
        return events

    async def exists(self, thread_id: ThreadId, cursor: StreamId) -> bool:
        """True if exactly this event is in the log."""
        async with translated():
            return bool(await self._redis.xrange(keys.stream(thread_id), min=str(cursor), max=str(cursor)))

    async def bounds(self, thread_id: ThreadId) -> Bounds:
        """The oldest and newest event still kept. Raises: Unavailable."""
        async with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hmget(keys.metadata(thread_id), "epoch", "seq")
            pipe.xrange(keys.stream(thread_id), count=1)
            (epoch, seq), first = await pipe.execute()
        if epoch is None:
            return Bounds(0, 1, 0)
        last_seq = int(seq)
        return Bounds(int(epoch), parse_cursor(first[0][0].decode()).seq if first else last_seq + 1, last_seq)

    async def previews(self, thread_id: ThreadId) -> list[bytes]:
        """What grows now in the thread: one delta each with offset 0 and the text so far."""
        async with translated():
            active = await self._redis.hget(keys.metadata(thread_id), "active")
            run_id = RunId(active.decode()) if active else None
            texts = await self._redis.hgetall(keys.previews(run_id)) if run_id else {}
        deltas = []
        for field, text in texts.items():
            turn, kind, item = field.decode().split("|", 2)
            delta = {"type": "delta", "run_id": run_id, "turn": int(turn), "item": item, "kind": kind, "offset": 0}
            deltas.append(json.dumps(delta | {"text": text.decode(errors="replace")}, ensure_ascii=False).encode())
        return deltas
