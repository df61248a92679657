"""A local E2B: the REST control plane, and envd (Connect RPC with the server classes of the SDK, plain HTTP files).

What it leaves out is what our provider does not ask for. What is real: processes, signals, streams, files, pausing.
"""

import asyncio
import json
import signal
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.filesystem import filesystem_connect, filesystem_pb
from e2b.envd.process import process_connect, process_pb
from protobuf import Oneof
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from watchfiles import awatch

from tests.servers.boxes import Box, BoxServer, Headers

TOKEN = "envd-token-"
ENVD_VERSION = "0.6.4"
CHUNK = 32_768


class E2bServer(BoxServer):
    """Usage: `with E2bServer(api_key="...") as server: ... server.url ...` for api_url and sandbox_url alike."""

    def __init__(self, *, api_key: str, home: str = "") -> None:
        super().__init__(api_key=api_key, home=home)
        self._processes: dict[int, tuple[Box, asyncio.subprocess.Process]] = {}
        self._control = Starlette(
            routes=[
                Route("/v2/sandboxes", self._create, methods=["POST"]),
                Route("/v2/sandboxes", self._list, methods=["GET"]),
                Route("/v2/sandboxes/{id}/connect", self._connect, methods=["POST"]),
                Route("/sandboxes/{id}", self._kill, methods=["DELETE"]),
                Route("/sandboxes/{id}", self._tell, methods=["GET"]),
                Route("/sandboxes/{id}/pause", self._pause, methods=["POST"]),
                Route("/sandboxes/{id}/timeout", self._extend, methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/files", self._read, methods=["GET"]),
                Route("/files", self._write, methods=["POST"]),
            ]
        )
        self._process_app = process_connect.ProcessASGIApplication(_Processes(self))
        self._files_app = filesystem_connect.FilesystemASGIApplication(_Files(self))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        if "e2b-sandbox-id" not in request.headers:
            if request.headers.get("x-api-key") != self.api_key:
                given = request.headers.get("x-api-key")
                await _problem(401, f"Invalid API key: {given}")(scope, receive, send)  # real services echo it, too
                return
            await self._control(scope, receive, send)
            return
        box = self.boxes.get(request.headers["e2b-sandbox-id"])
        if box is None or box.state != "running":
            await _problem(502, "The sandbox was not found")(scope, receive, send)
        elif request.headers.get("x-access-token") != TOKEN + box.id:
            await _problem(401, "wrong token")(scope, receive, send)
        elif scope["path"].startswith("/process.Process/"):
            await self._process_app(scope, receive, send)
        elif scope["path"].startswith("/filesystem.Filesystem/"):
            await self._files_app(scope, receive, send)
        else:
            await self._control(scope, receive, send)

    def lets_visit(self, box: Box, headers: dict[bytes, bytes]) -> bool:
        token = _traffic_token(box)
        return not token or headers.get(b"e2b-traffic-access-token", b"").decode() == token

    def headers_inside(self, box: Box, port: int, headers: Headers) -> Headers:
        mask = str(box.request.get("network", {}).get("maskRequestHost", ""))
        if not mask:
            return headers
        plain = dict(headers)
        plain[b"x-forwarded-host"] = plain[b"host"]
        return [*(plain | {b"host": mask.replace("${PORT}", str(port)).encode()}).items()]

    def box_of(self, headers: Any) -> Box:
        return self.boxes[headers["e2b-sandbox-id"]]

    # -- control plane

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        box = self.make_box(body.get("metadata") or {}, body)
        return JSONResponse(self._created(box), status_code=201)

    async def _list(self, request: Request) -> Response:
        wanted = dict(urllib.parse.parse_qsl(urllib.parse.unquote(request.query_params.get("metadata", ""))))
        states = request.query_params.getlist("state") or ["running", "paused"]
        states = [part for state in states for part in state.split(",")]
        limit, start = int(request.query_params.get("limit", 100)), int(request.query_params.get("nextToken") or 0)
        found = [
            box
            for box in self.boxes.values()
            if box.state in states and all(box.labels.get(name) == value for name, value in wanted.items())
        ]
        headers = {"x-next-token": str(start + limit)} if len(found) > start + limit else {}
        return JSONResponse([self._listed(box) for box in found[start : start + limit]], headers=headers)

    async def _connect(self, request: Request) -> Response:
        box = self.boxes.get(request.path_params["id"])
        if box is None:
            return _problem(404, "no such sandbox")
        if box.state == "paused":
            box.thaw()
            return JSONResponse(self._created(box), status_code=201)
        return JSONResponse(self._created(box))

    async def _kill(self, request: Request) -> Response:
        if request.path_params["id"] not in self.boxes:
            return _problem(404, "no such sandbox")
        self.remove_box(request.path_params["id"])
        return Response(status_code=204)

    async def _tell(self, request: Request) -> Response:
        box = self.boxes.get(request.path_params["id"])
        return _problem(404, "no such sandbox") if box is None else JSONResponse(self._listed(box))

    async def _pause(self, request: Request) -> Response:
        box = self.boxes.get(request.path_params["id"])
        if box is None:
            return _problem(404, "no such sandbox")
        if box.state == "paused":
            return _problem(409, "already paused")
        box.freeze("paused")
        return Response(status_code=204)

    async def _extend(self, request: Request) -> Response:
        box = self.boxes.get(request.path_params["id"])
        if box is None or box.state != "running":
            return _problem(404, "no such sandbox")
        box.extended += 1
        return Response(status_code=204)

    def _created(self, box: Box) -> dict[str, Any]:
        return {
            "sandboxID": box.id,
            "templateID": "base",
            "clientID": "local",
            "envdVersion": ENVD_VERSION,
            "envdAccessToken": TOKEN + box.id,
            "trafficAccessToken": _traffic_token(box) or None,
            "domain": f"boxes.localhost:{self.port}",
        }

    def _listed(self, box: Box) -> dict[str, Any]:
        return {
            "sandboxID": box.id,
            "templateID": "base",
            "clientID": "local",
            "startedAt": box.created_at.isoformat(),
            "endAt": box.created_at.isoformat(),
            "state": box.state,
            "cpuCount": 2,
            "memoryMB": 512,
            "diskSizeMB": 512,
            "envdVersion": ENVD_VERSION,
            "metadata": box.labels,
        }

    # -- envd, plain HTTP

    async def _health(self, request: Request) -> Response:
        return Response(status_code=204)

    async def _read(self, request: Request) -> Response:
        place = self.box_of(request.headers).place(request.query_params["path"])
        if not place.is_file():
            return _problem(404, "file not found")
        return FileResponse(place, media_type="application/octet-stream")

    async def _write(self, request: Request) -> Response:
        path = request.query_params["path"]
        place = self.box_of(request.headers).place(path)
        async with request.form(max_part_size=1 << 30) as form:
            upload = form["file"]
            assert not isinstance(upload, str)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(await upload.read())
        return JSONResponse([{"name": place.name, "type": "file", "path": path}])


class _Processes(process_connect.Process):
    """`process.Process`: what runs goes on without its stream, as in the real one."""

    def __init__(self, server: E2bServer) -> None:
        self._server = server
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, request: process_pb.StartRequest, context: Any) -> AsyncIterator[process_pb.StartResponse]:
        config = request.process
        assert config is not None
        box = self._server.box_of(context.request_headers)
        pipe = asyncio.subprocess.PIPE
        process = await box.spawn(
            [config.cmd, *config.args], stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, limit=1 << 20
        )
        self._running[process.pid] = process
        events: asyncio.Queue[process_pb.ProcessEvent | None] = asyncio.Queue()
        follower = asyncio.create_task(self._follow(process, events))
        try:
            start = process_pb.ProcessEvent.StartEvent(pid=process.pid)
            yield process_pb.StartResponse(event=_event("start", start))
            while (event := await events.get()) is not None:
                yield process_pb.StartResponse(event=event)
        finally:
            if follower.done():
                self._running.pop(process.pid, None)

    async def send_signal(self, request: process_pb.SendSignalRequest, context: Any) -> process_pb.SendSignalResponse:
        assert request.process is not None and request.process.selector is not None
        process = self._running.get(int(request.process.selector.value))
        if process is None or process.returncode is not None:
            raise ConnectError(Code.NOT_FOUND, "process not found")
        process.send_signal(signal.SIGKILL)
        return process_pb.SendSignalResponse()

    async def _follow(
        self, process: asyncio.subprocess.Process, events: asyncio.Queue[process_pb.ProcessEvent | None]
    ) -> None:
        async def read(name: Any, stream: asyncio.StreamReader) -> None:
            while chunk := await stream.read(CHUNK):
                events.put_nowait(_event("data", process_pb.ProcessEvent.DataEvent(output=Oneof(name, chunk))))

        assert process.stdout is not None and process.stderr is not None
        await asyncio.gather(read("stdout", process.stdout), read("stderr", process.stderr))
        code = await process.wait()
        end = process_pb.ProcessEvent.EndEvent(exit_code=code, exited=True, status=f"exit status {code}")
        events.put_nowait(_event("end", end))
        events.put_nowait(None)


class _Files(filesystem_connect.Filesystem):
    """`filesystem.Filesystem`: watching."""

    def __init__(self, server: E2bServer) -> None:
        self._server = server

    async def watch_dir(
        self, request: filesystem_pb.WatchDirRequest, context: Any
    ) -> AsyncIterator[filesystem_pb.WatchDirResponse]:
        place = self._server.box_of(context.request_headers).place(request.path)
        if not place.is_dir():
            raise ConnectError(Code.NOT_FOUND, "path not found")
        stop = asyncio.Event()
        try:
            # awatch has its watches in place when its first wait begins; it yields an empty set when that times out.
            watch = awatch(place, debounce=20, step=5, rust_timeout=20, yield_on_timeout=True, stop_event=stop)
            async for found in watch:
                if not found:
                    yield _change("start", filesystem_pb.WatchDirResponse.StartEvent())
                for _, path in found:
                    event = filesystem_pb.FilesystemEvent(name=path, type=filesystem_pb.EventType.WRITE)
                    yield _change("filesystem", event)
        finally:
            stop.set()


def _traffic_token(box: Box) -> str:
    """What opens its ports; empty when everybody may visit them."""
    is_public = (box.request.get("network") or {}).get("allowPublicTraffic", True)
    return "" if is_public else f"traffic-token-{box.id}"


def _event(name: Any, value: Any) -> process_pb.ProcessEvent:
    return process_pb.ProcessEvent(event=Oneof(name, value))


def _change(name: Any, value: Any) -> filesystem_pb.WatchDirResponse:
    return filesystem_pb.WatchDirResponse(event=Oneof(name, value))


def _problem(status: int, message: str) -> Response:
    return Response(json.dumps({"code": status, "message": message}), status_code=status, media_type="application/json")
