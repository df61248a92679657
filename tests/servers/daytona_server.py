"""A local Daytona: the REST control plane, and the toolbox (commands, sessions with WebSocket logs, files).

What it leaves out is what our provider does not ask for; there is no Socket.IO, so the SDK polls for states. What is
real: processes, streams, files, stopping.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.servers.boxes import Box, BoxServer

CHUNK = 32_768
MARKS = {"stdout": b"\x01\x01\x01", "stderr": b"\x02\x02\x02"}


@dataclass
class Command:
    """One command of a session and its log."""

    process: asyncio.subprocess.Process
    log: list[bytes] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def add(self, piece: bytes) -> None:
        self.log.append(piece)
        self.grown.set()


@dataclass
class Session:
    box: Box
    commands: dict[str, Command] = field(default_factory=dict)


class DaytonaServer(BoxServer):
    """Usage: `with DaytonaServer(api_key="...") as server: ... server.api_url ...`"""

    def __init__(self, *, api_key: str, home: str = "") -> None:
        super().__init__(api_key=api_key, home=home)
        self.slow_starts = 0
        """So many looks at a starting sandbox until it has started."""
        self.sessions: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        toolbox, session = "/toolbox/{id}", "/toolbox/{id}/process/session"
        self._routes = Starlette(
            routes=[
                Route("/api/sandbox", self._create, methods=["POST"]),
                Route("/api/sandbox", self._list, methods=["GET"]),
                Route("/api/sandbox/{id}", self._get, methods=["GET"]),
                Route("/api/sandbox/{id}", self._delete, methods=["DELETE"]),
                Route("/api/sandbox/{id}/start", self._start, methods=["POST"]),
                Route("/api/sandbox/{id}/recover", self._start, methods=["POST"]),
                Route("/api/sandbox/{id}/stop", self._stop, methods=["POST"]),
                Route("/api/sandbox/{id}/last-activity", self._extend, methods=["POST"]),
                Route("/api/sandbox/{id}/ports/{port}/signed-preview-url", self._preview, methods=["GET"]),
                Route(f"{toolbox}/process/execute", self._execute, methods=["POST"]),
                Route(session, self._open_session, methods=["POST"]),
                Route(f"{session}/{{sid}}", self._end_session, methods=["DELETE"]),
                Route(f"{session}/{{sid}}/exec", self._run, methods=["POST"]),
                WebSocketRoute(f"{session}/{{sid}}/command/{{cid}}/logs", self._logs),
                Route(f"{toolbox}/files/bulk-upload", self._upload, methods=["POST"]),
                Route(f"{toolbox}/files/bulk-download", self._download, methods=["POST"]),
            ]
        )

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        given = HTTPConnection(scope).headers.get("authorization")
        if "/socket.io" in scope["path"]:
            await receive()
            await send({"type": "websocket.close"})
        elif given != f"Bearer {self.api_key}":
            await _problem(401, f"Invalid credentials: {given}")(scope, receive, send)  # real services echo them, too
        else:
            await self._routes(scope, receive, send)

    def reset(self) -> None:
        super().reset()
        self.slow_starts = 0

    # -- control plane

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        if any(box.request.get("name") == body.get("name") for box in self.boxes.values()):
            return _problem(409, f"Sandbox with name {body.get('name')} already exists")
        box = self.make_box(body.get("labels") or {}, body)
        box.state = "starting" if self.slow_starts else "started"
        return JSONResponse(self._shown(box))

    async def _list(self, request: Request) -> Response:
        wanted = json.loads(request.query_params.get("labels") or "{}")
        limit, start = int(request.query_params.get("limit", 100)), int(request.query_params.get("cursor") or 0)
        found = [box for box in self.boxes.values() if wanted.items() <= box.labels.items()]
        following = str(start + limit) if len(found) > start + limit else None
        shown = [self._shown(box) for box in found[start : start + limit]]
        return JSONResponse({"items": shown, "nextCursor": following})

    async def _get(self, request: Request) -> Response:
        box = self._box(request)
        if box is None:
            return _problem(404, "Sandbox not found")
        if box.state == "starting":
            self.slow_starts -= 1
            box.state = "starting" if self.slow_starts > 0 else "started"
        return JSONResponse(self._shown(box))

    async def _delete(self, request: Request) -> Response:
        box = self._box(request)
        if box is None:
            return _problem(404, "Sandbox not found")
        self.remove_box(box.id)
        box.state = "destroyed"
        return JSONResponse(self._shown(box))

    async def _start(self, request: Request) -> Response:
        box = self._box(request)
        if box is None:
            return _problem(404, "Sandbox not found")
        box.state = "starting" if self.slow_starts else "started"
        return JSONResponse(self._shown(box))

    async def _stop(self, request: Request) -> Response:
        box = self._box(request)
        if box is None:
            return _problem(404, "Sandbox not found")
        box.end()
        box.state = "stopped"
        return JSONResponse(self._shown(box))

    async def _extend(self, request: Request) -> Response:
        box = self._box(request)
        if box is None:
            return _problem(404, "Sandbox not found")
        box.extended += 1
        return Response(status_code=201)

    async def _preview(self, request: Request) -> Response:
        port = int(request.path_params["port"])
        box_id = request.path_params["id"]
        url = f"http://{port}-{box_id}.boxes.localhost:{self.port}"
        shown = {"sandboxId": box_id, "port": port, "token": box_id, "url": url}
        return JSONResponse(shown)

    def _box(self, request: HTTPConnection) -> Box | None:
        """By id or by name, as the real one."""
        wanted = request.path_params["id"]
        named = (box for box in self.boxes.values() if box.request.get("name") == wanted)
        return self.boxes.get(wanted) or next(named, None)

    def _shown(self, box: Box) -> dict[str, Any]:
        return {
            "id": box.id,
            "organizationId": "org",
            "name": box.request.get("name") or box.id,
            "user": "daytona",
            "env": {},
            "labels": box.labels,
            "public": False,
            "networkBlockAll": bool(box.request.get("networkBlockAll")),
            "kvm": False,
            "target": "local",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": box.state,
            "errorReason": "the runner lost it" if box.state == "error" else None,
            "recoverable": False,
            "createdAt": box.created_at.isoformat(),
            "toolboxProxyUrl": f"{self.url}/toolbox",
        }

    # -- toolbox

    async def _execute(self, request: Request) -> Response:
        box = self._running(request)
        if box is None:
            return _problem(400, "the sandbox is not running")  # as the proxy says it
        body = await request.json()
        pipe = asyncio.subprocess.PIPE
        process = await box.spawn(
            ["sh", "-c", body["command"]],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), body.get("timeout") or 10)
        except TimeoutError:
            _kill_group(process)
            return _problem(408, "command execution timeout")
        return JSONResponse({"exitCode": process.returncode, "result": output.decode("utf-8", "replace")})

    async def _open_session(self, request: Request) -> Response:
        box = self._running(request)
        if box is None:
            return _problem(400, "the sandbox is not running")
        self.sessions[(await request.json())["sessionId"]] = Session(box)
        return Response(status_code=201)

    async def _end_session(self, request: Request) -> Response:
        session = self.sessions.pop(request.path_params["sid"], None)
        if session is None:
            return _problem(404, "session not found")
        for command in session.commands.values():
            _kill_group(command.process)
        return Response(status_code=204)

    async def _run(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["sid"])
        if session is None or self._running(request) is None:
            return _problem(404, "session not found")
        body = await request.json()
        pipe = asyncio.subprocess.PIPE
        process = await session.box.spawn(
            # The command is one of several that the session's shell runs.
            ["bash", "-c", f"{body['command']}\nexit $?"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
        )
        command = Command(process)
        name = secrets.token_hex(4)
        session.commands[name] = command
        task = asyncio.create_task(_follow(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return JSONResponse({"cmdId": name}, status_code=202)

    async def _logs(self, socket: WebSocket) -> None:
        await socket.accept()
        command = self.sessions[socket.path_params["sid"]].commands[socket.path_params["cid"]]
        shown = 0
        while shown < len(command.log) or not command.is_over:
            while shown < len(command.log):
                await socket.send_bytes(command.log[shown])
                shown += 1
            if not command.is_over:
                command.grown.clear()
                await command.grown.wait()
        await socket.close()

    async def _upload(self, request: Request) -> Response:
        box = self._running(request)
        if box is None:
            return _problem(400, "the sandbox is not running")
        async with request.form(max_part_size=1 << 30) as form:
            upload = form["files[0].file"]
            assert not isinstance(upload, str)
            place = box.place(str(form["files[0].path"]))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(await upload.read())
        return Response(status_code=200)

    async def _download(self, request: Request) -> Response:
        box = self._running(request)
        if box is None:
            return _problem(400, "the sandbox is not running")
        (path,) = (await request.json())["paths"]
        place, boundary = box.place(path), secrets.token_hex(8)
        name, kind, content = "file", "application/octet-stream", b""
        if place.is_file():
            content = place.read_bytes()
        else:
            name, kind, content = "error", "application/json", b'{"message": "file not found", "statusCode": 404}'
        head = f'Content-Disposition: form-data; name="{name}"; filename="{path}"\r\nContent-Type: {kind}'
        body = f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return Response(body, media_type=f"multipart/form-data; boundary={boundary}")

    def _running(self, request: HTTPConnection) -> Box | None:
        box = self._box(request)
        return box if box is not None and box.state == "started" else None


async def _follow(command: Command) -> None:
    async def read(name: str, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(CHUNK):
            command.add(MARKS[name] + chunk)

    assert command.process.stdout is not None and command.process.stderr is not None
    await asyncio.gather(read("stdout", command.process.stdout), read("stderr", command.process.stderr))
    await command.process.wait()
    command.is_over = True
    command.grown.set()


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"statusCode": status, "message": message, "error": "refused"}, status_code=status)
