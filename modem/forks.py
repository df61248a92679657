"""Copies a thread's log up to an event into a thread of its own, with ids of its own.

The copy is written beside nothing that anybody reads, with a time to live; making the thread's record, the last step,
lets it appear whole. `seq` stays, so an event has the same number in both logs; the epoch is new.
"""

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

from modem import keys
from modem.pool import Connections, translated
from modem.stream import START, Log, StreamId, parse_cursor
from workflow.core.errors import NotFound, Unavailable
from workflow.core.events import TERMINAL_TYPES, EventBase, Notice, RunCancelled, WorkspaceSaved, encode
from workflow.core.ids import RunId, ThreadId
from workflow.core.records import TERMINAL_STATUSES, Caller, RunRecord, ThreadRecord

STAGED_S = 3600
"""An unfinished copy is forgotten after this."""
REASON = "the thread was forked before this run ended"
_EVENT_ID = re.compile(r"\d{1,20}-(\d{1,20})")
_FOREIGN = frozenset({"arguments", "data", "opaque"})
"""Members whose contents are not ours to change."""
_COUNTERS = {"fence": "0", "failures": "0", "next_seq": "0", "lease_until": "0", "owner": "", "waiting_for": ""}
_KEPT = frozenset(RunRecord.model_fields) - {"run_id", "thread_id", "position", "cancel_requested", "trace", *_COUNTERS}
"""What a copied record says; nothing of it is to be done any more."""


@dataclass(slots=True)
class _Copy:
    """What is known while one log is copied."""

    source: ThreadId
    target: ThreadId
    epoch: int
    now_ms: int
    staged: list[str] = field(default_factory=list)
    copied: int = 0
    """The number of the last event that the copy holds, folded into its base or itself."""
    runs: dict[str, bool] = field(default_factory=dict)
    """Runs of the source, in order, and whether their end has come."""

    def renamed(self, value: Any) -> Any:
        """An event or a folded state with the new thread's ids."""
        if isinstance(value, list):
            return [self.renamed(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            self._run_id(name): item if name in _FOREIGN else self._member(name, item, is_event="thread_id" in value)
            for name, item in value.items()
        }

    def _member(self, name: str, value: Any, *, is_event: bool) -> Any:
        if name == "thread_id":
            return self.target
        if name == "run_id" and isinstance(value, str):
            return self._run_id(value)
        if (name in {"last_id", "through"} or (name == "id" and is_event)) and isinstance(value, str):
            found = _EVENT_ID.fullmatch(value)
            return f"{self.epoch}-{found[1]}" if found else value
        return self.renamed(value)

    def _run_id(self, text: str) -> str:
        prefix = f"{self.source}."
        return f"{self.target}.{text.removeprefix(prefix)}" if text.startswith(prefix) else text

    def run_id(self, source: str) -> RunId:
        return RunId(self._run_id(source))

    def follow(self, event: dict[str, Any]) -> None:
        """Notes whose run begins or ends."""
        if event["type"] == "run.queued":
            self.runs[event["run_id"]] = False
        elif event["type"] in TERMINAL_TYPES:
            self.runs[event["run_id"]] = True

    @property
    def open_runs(self) -> list[str]:
        return [run_id for run_id, has_ended in self.runs.items() if not has_ended]

    def envelope(self, payload: bytes | dict[str, Any], seq: int, *, at: int | None = None) -> bytes:
        """An event as the log holds it."""
        members = json.loads(payload) if isinstance(payload, bytes) else payload
        head = {"id": f"{self.epoch}-{seq}", "at": at if at is not None else self.now_ms}
        return json.dumps(head | members, separators=(",", ":")).encode()


class Forks:
    """Makes threads out of others."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._log = Log(connections)

    async def copy(
        self, caller: Caller, source: ThreadRecord, target: ThreadId, *, at: StreamId, title: str, snapshot: str
    ) -> None:
        """Makes thread `target` with everything that `source` holds up to the event `at`.

        target: is expected (modem/workspaces.py). snapshot: of its workspace, whose files are those of `at`.
        Raises: NotFound if the source went away, Unavailable if the target is not expected any more.
        """
        async with translated():
            boot = (await self._redis.info("server"))["run_id"]
        now_ms = await self._connections.now_ms()
        copy = _Copy(source.thread_id, target, epoch=now_ms, now_ms=now_ms)
        await self._copy_base(copy)
        seq = await self._copy_events(copy, at)
        seq = await self._conclude(copy, seq, of=at, snapshot=snapshot)
        ended = await self._copy_runs(copy)
        fields = {
            "tenant": caller.tenant,
            "user": caller.user,
            "title": title or source.title,
            "model": source.model or "",
            "models": source.models.model_dump_json(),
            "metadata": json.dumps(source.metadata),
            "webhook": source.webhook,
            "seq": str(seq),
            "epoch": str(copy.epoch),
            "boot": boot,
            "last_status": ended,
        }
        flat = [part for pair in fields.items() for part in pair]
        made_of = [keys.metadata(target), *copy.staged]
        async with translated():
            made = await self._connections.scripts.create(keys=made_of, args=[keys.thread(target), *flat])
            if not made:
                raise Unavailable("the fork took too long; try again")
            await self._redis.zadd(keys.tenant_threads(caller.tenant), {target: now_ms})

    async def _copy_base(self, copy: _Copy) -> None:
        async with translated():
            stored = await self._redis.hgetall(keys.base(copy.source))
        if not stored:
            return
        copy.copied = parse_cursor(stored[b"id"].decode()).seq
        state = json.loads(stored[b"state"])
        copy.runs |= {run_id: run["status"] in TERMINAL_STATUSES for run_id, run in state["runs"].items()}
        state = copy.renamed(state) | {"previews": {}, "questions": {}}
        name = keys.base(copy.target)
        last = copy.renamed({"last_id": stored[b"id"].decode()})["last_id"]
        async with translated():
            await self._redis.hset(name, mapping={"id": last, "state": json.dumps(state)})
            await self._redis.expire(name, STAGED_S)
        copy.staged.append(name)

    async def _copy_events(self, copy: _Copy, at: StreamId) -> int:
        """The number of the last event copied. Raises: NotFound if it is not the one wanted."""
        name, after = keys.stream(copy.target), START
        while after < at:
            page = await self._log.read(copy.source, after=after)
            if not page:
                raise NotFound(f"no thread {copy.source}")
            pipe = self._redis.pipeline(transaction=False)
            for event_id, envelope in page:
                place = parse_cursor(event_id)
                if place > at or place.seq != copy.copied + 1:
                    break
                copy.copied = place.seq
                event = json.loads(envelope)
                copy.follow(event)
                pipe.xadd(name, {"e": self._envelope(copy, event, place.seq)}, id=f"{copy.epoch}-{place.seq}")
            pipe.expire(name, STAGED_S)
            after = parse_cursor(page[-1][0])
            async with translated():
                await pipe.execute()
            await asyncio.sleep(0)
        copy.staged.append(name)
        if copy.copied != at.seq:  # It, or a part before it, was trimmed meanwhile.
            raise NotFound(f"no event {at}: it is no longer kept", event=str(at))
        return at.seq

    @staticmethod
    def _envelope(copy: _Copy, event: dict[str, Any], seq: int) -> bytes:
        if event["type"] != "preview.exposed":
            return copy.envelope(copy.renamed(event), seq, at=event["at"])
        text = f"A preview of port {event['port']} was here; it belongs to the thread that this one comes from."
        run_id = copy.run_id(event["run_id"]) if event.get("run_id") else None
        notice = Notice(thread_id=copy.target, run_id=run_id, turn=event.get("turn", 0), code="preview_left", text=text)
        return copy.envelope(encode(notice), seq, at=event["at"])

    async def _conclude(self, copy: _Copy, seq: int, *, of: StreamId, snapshot: str) -> int:
        """Ends what is open, so that every run of the copy has its terminal event; the number of the last event."""
        events: list[EventBase] = [
            RunCancelled(thread_id=copy.target, run_id=copy.run_id(run_id), reason=REASON) for run_id in copy.open_runs
        ]
        events.append(
            WorkspaceSaved(thread_id=copy.target, snapshot=snapshot, why="forked", of=str(of), source=str(copy.source))
        )
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            for event in events:
                seq += 1
                pipe.xadd(keys.stream(copy.target), {"e": copy.envelope(encode(event), seq)}, id=f"{copy.epoch}-{seq}")
            await pipe.execute()
        return seq

    async def _copy_runs(self, copy: _Copy) -> str:
        """Copies the records of the runs that the copy tells of; the status of the newest."""
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            for run_id in copy.runs:
                pipe.hgetall(keys.run(RunId(run_id)))
            records = await pipe.execute()
            status, pipe = "", self._redis.pipeline(transaction=False)
            for (run_id, has_ended), record in zip(copy.runs.items(), records, strict=True):
                if not record:
                    continue
                known = {name.decode(): value.decode() for name, value in record.items()}
                fields = {name: known[name] for name in _KEPT if name in known} | _COUNTERS
                if not has_ended:
                    fields |= {"status": "cancelled", "reason": REASON, "detail": "", "ended_at": str(copy.now_ms)}
                status = fields["status"]
                pipe.hset(keys.run(copy.run_id(run_id)), mapping=fields)
                pipe.rpush(keys.runs(copy.target), copy.run_id(run_id))
                copy.staged.append(keys.run(copy.run_id(run_id)))
            copy.staged.append(keys.runs(copy.target))
            for name in copy.staged:
                pipe.expire(name, STAGED_S)
            await pipe.execute()
        return status
