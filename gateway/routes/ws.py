"""The stream's WebSocket twin: the same log and cursor rules, and commands on the same connection.

Server → client: `{"event", "id"?, "data"}`, the words of the SSE stream plus `reply`; with `?batch=true` a message
may hold several of them, one a line.
Client → server: `{"command", "id"?, ...}`, answered by `reply` or `error`, each with the command's `id`.
"""

import asyncio
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, WebSocket
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.websockets import WebSocketDisconnect

from gateway.bodies import Body, Line
from gateway.deps import admit, as_thread_id, run_of, services
from gateway.errors import not_valid, problem, problem_of, request_id_of, respond
from gateway.frames import KEEP_ALIVE, Frame
from gateway.ratelimit import Kind
from gateway.routes.questions import AnswerBody
from gateway.routes.runs import CancelBody, SteerBody
from gateway.routes.stream import subscribe
from gateway.routes.threads import ExecuteBody, start_run
from gateway.services import Services
from gateway.sse import WIRE, read_start
from gateway.subscription import Subscription, Wire, Wish
from workflow.core.errors import DialtoneError
from workflow.core.ids import ThreadId
from workflow.core.records import Caller

router = APIRouter()

_CLOSE = {"ended": 1000, "too_old": 1001, "draining": 1012, "refused": 1008, "slow": 1013}
"""Close codes by reason. Source: iana.org/assignments/websocket"""
_NO_TEXT = 1003
_ID_CHARS = 100


class _Command(Body):
    route: ClassVar[str]
    """The same over HTTP, whose rate it shares."""
    id: Line = Field("", max_length=_ID_CHARS, description="comes back with the answer")


class Execute(_Command, ExecuteBody):
    route = "POST /api/agent/{thread_id}/execute"
    command: Literal["execute"]
    idempotency_key: Line = Field("", max_length=255)


class Cancel(_Command, CancelBody):
    route = "POST /api/agent/{thread_id}/runs/{run_id}/cancel"
    command: Literal["cancel"]
    run_id: Line = Field(max_length=129)


class Steer(_Command, SteerBody):
    route = "POST /api/agent/{thread_id}/runs/{run_id}/steer"
    command: Literal["steer"]
    run_id: Line = Field(max_length=129)


class Answer(_Command, AnswerBody):
    route = "POST /api/agent/{thread_id}/questions/{question_id}/answer"
    command: Literal["answer"]
    question_id: Line = Field(max_length=128)


Command = Annotated[Execute | Cancel | Steer | Answer, Field(discriminator="command")]
_COMMAND: TypeAdapter[Execute | Cancel | Steer | Answer] = TypeAdapter(Command)


@router.websocket("/api/agent/{thread_id}/ws")
async def ws(websocket: WebSocket) -> None:
    """Answers an upgrade with a problem body when it is refused, else serves the connection to its end."""
    held = services(websocket)
    try:
        caller, thread_id, subscription = await _open(websocket, held)
    except DialtoneError as error:
        await websocket.send_denial_response(respond(error, request_id_of(websocket.scope)))
        return
    session = _Session(websocket, held, caller, thread_id, subscription)
    try:
        await websocket.accept()
        await session.run()
    finally:
        held.hub.leave(subscription)


async def _open(websocket: WebSocket, held: Services) -> tuple[Caller, ThreadId, Subscription]:
    thread_id = as_thread_id(websocket.path_params["thread_id"])
    caller = await held.auth.caller(websocket, thread_id=thread_id)
    await admit(websocket, held, caller, scope="read", kind="requests")
    query = websocket.query_params
    header = websocket.headers.get("last-event-id", "")
    start = read_start(header=header, last_id=query.get("last_id", ""), origin=query.get("from", ""))
    thread = await held.threads.get(caller, thread_id)
    run_id = query.get("run_id")
    run = await held.threads.run(caller, run_of(thread_id, run_id)) if run_id else None
    wish = Wish(start.after(thread), deltas=query.get("deltas", "true").lower() not in {"false", "0"})
    subscription = await subscribe(held, caller, thread, run, wish)
    wire: Wire | None = websocket.scope["extensions"].get(WIRE)
    subscription.abort = wire.abort if wire is not None else None
    return caller, thread_id, subscription


class _Session:
    """One open connection."""

    def __init__(
        self, websocket: WebSocket, held: Services, caller: Caller, thread_id: ThreadId, subscription: Subscription
    ) -> None:
        self._websocket = websocket
        self._held = held
        self._caller = caller
        self._thread_id = thread_id
        self._subscription = subscription
        self._together = websocket.query_params.get("batch", "").lower() in {"true", "1"}

    async def run(self) -> None:
        """Writes the stream while it takes commands; returns when either side has ended."""
        writer = asyncio.create_task(self._write())
        try:
            while True:
                await self._take(await self._websocket.receive_text())
        except WebSocketDisconnect:
            pass
        except KeyError:  # Starlette's word for a binary message
            await self._websocket.close(_NO_TEXT, "commands are text")
        finally:
            self._subscription.close("left")
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self) -> None:
        subscription, now = self._subscription, asyncio.get_running_loop().time
        try:
            if self._websocket.query_params.get("from") == "now":  # one that is cut early must not start at another now
                await self._websocket.send_text(Frame(KEEP_ALIVE.name, KEEP_ALIVE.data, at=subscription.cursor).ws)
            async for batch in subscription.batches():
                texts = [frame.ws for frame in batch]
                for text in ["\n".join(texts)] if self._together and texts else texts:
                    subscription.writing_since = now()
                    await self._websocket.send_text(text)
                    subscription.writing_since = None
            code = _CLOSE.get(subscription.closed)
            if code is not None and code != _CLOSE["slow"]:
                await self._websocket.close(code, subscription.closed)
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: Starlette's word for a connection that is closed
            subscription.close("left")

    async def _take(self, text: str) -> None:
        """One command, answered before the next is read."""
        command_id, request_id = "", request_id_of(self._websocket.scope)
        try:
            try:
                command = _COMMAND.validate_json(text)
            except ValidationError as error:
                command_id = _id_in(text)
                await self._admit("requests", route="")
                await self._say("error", _unreadable(error, request_id) | {"id": command_id})
            else:
                command_id = command.id
                result = await self._obey(command)
                await self._say("reply", {"id": command_id, "command": command.command, "result": result})
        except DialtoneError as error:
            await self._say("error", problem_of(error, request_id) | {"id": command_id})

    async def _admit(self, kind: Kind, *, route: str) -> None:
        await self._held.auth.check(self._caller)
        await admit(self._websocket, self._held, self._caller, scope="write", kind=kind, route=route)

    async def _obey(self, command: Execute | Cancel | Steer | Answer) -> Any:
        held, caller, thread_id = self._held, self._caller, self._thread_id
        await self._admit("executes" if isinstance(command, Execute) else "requests", route=command.route)
        match command:
            case Execute():
                return await start_run(held, caller, thread_id, command, command.idempotency_key)
            case Cancel():
                return await held.threads.cancel(caller, run_of(thread_id, command.run_id), reason=command.reason)
            case Steer():
                await held.threads.steer(caller, run_of(thread_id, command.run_id), text=command.text)
            case Answer():
                await held.threads.answer(
                    caller, thread_id, command.question_id, answer=command.answer, note=command.note
                )
        return None

    async def _say(self, event: str, data: dict[str, Any]) -> None:
        await self._websocket.send_text(Frame(event, to_json(data)).ws)


def _id_in(text: str) -> str:
    """The id that a command bears whose rest is wrong; empty if it has none."""
    try:
        said = from_json(text)
    except ValueError:
        return ""
    given = said.get("id") if isinstance(said, dict) else None
    return given[:_ID_CHARS] if isinstance(given, str) else ""


def _unreadable(error: ValidationError, request_id: str) -> dict[str, Any]:
    """The problem of a command that does not fit."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem(400, "bad_json", "the message is not JSON", request_id=request_id)
    return not_valid(faults, request_id)
