"""A small gateway over real sockets that does exactly what a test scripts: drops, gaps, refusals, questions."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from workflow.core.events import TERMINAL_TYPES, ApprovalResolved, Delta, EventBase, RunCancelled, RunQueued, encode
from workflow.core.ids import RunId, ThreadId, new_run_id, new_thread_id

CONSOLE = Path(__file__).parents[2] / "gateway" / "console"
EPOCH = 1_763_700_000_000


@dataclass(frozen=True)
class Cut:
    """Every open stream breaks, `sending` some bytes of an unfinished frame first."""

    sending: bytes = b""


@dataclass(frozen=True)
class Frame:
    """One raw frame to everybody."""

    event: str
    body: dict[str, Any]


@dataclass(frozen=True)
class UntilAnswered:
    """The script goes on when `question_id` was answered."""

    question_id: str


@dataclass(frozen=True)
class UntilCancelled:
    """The script goes on when the run's cancel was asked for."""


@dataclass(frozen=True)
class UntilWatched:
    """The script goes on once somebody watches the thread."""


Step = EventBase | Delta | Cut | Frame | UntilAnswered | UntilCancelled | UntilWatched


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class CutConnection(Exception):
    """Ends a response in the middle."""


@dataclass
class StubThread:
    thread_id: str
    title: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    first_seq: int = 1
    """Events before it were trimmed."""
    watchers: set[asyncio.Queue[bytes | CutConnection]] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    previews: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    """Run id → task."""
    cancelled: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    steers: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, event: EventBase, run_id: str) -> None:
        filled = event.model_copy(update={"thread_id": ThreadId(self.thread_id), "run_id": RunId(run_id)})
        seq = len(self.log) + 1
        envelope = {"id": f"{EPOCH}-{seq}", "at": EPOCH + 100 * seq, **json.loads(encode(filled))}
        self.log.append(envelope)
        self.tell(fact_frame(envelope))

    def tell(self, frame: bytes | CutConnection) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(frame)
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def ended(self, run_id: str) -> bool:
        return any(e["run_id"] == run_id and e["type"] in TERMINAL_TYPES for e in self.log)


def fact_frame(envelope: dict[str, Any]) -> bytes:
    return f"event: task_agent_execute\nid: {envelope['id']}\ndata: {json.dumps(envelope)}\n\n".encode()


def frame(event: str, body: str) -> bytes:
    return f"event: {event}\ndata: {body}\n\n".encode()


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    body = {
        "type": f"about:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "r1",
    }
    return JSONResponse(body, status, headers, "application/problem+json")


def cut_answer() -> Response:
    """An answer whose connection breaks in the middle."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"{"
        raise CutConnection

    return StreamingResponse(broken())


class StubGateway:
    """State and behaviour; every attribute may be set by the test before it acts."""

    def __init__(self) -> None:
        self.url = ""
        self.key = ""
        self.scripts: dict[str, Sequence[Step]] = {}
        """Task → what its run does."""
        self.refusals: list[Response] = []
        """Answers to the next requests, before anything is done."""
        self.stream_refusals: list[Response] = []
        """Answers to the next stream requests."""
        self.lost_answers = 0
        """So many POSTs are carried out, and then their connection is cut instead of an answer."""
        self.retry_ms = 10
        self.seen: list[Seen] = []
        self.threads: dict[str, StubThread] = {}
        self._plays: set[asyncio.Task[None]] = set()

    def stream_requests(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.endswith("/stream")]

    def app(self) -> Starlette:
        agent = "/api/agent/{thread_id}"
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/api/agent", self._threads),
                Route("/api/agent/initiate", self._initiate, methods=["POST"]),
                Route(agent, self._thread, methods=["GET", "PATCH", "DELETE"]),
                Route(f"{agent}/execute", self._execute, methods=["POST"]),
                Route(f"{agent}/stream", self._stream),
                Route(f"{agent}/runs", self._runs),
                Route(f"{agent}/runs/{{run_id}}/events", self._events),
                Route(f"{agent}/runs/{{run_id}}/cancel", self._cancel, methods=["POST"]),
                Route(f"{agent}/runs/{{run_id}}/steer", self._steer, methods=["POST"]),
                Route(f"{agent}/events", self._events),
                Route(f"{agent}/questions/{{question_id}}/answer", self._answer, methods=["POST"]),
                Route(f"{agent}/previews", self._previews),
                Route(f"{agent}/previews/{{preview_id}}", self._revoke, methods=["DELETE"]),
                Route(f"{agent}/files", self._files),
                Route(f"{agent}/files/{{path:path}}", self._file, methods=["GET", "PUT", "DELETE"]),
                Mount("/", StaticFiles(directory=CONSOLE)),
            ]
        )

    async def _begin(self, request: Request) -> Response | None:
        """Notes the request; an answer when it is refused."""
        seen = Seen(
            request.method, request.url.path, dict(request.query_params), dict(request.headers), await request.body()
        )
        self.seen.append(seen)
        if self.refusals:
            return self.refusals.pop(0)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return problem(401, "unauthenticated", "no valid key")
        if "thread_id" in request.path_params and request.path_params["thread_id"] not in self.threads:
            return problem(404, "not_found", "no such thread")
        return None

    def _of(self, request: Request) -> StubThread:
        return self.threads[request.path_params["thread_id"]]

    def _posted(self, body: dict[str, Any], status: int = 200) -> Response:
        return cut_answer() if self._is_lost() else JSONResponse(body, status)

    def _is_lost(self) -> bool:
        self.lost_answers -= 1
        return self.lost_answers >= 0

    async def _health(self, request: Request) -> Response:
        return await self._begin(request) or JSONResponse({"status": "ok"})

    async def _initiate(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        body = await request.json()
        thread_id = new_thread_id()
        self.threads[thread_id] = StubThread(thread_id, title=body.get("title", ""))
        return self._posted({"thread_id": thread_id})

    async def _threads(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        q = request.query_params.get("q", "")
        items = [self._record(thread) for thread in self.threads.values() if q in thread.title]
        return JSONResponse({"items": items[: int(request.query_params.get("limit", 50))], "next_cursor": None})

    def _record(self, thread: StubThread) -> dict[str, Any]:
        last_id = thread.log[-1]["id"] if thread.log else ""
        return {
            "thread_id": thread.thread_id,
            "tenant": "t",
            "user": "u",
            "title": thread.title,
            "created_at": EPOCH,
            "updated_at": EPOCH,
            "last_id": last_id,
        }

    async def _thread(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        thread = self._of(request)
        if request.method == "DELETE":
            del self.threads[thread.thread_id]
            return Response(status_code=204)
        if request.method == "PATCH":
            thread.title = (await request.json()).get("title", thread.title)
        return JSONResponse(self._record(thread))

    async def _execute(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        thread, body = self._of(request), await request.json()
        key = request.headers.get("idempotency-key", "")
        run_id = thread.keys.get(key)
        if run_id is None:
            run_id = thread.keys[key] = new_run_id(ThreadId(thread.thread_id))
            thread.runs[run_id] = body["task"]
            thread.append(RunQueued(thread_id=ThreadId(""), task=body["task"]), run_id)
            play = asyncio.create_task(self._play(thread, run_id, self.scripts.get(body["task"], ())))
            self._plays.add(play)
        answer = {"run_id": run_id, "thread_id": thread.thread_id, "status": "queued", "position": 0, "stream_url": ""}
        return self._posted(answer, 202)

    async def _play(self, thread: StubThread, run_id: str, script: Sequence[Step]) -> None:
        for step in script:
            match step:
                case EventBase():
                    thread.append(step, run_id)
                case Delta():
                    thread.tell(
                        frame("task_agent_execute", step.model_copy(update={"run_id": run_id}).model_dump_json())
                    )
                case Frame():
                    thread.tell(frame(step.event, json.dumps({**step.body, "run_id": run_id})))
                case Cut():
                    thread.tell(step.sending)
                    thread.tell(CutConnection())
                case UntilAnswered():
                    while step.question_id not in thread.answers:
                        await thread.changed.wait()
                case UntilCancelled():
                    while run_id not in thread.cancelled:
                        await thread.changed.wait()
                    thread.append(RunCancelled(thread_id=ThreadId("")), run_id)
                    return
                case UntilWatched():
                    while not thread.watchers:
                        await thread.changed.wait()

    async def _stream(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        if self.stream_refusals:
            return self.stream_refusals.pop(0)
        thread = self._of(request)
        run_id = request.query_params.get("run_id", "")
        cursor = request.headers.get("last-event-id") or request.query_params.get("last_id") or ""
        if run_id and thread.ended(run_id) and cursor == thread.log[-1]["id"]:
            return Response(status_code=204)
        deltas = request.query_params.get("deltas") != "false"
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._frames(thread, run_id, cursor, deltas), media_type="text/event-stream", headers=headers
        )

    async def _frames(self, thread: StubThread, run_id: str, cursor: str, deltas: bool) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | CutConnection] = asyncio.Queue()
        for head in self._catch_up(thread, run_id, cursor):
            queue.put_nowait(head)
        thread.watchers.add(queue)
        thread.wake()
        try:
            yield f"retry: {self.retry_ms}\n\n".encode()
            while True:
                piece = await queue.get()
                if isinstance(piece, CutConnection):
                    raise piece
                if not deltas and b'"type":"delta"' in piece:
                    continue
                yield piece
                if run_id and thread.ended(run_id) and queue.empty():
                    return
        finally:
            thread.watchers.discard(queue)

    def _catch_up(self, thread: StubThread, run_id: str, cursor: str) -> Iterator[bytes]:
        epoch, _, seq = cursor.partition("-")
        after = int(seq) if seq else 0
        if cursor and int(epoch) != EPOCH:
            yield frame("reset", json.dumps({"epoch": EPOCH, "state": None}))
            after = 0
        elif cursor and after + 1 < thread.first_seq:
            state = {"transcript": [{"type": "message", "text": "what was said"}]}
            last = thread.first_seq - 1
            yield frame("gap", json.dumps({"from": f"{EPOCH}-{after + 1}", "to": f"{EPOCH}-{last}", "state": state}))
        for envelope in thread.log[max(after, thread.first_seq - 1) :]:
            if not run_id or envelope["run_id"] == run_id:
                yield fact_frame(envelope)

    async def _runs(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        thread = self._of(request)
        items = [self._run_record(thread, run_id) for run_id in thread.runs]
        return JSONResponse({"items": items, "next_cursor": None})

    def _run_record(self, thread: StubThread, run_id: str) -> dict[str, Any]:
        owner = {"thread_id": thread.thread_id, "tenant": "t", "user": "u"}
        return {"run_id": run_id, "status": "queued", "task": thread.runs[run_id], **owner}

    async def _events(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        run_id = request.path_params.get("run_id")
        after = int(request.query_params.get("after", "-0").partition("-")[2])
        limit = min(3, int(request.query_params["limit"]))
        items = [e for e in self._of(request).log[after:] if run_id in (None, e["run_id"])][:limit]
        return JSONResponse({"items": items, "next_after": items[-1]["id"] if items else f"{EPOCH}-{after}"})

    async def _cancel(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        thread = self._of(request)
        thread.cancelled.add(request.path_params["run_id"])
        thread.wake()
        return JSONResponse(self._run_record(thread, request.path_params["run_id"]))

    async def _steer(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        self._of(request).steers.append((await request.json())["text"])
        return cut_answer() if self._is_lost() else Response(status_code=202)

    async def _answer(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        thread, question_id = self._of(request), request.path_params["question_id"]
        if question_id in thread.answers:
            return problem(409, "conflict", "answered already")
        answer = thread.answers[question_id] = (await request.json())["answer"]
        resolved = ApprovalResolved(thread_id=ThreadId(""), question_id=question_id, answer=answer, by="u")
        thread.append(resolved, next(iter(thread.runs), ""))
        return Response(status_code=204)

    async def _files(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        files = sorted(self._of(request).files.items())
        return JSONResponse({"items": [{"path": path, "kind": "file", "size": len(body)} for path, body in files]})

    async def _previews(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        return JSONResponse({"items": list(self._of(request).previews.values())})

    async def _revoke(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        if self._of(request).previews.pop(request.path_params["preview_id"], None) is None:
            return problem(404, "not_found", "no such preview")
        return Response(status_code=204)

    async def _file(self, request: Request) -> Response:
        if refusal := await self._begin(request):
            return refusal
        files, path = self._of(request).files, request.path_params["path"]
        if request.method == "PUT":
            files[path] = await request.body()
            return JSONResponse({"path": path, "kind": "file", "size": len(files[path]), "mode": 420, "mtime_ns": 0})
        if path not in files:
            return problem(404, "not_found", "no such file")
        if request.method == "DELETE":
            del files[path]
            return Response(status_code=204)
        return Response(files[path], media_type="application/octet-stream")


@contextmanager
def serving(gateway: StubGateway) -> Iterator[StubGateway]:
    """`gateway` on a free port of the loopback, in a thread of its own."""
    config = uvicorn.Config(gateway.app(), host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="stub gateway", daemon=True)
    thread.start()
    deadline = threading.Event()
    while not server.started and thread.is_alive():
        deadline.wait(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    gateway.url = f"http://127.0.0.1:{port}"
    try:
        yield gateway
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        assert not thread.is_alive()
