"""Threads and runs as their owner sees and changes them; another tenant's look like unknown ones."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from modem import keys
from modem.pages import count_before, cursor_of, rank_after
from modem.pool import Connections, translated
from modem.runs import Runs
from modem.sched import Scheduler
from modem.signals import send_signal
from modem.webhooks import check_address
from modem.workspaces import give_up
from workflow.core.config import Settings
from workflow.core.errors import Conflict, KeyReused, LimitExceeded, NotFound, ThreadBusy
from workflow.core.events import ApprovalResolved, Message, RunQueued, encode
from workflow.core.ids import RunId, TenantId, ThreadId, new_item_id, new_run_id, new_thread_id, thread_of
from workflow.core.records import BusyPolicy, Caller, ModelChoice, RunOptions, RunRecord, ThreadRecord


class Threads:
    """The gateway's view of all threads. Raises everywhere: NotFound, Unavailable."""

    def __init__(self, connections: Connections, settings: Settings, runs: Runs, scheduler: Scheduler) -> None:
        self._connections = connections
        self._redis = connections.commands
        self._scripts = connections.scripts
        self._settings = settings
        self._runs = runs
        self._sched = scheduler

    async def create(
        self,
        caller: Caller,
        *,
        title: str = "",
        model: str | None = None,
        models: ModelChoice | None = None,
        metadata: dict[str, Any] | None = None,
        webhook: str = "",
        thread_id: ThreadId | None = None,
    ) -> ThreadRecord:
        """A new thread of the caller's. Raises: Conflict if `thread_id` is taken, BadInput for an unusable webhook."""
        if webhook:
            check_address(webhook, self._settings.webhooks)
        thread_id = thread_id or new_thread_id()
        fields = {
            "tenant": caller.tenant,
            "user": caller.user,
            "title": title,
            "model": model or "",
            "models": (models or ModelChoice()).model_dump_json(),
            "metadata": json.dumps(metadata or {}),
            "webhook": webhook,
        }
        flat = [part for pair in fields.items() for part in pair]
        async with translated():
            made = await self._scripts.create(keys=[keys.metadata(thread_id)], args=[keys.thread(thread_id), *flat])
            if not made:
                raise Conflict(f"thread {thread_id} exists")
            created = int(await self._redis.hget(keys.metadata(thread_id), "created_at"))
            await self._redis.zadd(keys.tenant_threads(caller.tenant), {thread_id: created})
        return await self.get(caller, thread_id)

    async def get(self, caller: Caller, thread_id: ThreadId) -> ThreadRecord:
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(keys.metadata(thread_id))
            pipe.llen(f"{keys.thread(thread_id)}queue")
            raw, queued = await pipe.execute()
        fields = {name.decode(): value.decode() for name, value in raw.items()}
        if fields.get("tenant") != caller.tenant:
            raise NotFound(f"no thread {thread_id}")
        return _thread_record(thread_id, fields, queued)

    async def busy(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        """Those of the threads whose run has not ended."""
        names = list(thread_ids)
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            for thread_id in names:
                pipe.hget(keys.metadata(thread_id), "active")
            return {thread_id for thread_id, active in zip(names, await pipe.execute(), strict=True) if active}

    async def find(
        self, caller: Caller, *, limit: int = 50, cursor: str = "", query: str = ""
    ) -> tuple[list[ThreadRecord], str]:
        """The newest threads first, and the cursor of the next page ('' at the end). `query` is found in titles.

        Raises: BadInput for what is no cursor, Unavailable.
        """
        index = keys.tenant_threads(caller.tenant)
        found: list[ThreadRecord] = []
        async with translated():
            start = await rank_after(self._redis, index, cursor)
        while True:
            async with translated():
                page = await self._redis.zrevrange(index, start, start + limit - 1, withscores=True)
            for name, created_ms in page:
                thread_id = ThreadId(name.decode())
                record = await self._listed(caller, thread_id)
                if record is None:
                    continue  # it left the index, and those behind it moved up
                start += 1
                if query.lower() in record.title.lower():
                    found.append(record)
                    if len(found) == limit:
                        return found, cursor_of(created_ms, thread_id)
            if len(page) < limit:
                return found, ""

    async def _listed(self, caller: Caller, thread_id: ThreadId) -> ThreadRecord | None:
        try:
            return await self.get(caller, thread_id)
        except NotFound:
            await self._redis.zrem(keys.tenant_threads(caller.tenant), thread_id)
            return None

    async def update(
        self,
        caller: Caller,
        thread_id: ThreadId,
        *,
        title: str | None = None,
        model: str | None = None,
        models: ModelChoice | None = None,
        metadata: dict[str, Any] | None = None,
        webhook: str | None = None,
    ) -> ThreadRecord:
        """Changes what is given and leaves the rest. Raises: BadInput for an unusable webhook.

        model: '' takes the default again.
        """
        if webhook:
            check_address(webhook, self._settings.webhooks)
        await self.get(caller, thread_id)
        fields: dict[str, Any] = {}
        if title is not None:
            fields["title"] = title
        if model is not None:
            fields["model"] = model
        if models is not None:
            fields["models"] = models.model_dump_json()
        if metadata is not None:
            fields["metadata"] = json.dumps(metadata)
        if webhook is not None:
            fields["webhook"] = webhook
        if fields:
            async with translated():
                await self._redis.hset(keys.metadata(thread_id), mapping=fields)
        return await self.get(caller, thread_id)

    async def delete(self, caller: Caller, thread_id: ThreadId) -> None:
        """Forgets the thread, its log, its runs and its files. Raises: Conflict while a run has not ended."""
        record = await self.get(caller, thread_id)
        if record.active_run is not None:
            raise Conflict(f"run {record.active_run} has not ended; cancel it first", run_id=record.active_run)
        await self._runs.webhooks.relay(thread_id)
        await give_up(self._connections, thread_id)  # Already: if Redis goes away in between, the files still go.
        async with translated():
            pattern = keys.thread(thread_id).replace("[", "\\[") + "*"
            doomed = [key async for key in self._redis.scan_iter(match=pattern, count=1000)]
            pipe = self._redis.pipeline(transaction=False)
            for key in doomed:
                pipe.unlink(key)
            pipe.zrem(keys.tenant_threads(caller.tenant), thread_id)
            pipe.hdel(keys.tenant_sandboxes(caller.tenant), thread_id)
            await pipe.execute()
            await self._scripts.quota_weigh(keys=[keys.tenant_disk(caller.tenant)], args=[thread_id, 0])
        await give_up(self._connections, thread_id)

    async def open_run(
        self,
        caller: Caller,
        thread_id: ThreadId,
        *,
        task: str,
        options: RunOptions,
        policy: BusyPolicy | None = None,
        idempotency_key: str = "",
        trace: str = "",
    ) -> RunRecord:
        """Records a run and tells a worker; the same idempotency key and body give the same run.

        Raises: ThreadBusy (policy `reject`), KeyReused, LimitExceeded, BadInput for an unusable webhook.
        """
        if options.webhook:
            check_address(options.webhook, self._settings.webhooks)
        run_id = new_run_id(thread_id)
        thread = await self.get(caller, thread_id)
        body = hashlib.sha256(f"{task}\0{options.model_dump_json()}\0{policy}".encode()).hexdigest()
        chosen = options.within(thread)
        await self._sched.admit(run_id, caller.tenant)
        # Without an answer nobody knows whether it is recorded; the reaper looks, and counts it out if it is not.
        answer = await self._record(caller, run_id, task, chosen, policy, idempotency_key, body, trace)
        if answer[0] not in {"ready", "queued"}:
            await self._sched.forget(run_id, caller.tenant)
        await self._after_open(caller, run_id, answer, policy)
        return await self.run(caller, RunId(answer[1]))

    async def _record(
        self,
        caller: Caller,
        run_id: RunId,
        task: str,
        options: RunOptions,
        policy: BusyPolicy | None,
        idempotency_key: str,
        body: str,
        trace: str,
    ) -> list[str]:
        thread_id, runs = thread_of(run_id), self._settings.runs
        queued = RunQueued(
            thread_id=thread_id,
            run_id=run_id,
            task=task,
            files=options.files,
            model=options.model,
            user=caller.user,
        )
        steering = Message(thread_id=thread_id, role="user", origin="person", item=new_item_id(), text=task)
        fields = {
            "user": caller.user,
            "task": task,
            "options": options.model_dump_json(),
            "webhook": options.webhook,
            "trace": trace,
            "max_attempts": str(runs.max_attempts),
        }
        async with translated():
            answer = await self._scripts.open_run(
                keys=[keys.metadata(thread_id)],
                args=[
                    keys.thread(thread_id),
                    caller.tenant,
                    run_id,
                    policy or runs.busy_policy,
                    hashlib.sha256(idempotency_key.encode()).hexdigest() if idempotency_key else "",
                    body,
                    int(runs.idempotency_ttl_s * 1000),
                    self._sched.limits.max_queued_per_thread,
                    encode(queued),
                    encode(steering),
                    *(part for pair in fields.items() for part in pair),
                ],
            )
        return [part.decode() if isinstance(part, bytes) else str(part) for part in answer]

    async def _after_open(self, caller: Caller, run_id: RunId, answer: list[str], policy: BusyPolicy | None) -> None:
        match answer[0]:
            case "ready":
                await self._runs.ready(run_id, caller.tenant)
            case "queued":
                if (policy or self._settings.runs.busy_policy) == "interrupt":
                    await self._runs.cancel(RunId(answer[2]), reason="interrupted by a newer task")
            case "steered":
                await send_signal(self._connections, "news", RunId(answer[1]))
            case "missing":
                raise NotFound(f"no thread {thread_of(run_id)}")
            case "held":
                raise Conflict("the thread's files are being restored; try again in a moment", retry_after_s=2)
            case "busy":
                raise ThreadBusy(f"run {answer[1]} has not ended", run_id=answer[1])
            case "reused":
                raise KeyReused("this Idempotency-Key came with another body before")
            case "full":
                raise LimitExceeded(f"{answer[1]} runs wait in this thread already", retry_after_s=5)

    async def run(self, caller: Caller, run_id: RunId) -> RunRecord:
        record = await self._runs.load(run_id)
        if record.tenant != caller.tenant:
            raise NotFound(f"no run {run_id}")
        if record.status == "queued":
            is_held_back = record.waiting_for == "worker" and await self._sched.is_at_limit(record.tenant)
            waiting_for = "quota" if is_held_back else record.waiting_for
            record = record.model_copy(update={"position": await self._position(record), "waiting_for": waiting_for})
        return record

    async def _position(self, record: RunRecord) -> int:
        """Runs that will start before this one: of all tenants when it waits for a worker, else of its thread."""
        ahead = await self._sched.position(record.run_id)
        if ahead is not None:
            return ahead
        async with translated():
            queue = await self._redis.lrange(f"{keys.thread(record.thread_id)}queue", 0, -1)
        mine = record.run_id.encode()
        return queue.index(mine) + 1 if mine in queue else 0

    async def runs(
        self, caller: Caller, thread_id: ThreadId, *, limit: int = 50, cursor: str = ""
    ) -> tuple[list[RunRecord], str]:
        """The newest runs first, and the cursor of the next page ('' at the end).

        Raises: NotFound, BadInput for what is no cursor, Unavailable.
        """
        await self.get(caller, thread_id)
        async with translated():
            end = count_before(cursor, await self._redis.llen(keys.runs(thread_id)))
            start = max(0, end - limit)
            ids = await self._redis.lrange(keys.runs(thread_id), start, end - 1) if end else []
        records = [await self.run(caller, RunId(run_id.decode())) for run_id in reversed(ids)]
        return records, str(start) if start else ""

    async def cancel(self, caller: Caller, run_id: RunId, *, reason: str = "") -> RunRecord:
        """Asks for the end of a run; one that has ended stays as it is."""
        await self.run(caller, run_id)
        await self._runs.cancel(run_id, reason=reason or "cancelled by the caller")
        return await self.run(caller, run_id)

    async def steer(self, caller: Caller, run_id: RunId, *, text: str) -> None:
        """Hands a message to a run that has not ended. Raises: Conflict when it has."""
        await self.run(caller, run_id)
        thread_id = thread_of(run_id)
        message = Message(
            thread_id=thread_id, run_id=run_id, role="user", origin="person", item=new_item_id(), text=text
        )
        async with translated():
            status = await self._scripts.steer(
                keys=[keys.metadata(thread_id)], args=[keys.thread(thread_id), run_id, encode(message)]
            )
        if status in {b"finished", b"failed", b"cancelled"}:
            raise Conflict(f"run {run_id} has ended; execute a new task instead", status=status.decode())
        await send_signal(self._connections, "news", run_id)

    async def answer(
        self, caller: Caller, thread_id: ThreadId, question_id: str, *, answer: str, note: str = ""
    ) -> None:
        """Answers an open question. Raises: Conflict when it is not open (any more)."""
        await self.get(caller, thread_id)
        async with translated():
            owner = await self._redis.hget(f"{keys.thread(thread_id)}questions", question_id)
        if owner is None:
            raise Conflict(f"question {question_id} is not open: unknown, answered, or its run has ended")
        await self.resolve(RunId(owner.decode()), question_id, answer=answer, by=caller.user, note=note)

    async def resolve(self, run_id: RunId, question_id: str, *, answer: str, by: str, note: str = "") -> None:
        """Records an answer, a person's or the policy's, and wakes the run. Raises: Conflict when not open."""
        thread_id = thread_of(run_id)
        event = ApprovalResolved(
            thread_id=thread_id, run_id=run_id, question_id=question_id, answer=answer, by=by, note=note
        )
        await self._sched.look_soon(run_id)
        async with translated():
            result = await self._scripts.answer(
                keys=[keys.metadata(thread_id)], args=[keys.thread(thread_id), question_id, encode(event)]
            )
        outcome = result[0].decode()
        if outcome == "gone":
            raise Conflict(f"question {question_id} is not open: unknown, answered, or its run has ended")
        if outcome == "push":
            await self._runs.ready(run_id, TenantId(result[2].decode()))
        else:
            await send_signal(self._connections, "news", run_id)


def _thread_record(thread_id: ThreadId, fields: dict[str, str], queued: int) -> ThreadRecord:
    return ThreadRecord(
        thread_id=thread_id,
        tenant=fields["tenant"],
        user=fields["user"],
        title=fields.get("title", ""),
        created_at=int(fields["created_at"]),
        updated_at=int(fields["updated_at"]),
        model=fields.get("model") or None,
        models=ModelChoice.model_validate_json(fields.get("models") or "{}"),
        active_run=fields.get("active") or None,
        queued_runs=queued,
        last_status=fields.get("last_status", ""),
        last_id=f"{fields['epoch']}-{fields['seq']}" if fields["seq"] != "0" else "",
        metadata=json.loads(fields.get("metadata") or "{}"),
        webhook=fields.get("webhook", ""),
    )
