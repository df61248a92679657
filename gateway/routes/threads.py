"""Threads: make, list, read, change, delete, and execute a task in one."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, Field

from gateway.bodies import Body, Cursor, Limit, Line, Metadata, Spoken
from gateway.deps import Executor, Reader, ServicesDep, ThreadPath, Writer
from gateway.errors import documented
from gateway.services import Services
from workflow.core.errors import TooLarge
from workflow.core.ids import RunId, ThreadId
from workflow.core.records import Budgets, BusyPolicy, Caller, ModelChoice, RunOptions, RunStatus, ThreadRecord

router = APIRouter(prefix="/api/agent", tags=["threads"])


Address = Annotated[str, Field(max_length=2000, pattern=r"^(https?://[\x21-\x7e]+)?$")]
"""Of another server, or empty."""


class InitiateBody(Body):
    """A new thread."""

    title: Line = Field("", max_length=200, examples=["Quarterly report"])
    model: Line | None = Field(None, max_length=200, description="name of a configured model; unset: the default")
    models: ModelChoice = Field(ModelChoice(), description="other models for single parts of every run")
    metadata: Metadata = Field(default_factory=dict)
    webhook: Address = Field("", description="told of the ends and questions of runs that name no webhook of their own")


class Initiated(BaseModel):
    thread_id: ThreadId = Field(examples=["7f3a9c0d5be1482690aa"])


class UpdateBody(Body):
    """What is left out stays as it is."""

    title: Line | None = Field(None, max_length=200)
    model: Line | None = Field(None, max_length=200, description="of runs from now on; empty: the default")
    models: ModelChoice | None = Field(None, description="of runs from now on; replaces the whole choice")
    metadata: Metadata | None = None
    webhook: Address | None = Field(None, description="empty: nobody is told any more")


class ExecuteBody(Body):
    """A task for the thread's agent."""

    task: Spoken = Field(description="what to do", examples=["Write hello.py and run it"])
    model: Line | None = Field(None, max_length=200, description="name of a configured model; unset: the thread's")
    models: ModelChoice = Field(ModelChoice(), description="other models for single parts; unset ones: the thread's")
    files: tuple[Annotated[Line, Field(min_length=1, max_length=1024)], ...] = Field(
        (), max_length=100, description="workspace paths that belong to the task; upload them first"
    )
    policy: BusyPolicy | None = Field(
        None,
        description="when the thread is busy: wait (`enqueue`), refuse (`reject`), end the running run "
        "(`interrupt`), or hand the task to it (`steer`); unset: as configured",
    )
    budgets: Budgets = Field(Budgets(), description="limits of this run; they can lower the configured ones only")
    webhook: Address = Field("", description="told when the run ends or asks; empty: as the thread says")


class Accepted(BaseModel):
    """The run that the task became."""

    run_id: RunId = Field(examples=["7f3a9c0d5be1482690aa.1c9e03b7"])
    thread_id: ThreadId
    status: RunStatus = Field(examples=["queued"])
    position: int | None = Field(description="runs that start before this one; null once it started", examples=[0])
    stream_url: str = Field(
        description="the run's events, from its first to its last",
        examples=["/api/agent/7f3a9c0d5be1482690aa/stream?run_id=7f3a9c0d5be1482690aa.1c9e03b7"],
    )


class ThreadPage(BaseModel):
    items: list[ThreadRecord]
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


@router.post("/initiate", responses=documented(400, 401, 403, 413, 422, 429, 503))
async def initiate(caller: Writer, held: ServicesDep, body: InitiateBody | None = None) -> Initiated:
    """Makes a thread: a conversation with its own log and workspace."""
    body = body or InitiateBody()
    record = await held.threads.create(
        caller,
        title=body.title,
        model=body.model,
        models=body.models,
        metadata=dict(body.metadata),
        webhook=body.webhook,
    )
    return Initiated(thread_id=record.thread_id)


@router.post("/{thread_id}/execute", status_code=202, responses=documented(400, 401, 403, 404, 409, 413, 422, 429, 503))
async def execute(
    thread_id: ThreadPath,
    caller: Executor,
    held: ServicesDep,
    body: ExecuteBody,
    idempotency_key: Annotated[
        str,
        Header(
            max_length=255,
            pattern=r"^[\x21-\x7e]*$",
            description="the same key with the same body gives the same run, for a day; with another body 409",
        ),
    ] = "",
) -> Accepted:
    """Starts a run, or queues it behind the thread's other runs. Follow `stream_url` to watch it."""
    return await start_run(held, caller, thread_id, body, idempotency_key)


async def start_run(
    held: Services, caller: Caller, thread_id: ThreadId, body: ExecuteBody, idempotency_key: str
) -> Accepted:
    """What `execute` does, over HTTP and WebSocket alike. Raises: TooLarge, BadInput, and what `open_run` raises."""
    longest = held.settings.gateway.max_task_chars
    if len(body.task) > longest:
        raise TooLarge(f"the task has {len(body.task)} characters and {longest} is the limit", limit=longest)
    options = RunOptions(
        model=body.model, models=body.models, budgets=body.budgets, files=body.files, webhook=body.webhook
    )
    run = await held.threads.open_run(
        caller,
        thread_id,
        task=body.task,
        options=options,
        policy=body.policy,
        idempotency_key=idempotency_key,
        trace=held.tracing.traceparent() if held.tracing is not None else "",
    )
    return Accepted(
        run_id=run.run_id,
        thread_id=run.thread_id,
        status=run.status,
        position=run.position,
        stream_url=f"/api/agent/{run.thread_id}/stream?run_id={run.run_id}",
    )


@router.get("", responses=documented(400, 401, 403, 422, 429, 503))
async def list_threads(
    caller: Reader,
    held: ServicesDep,
    limit: Limit = 50,
    cursor: Cursor = "",
    q: Annotated[str, Query(max_length=200, description="part of a title")] = "",
) -> ThreadPage:
    """The caller's tenant's threads, newest first."""
    items, next_cursor = await held.threads.find(caller, limit=limit, cursor=cursor, query=q)
    return ThreadPage(items=items, next_cursor=next_cursor or None)


@router.get("/{thread_id}", responses=documented(401, 403, 404, 429, 503))
async def get_thread(thread_id: ThreadPath, caller: Reader, held: ServicesDep) -> ThreadRecord:
    """One thread."""
    return await held.threads.get(caller, thread_id)


@router.patch("/{thread_id}", responses=documented(400, 401, 403, 404, 413, 422, 429, 503))
async def update_thread(thread_id: ThreadPath, caller: Writer, held: ServicesDep, body: UpdateBody) -> ThreadRecord:
    """Changes a thread's title, models, metadata or webhook."""
    metadata: dict[str, Any] | None = None if body.metadata is None else dict(body.metadata)
    return await held.threads.update(
        caller,
        thread_id,
        title=body.title,
        model=body.model,
        models=body.models,
        metadata=metadata,
        webhook=body.webhook,
    )


@router.delete("/{thread_id}", status_code=204, responses=documented(401, 403, 404, 409, 429, 503))
async def delete_thread(thread_id: ThreadPath, caller: Writer, held: ServicesDep) -> Response:
    """Forgets a thread with its log and runs. A run that has not ended stands in the way: 409."""
    await held.threads.delete(caller, thread_id)
    return Response(status_code=204)
