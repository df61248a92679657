"""What routes ask for by type: the services, the caller, and ids of paths.

Every dependency is a coroutine function: FastAPI takes any other one to a thread, up to 40 of them, at each request.
"""

from typing import Annotated

from fastapi import Depends, Path, Request
from starlette.requests import HTTPConnection

from gateway.ratelimit import Kind
from gateway.services import Services
from workflow.core.errors import Forbidden, NotFound
from workflow.core.ids import RUN_ID, THREAD_ID, RunId, ThreadId
from workflow.core.records import Caller, Scope


def services(request: HTTPConnection) -> Services:
    """What this process holds open."""
    held: Services = request.app.state.services
    return held


async def _services(request: HTTPConnection) -> Services:
    return services(request)


ServicesDep = Annotated[Services, Depends(_services)]


async def authorize(request: HTTPConnection, held: Services, *, scope: Scope, kind: Kind | None = "requests") -> Caller:
    """The caller, who has `scope` and is within the rate. Raises: Unauthenticated, Forbidden, LimitExceeded."""
    caller = await held.auth.caller(request)
    await admit(request, held, caller, scope=scope, kind=kind)
    return caller


async def admit(
    request: HTTPConnection,
    held: Services,
    caller: Caller,
    *,
    scope: Scope,
    kind: Kind | None,
    route: str | None = None,
) -> None:
    """Checks a known caller's scope and rate. Raises: Forbidden, LimitExceeded.

    route: whose own rate counts too; by default that of the request.
    """
    if scope not in caller.scopes:
        raise Forbidden(f"the credential lacks the scope `{scope}`", scope=scope)
    if kind is not None:
        if route is None:
            route = f"{request.scope.get('method', 'GET')} {request.scope['route'].path}"
        await held.limits.spend(caller, kind, route, request.scope["state"])


async def reader(request: Request, held: ServicesDep) -> Caller:
    """A caller who may read."""
    return await authorize(request, held, scope="read")


async def writer(request: Request, held: ServicesDep) -> Caller:
    """A caller who may change things."""
    return await authorize(request, held, scope="write")


async def executor(request: Request, held: ServicesDep) -> Caller:
    """A caller who may start runs, counted as such."""
    return await authorize(request, held, scope="write", kind="executes")


async def operator(request: Request, held: ServicesDep) -> Caller:
    """A caller who looks after the whole installation."""
    return await authorize(request, held, scope="operator")


Reader = Annotated[Caller, Depends(reader)]
Writer = Annotated[Caller, Depends(writer)]
Executor = Annotated[Caller, Depends(executor)]
Operator = Annotated[Caller, Depends(operator)]


def as_thread_id(text: str) -> ThreadId:
    """`text` as a thread id. Raises: NotFound if it is none, for then no thread can have it."""
    if THREAD_ID.fullmatch(text) is None:
        raise NotFound(f"no thread {text}")
    return ThreadId(text)


async def _thread_path(thread_id: Annotated[str, Path(description="id of the thread")]) -> ThreadId:
    return as_thread_id(thread_id)


ThreadPath = Annotated[ThreadId, Depends(_thread_path)]
RunPath = Annotated[str, Path(description="id of the run, `<thread_id>.<suffix>`")]


def as_run_id(text: str) -> RunId:
    """`text` as a run id. Raises: NotFound if it is none."""
    if RUN_ID.fullmatch(text) is None:
        raise NotFound(f"no run {text}")
    return RunId(text)


def run_of(thread_id: ThreadId, run_id: str) -> RunId:
    """The run id, if it belongs to the thread. Raises: NotFound."""
    match = RUN_ID.fullmatch(run_id)
    if match is None or match[1] != thread_id:
        raise NotFound(f"no run {run_id}")
    return RunId(run_id)
