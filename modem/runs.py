"""The run record as one worker or the reaper moves it: claim, release, cancel, reap, and what follows from it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from modem import keys
from modem.meter import Meter
from modem.pool import Connections, translated
from modem.sched import Scheduler
from modem.signals import send_signal
from modem.webhooks import Webhooks
from workflow.core.errors import Conflict, NotFound
from workflow.core.events import EventBase, RunCancelled, RunFailed, Usage, encode
from workflow.core.ids import RunId, TenantId, thread_of
from workflow.core.records import RunOptions, RunRecord

FORCE_CANCEL_MS = 2000
"""A worker that has not ended a cancelled run by then is taken for dead."""

LEAVE_MS = 2000
"""So long a worker has to give a run up that an operator wants elsewhere."""
LOOK_MS = 50

SendHint = Callable[[RunId], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker now owns."""

    record: RunRecord
    fence: int
    run_seq: int
    attempt: int
    reason: str
    """`fresh`, `worker_lost`, `released`, `answered`."""
    now_ms: int
    suspect: bool
    """It was set apart because it may have killed its workers."""


class Runs:
    """Moves run records; every move is one script with the server's clock."""

    def __init__(
        self, connections: Connections, scheduler: Scheduler, send: SendHint, *, meter: Meter | None = None
    ) -> None:
        self._connections = connections
        self._scripts = connections.scripts
        self._sched = scheduler
        self._send = send
        self._meter = meter or Meter()
        self.webhooks = Webhooks(connections)

    async def load(self, run_id: RunId) -> RunRecord:
        """The record. Raises: NotFound, Unavailable."""
        async with translated():
            fields = await self._connections.commands.hgetall(keys.run(run_id))
        if not fields:
            raise NotFound(f"no run {run_id}")
        return to_record(run_id, {name.decode(): value.decode() for name, value in fields.items()})

    async def ready(self, run_id: RunId, tenant: TenantId) -> None:
        """Queues a ready run and tells a worker."""
        await self._sched.push(run_id, tenant)
        await self._send(run_id)

    async def claim(
        self, run_id: RunId, *, worker: str, lease_s: float, config_hash: str = "", sandbox: str = ""
    ) -> Claim | None:
        """Takes the run; None when it is not to be run now (held, ended, not its turn). Raises: Unavailable.

        config_hash, sandbox: what it goes on with here, for its record.
        """
        thread_id = thread_of(run_id)
        async with translated():
            answer = await self._scripts.claim(
                keys=[keys.metadata(thread_id)],
                args=[keys.thread(thread_id), run_id, worker, int(lease_s * 1000), config_hash, sandbox],
            )
        outcome = answer[0].decode()
        if outcome == "ok":
            fence, attempt, run_seq, reason, now, suspect = (part.decode() for part in answer[1:])
            record = await self.load(run_id)
            return Claim(record, int(fence), int(run_seq), int(attempt), reason, int(now), bool(suspect))
        if outcome == "cancel":
            await self.cancel(run_id, reason="cancelled before it started")
        return None

    async def release(self, claim: Claim, *, waiting_until_ms: int | None, reason: str = "released") -> None:
        """Gives a held run back: to the queue, or (with a wake time, 0 never) to wait for a person."""
        run_id, tenant = claim.record.run_id, claim.record.tenant
        thread_id = thread_of(run_id)
        target = "queued" if waiting_until_ms is None else "waiting"
        async with translated():
            status = await self._scripts.release(
                keys=[keys.metadata(thread_id)],
                args=[keys.thread(thread_id), run_id, claim.fence, target, reason, waiting_until_ms or 0],
            )
        await self.webhooks.relay(thread_id)
        if status == b"queued":
            await self.ready(run_id, tenant)
        elif status == b"waiting":
            await self._sched.park(run_id, tenant, wake_ms=waiting_until_ms or claim.now_ms + 86_400_000)

    async def ended(self, run_id: RunId, tenant: TenantId, promoted: RunId | None) -> None:
        """After a run's terminal event: tells outsiders, counts it out, and its thread's next run goes to a worker."""
        await self.webhooks.relay(thread_of(run_id))
        await self._sched.forget(run_id, tenant)
        if promoted is not None:
            await self.ready(promoted, tenant)
        elif await self._sched.anything_ready():
            await self._send(run_id)

    async def trusted(self, run_id: RunId) -> None:
        """A run that may have killed its worker has shown that it does not: the next such run may go."""
        if await self._sched.clear(run_id):
            await self._send(run_id)

    async def cancel(self, run_id: RunId, *, reason: str) -> bool:
        """Ends the run, or asks the worker that holds it; it has ended within 3 s. False if it had ended already.

        Raises: NotFound, Unavailable.
        """
        record = await self.load(run_id)
        thread_id = record.thread_id
        async with translated():
            answer = await self._scripts.cancel(
                keys=[keys.metadata(thread_id)],
                args=[keys.thread(thread_id), run_id, self._cancelled(record, reason), reason, FORCE_CANCEL_MS],
            )
        outcome = answer[0].decode()
        if outcome == "cancelled":
            self._meter.ended("cancelled", "")
            await self.ended(run_id, record.tenant, RunId(answer[1].decode()) if answer[1] else None)
        elif outcome == "asked":
            await send_signal(self._connections, "cancel", run_id)
            await self._sched.look_again(run_id, at_ms=await self._connections.now_ms() + FORCE_CANCEL_MS)
        return outcome in {"cancelled", "asked"}

    async def requeue(self, run_id: RunId) -> None:
        """Lets a run go on elsewhere, with all its attempts; a worker that does not give it up in time loses it.

        Raises: NotFound, Conflict when it has ended, waits for a person or for its thread, Unavailable.
        """
        outcome, detail = await self._requeue(run_id, by_force=False)
        if outcome == "asked":
            await send_signal(self._connections, "release", run_id)
            if await self._left(run_id, fence=detail):
                return
            outcome, detail = await self._requeue(run_id, by_force=True)
        match outcome:
            case "gone":
                raise NotFound(f"no run {run_id}")
            case "ended":
                raise Conflict(f"run {run_id} has ended ({detail}); execute its task again instead", status=detail)
            case "person":
                raise Conflict(f"run {run_id} waits for a person's answer, not for a worker")
            case "thread":
                raise Conflict(f"run {run_id} waits for its thread's earlier run; requeue or cancel that one")
            case "push":
                await self._sched.again(run_id, TenantId(detail))
                await self._send(run_id)

    async def _requeue(self, run_id: RunId, *, by_force: bool) -> tuple[str, str]:
        thread_id = thread_of(run_id)
        async with translated():
            answer = await self._scripts.requeue(
                keys=[keys.metadata(thread_id)], args=[keys.thread(thread_id), run_id, int(by_force)]
            )
        return answer[0].decode(), answer[1].decode() if len(answer) > 1 else ""

    async def _left(self, run_id: RunId, *, fence: str) -> bool:
        """True once the run's worker has given it up or ended it; False when it keeps it for too long."""
        for _ in range(LEAVE_MS // LOOK_MS):
            await asyncio.sleep(LOOK_MS / 1000)
            async with translated():
                now, status = await self._connections.commands.hmget(keys.run(run_id), "fence", "status")
            if (now or b"").decode() != fence or status != b"running":
                return True
        return False

    async def reap(self, run_id: RunId) -> str:
        """Does what the run needs from outside: a new hint, a takeover, an end. Returns the script's word."""
        thread_id = thread_of(run_id)
        async with translated():
            fields = await self._connections.commands.hmget(keys.run(run_id), "usage", "reason")
            usage = Usage.model_validate_json(fields[0]) if fields[0] else Usage()
            reason = fields[1].decode() if fields[1] else ""
            detail = "every worker that took this run died while it worked on it"
            answer = await self._scripts.reap(
                keys=[keys.metadata(thread_id)],
                args=[
                    keys.thread(thread_id),
                    run_id,
                    encode(RunCancelled(thread_id=thread_id, run_id=run_id, reason=reason, usage=usage)),
                    encode(
                        RunFailed(thread_id=thread_id, run_id=run_id, reason="worker_lost", detail=detail, usage=usage)
                    ),
                    detail,
                    FORCE_CANCEL_MS,
                ],
            )
        outcome: str = answer[0].decode()
        await self._follow(run_id, outcome, [part.decode() for part in answer[1:]])
        return outcome

    async def _follow(self, run_id: RunId, outcome: str, rest: list[str]) -> None:
        await self.webhooks.relay(thread_of(run_id))
        match outcome:
            case "push":
                await self._sched.push(run_id, TenantId(rest[0]))
                await self._hint(run_id)
            case "suspect":
                await self._sched.set_apart(run_id, TenantId(rest[0]))
                await self._hint(run_id)
            case "live":
                await self._sched.look_again(run_id, at_ms=int(rest[0]) + 50)
            case "later":
                await self._sched.look_again(run_id, at_ms=await self._connections.now_ms() + 30_000)
            case "ended":
                record = await self.load(run_id)
                self._meter.ended(record.status, record.reason)
                await self.ended(run_id, TenantId(rest[0]), RunId(rest[1]) if rest[1] else None)
            case "gone":
                await self._sched.forget(run_id, TenantId(rest[0]))

    async def _hint(self, run_id: RunId) -> None:
        """Tells a worker again, unless enough hints lie untaken: they would pile up while all workers are full."""
        if await self._sched.lacks_hints():
            await self._send(run_id)

    @staticmethod
    def _cancelled(record: RunRecord, reason: str) -> bytes:
        event: EventBase = RunCancelled(
            thread_id=record.thread_id,
            run_id=record.run_id,
            turn=record.turn,
            reason=reason or "cancelled by the caller",
            usage=record.usage,
        )
        return encode(event)


def to_record(run_id: RunId, fields: dict[str, str]) -> RunRecord:
    """A run record from its Redis hash."""
    decoded: dict[str, Any] = {
        name: fields[name]
        for name in RunRecord.model_fields
        if name in fields and name not in {"options", "usage", "cancel_requested"}
    }
    return RunRecord(
        **decoded | {"run_id": run_id, "thread_id": thread_of(run_id)},
        options=RunOptions.model_validate(json.loads(fields.get("options", "{}"))),
        usage=Usage.model_validate_json(fields.get("usage") or "{}"),
        cancel_requested=fields.get("cancel_requested") == "1",
    )
