"""What the local E2B and Daytona servers are made of: folders in which real processes run, and planned faults.

Every box sees its own folder at the same path, as every real sandbox has its own `/home/user`: its processes run in a
mount namespace where the folder is bound there.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn

VISITED = re.compile(r"([0-9]+)-(box[0-9]+)\.boxes\.localhost(?::[0-9]+)?")
"""Host names of ports in boxes."""
Headers = list[tuple[bytes, bytes]]
PATH = "/usr/local/bin:/usr/bin:/bin"
"""Not ours: a version manager's `python3` there costs five times the call."""


def entering(folder: str, home: str, argv: list[str]) -> list[str]:
    """The command that runs `argv` where `folder` lies at `home`, for itself alone."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    make = '[ -d "$2" ] || { /bin/mount -t tmpfs none "${2%/*}" && /bin/mkdir "$2"; }'  # this host has no such user
    bind = f'{make}; /bin/mount --bind "$1" "$2" && cd "$2" && shift 2 && exec "$@"'
    unshare = ["/usr/bin/unshare", "--mount", *as_root, "--propagation", "private", "--"]
    return [*unshare, "/bin/sh", "-c", bind, "sh", folder, home, *argv]


@cache
def why_not() -> str:
    """Empty when boxes can be had here; else the reason to skip."""
    with tempfile.TemporaryDirectory() as folder:
        command = entering(folder, folder, ["true"])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except FileNotFoundError as error:
            return str(error)
    return "" if done.returncode == 0 else f"no mount namespaces here: {done.stderr.strip()}"


@dataclass
class Box:
    """One sandbox: a folder, labels, and the processes that were started in it."""

    id: str
    folder: Path
    """Its files, as the server sees them."""
    home: str
    """The same folder, as its processes see it."""
    labels: dict[str, str]
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: str = "running"
    request: dict[str, Any] = field(default_factory=dict)
    """What it was created with."""
    extended: int = 0
    """How often its end was put off."""
    lost_python: bool = False
    """Its image has none."""

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": PATH, "HOME": self.home, "BOX": str(self.folder)}

    async def spawn(self, argv: list[str], **options: Any) -> asyncio.subprocess.Process:
        """A process of its own session in this box."""
        if self.lost_python:
            argv = [word.replace("python3", "python3-of-no-image") for word in argv]
        command = entering(str(self.folder), self.home, argv)
        return await asyncio.create_subprocess_exec(*command, env=self.environ, start_new_session=True, **options)

    def place(self, path: str) -> Path:
        """Where a path inside the box is on the server."""
        assert path == self.home or path.startswith(self.home + "/"), path
        return self.folder / path[len(self.home) + 1 :]

    def processes(self) -> list[int]:
        """Everything alive that was ever started in it, whoever its parent is now."""
        mark = f"BOX={self.folder}\0".encode()  # its id has a namesake at the server of every other test process
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes() + b"\0":
                        found.append(int(entry.name))
        return found

    def signal(self, number: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self, state: str) -> None:
        """Pauses it with its memory."""
        self.state = state
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.state = "running"
        self.signal(signal.SIGCONT)

    def end(self) -> None:
        while self.processes():
            self.signal(signal.SIGKILL)


@dataclass
class Fault:
    """What goes wrong with the next requests."""

    match: str
    """Part of the path."""
    method: str = ""
    times: int = 1
    status: int = 0
    """Answer with this; 0: drop the connection."""
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    after_chunks: int = -1
    """Let an answer that streams give so many chunks first; -1: nothing at all."""
    stalls: bool = False
    """Do not end, just say nothing any more."""
    raw: bytes | None = None
    """In place of `body`, as it is."""
    delay_s: float = 0.0
    """Answer rightly, but late."""


class BoxServer:
    """Runs an ASGI application on a free port in a thread of its own, so that it is no part of the test's loop."""

    def __init__(self, *, api_key: str, home: str = "") -> None:
        """home: of every box, as its processes see it; empty: a folder of ours, whose path no other test has."""
        self.api_key = api_key
        self.boxes: dict[str, Box] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        """(method, path) of each, oldest first."""
        self.port = 0
        self._folder = Path(tempfile.mkdtemp(prefix="dt-boxes-"))
        self.home = home or str(self._folder / "home")
        if not home:
            Path(self.home).mkdir()
        self._count = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    def lets_visit(self, box: Box, headers: dict[bytes, bytes]) -> bool:
        """Whether a request reaches a port of `box`."""
        return True

    def headers_inside(self, box: Box, port: int, headers: Headers) -> Headers:
        """What of a visit's headers the server on `port` gets to see."""
        return headers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """For the control plane."""
        return self.url

    def __enter__(self) -> Self:
        config = uvicorn.Config(
            self._faulty,
            interface="asgi3",
            host="127.0.0.1",
            port=0,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        for _ in range(2000):
            if self._server.started:
                break
            self._thread.join(0.005)
            assert self._thread.is_alive()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None and self._thread is not None
        self.reset()
        self._server.should_exit = True
        self._thread.join(5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def reset(self) -> None:
        """Ends all boxes and forgets all faults."""
        self.faults.clear()
        for box in self.boxes.values():
            box.end()
        self.boxes.clear()
        self.requests.clear()

    def make_box(self, labels: dict[str, str], request: dict[str, Any]) -> Box:
        self._count += 1
        box = Box(f"box{self._count}", self._folder / f"box{self._count}", self.home, labels, request=request)
        box.folder.mkdir()
        self.boxes[box.id] = box
        return box

    def remove_box(self, box_id: str) -> None:
        self.boxes.pop(box_id).end()

    def count(self, match: str, method: str = "") -> int:
        """How many requests had `match` in their path."""
        return sum(match in path and method in ("", verb) for verb, path in self.requests)

    async def _faulty(self, scope: Any, receive: Any, send: Any) -> None:
        path = str(scope["path"])
        if visited := VISITED.fullmatch(dict(scope["headers"]).get(b"host", b"").decode()):
            await self._visit(int(visited[1]), visited[2], scope, receive, send)
            return
        self.requests.append((scope.get("method", "WS"), path))
        fault = self._next_fault(path, scope.get("method", "WS"))
        if fault is None:
            await self.app(scope, receive, send)
            return
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
            await self.app(scope, receive, send)
        elif fault.status:
            await _answer(send, fault)
        else:
            await self._cut(fault, scope, receive, send)

    async def _visit(self, port: int, box_id: str, scope: Any, receive: Any, send: Any) -> None:
        """What the vendors' proxies do: carries a request to a port inside a box that runs."""
        box = self.boxes.get(box_id)
        if box is None or box.state not in {"running", "started"}:
            await _answer(send, Fault("", status=502, body={"message": "the sandbox does not run"}))
            return
        if not self.lets_visit(box, dict(scope["headers"])):
            await _answer(send, Fault("", status=403, body={"message": "secured with traffic access token"}))
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        query = scope["query_string"].decode()
        url = f"http://127.0.0.1:{port}{scope['raw_path'].decode()}{'?' + query if query else ''}"
        headers = self.headers_inside(box, port, scope["headers"])
        async with httpx.AsyncClient(trust_env=False) as http:
            request = http.build_request(scope["method"], url, headers=headers, content=body)
            try:
                answer = await http.send(request, stream=True)
            except httpx.HTTPError:
                await _answer(send, Fault("", status=502, body={"message": "nothing answers on this port"}))
                return
            await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.headers.raw})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            await answer.aclose()

    def _next_fault(self, path: str, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in path and fault.method in ("", method) and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    async def _cut(self, fault: Fault, scope: Any, receive: Any, send: Any) -> None:
        """Lets so many chunks through, then drops the connection or falls silent."""
        left = fault.after_chunks
        if left < 0 and scope["type"] == "http":
            # Announced and not kept: uvicorn drops the connection.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"999")]})
            return

        async def send_some(message: Any) -> None:
            nonlocal left
            if message["type"] in ("http.response.body", "websocket.send"):
                left -= 1
            if left < 0:
                if fault.stalls:
                    await asyncio.Event().wait()
                raise Cut
            await send(message)

        try:
            await self.app(scope, receive, send_some)
        except Cut:
            # An answer that does not end as announced makes uvicorn drop the connection.
            return


class Cut(Exception):
    """The connection is to be dropped."""


async def _answer(send: Any, fault: Fault) -> None:
    body = json.dumps(fault.body).encode() if fault.raw is None else fault.raw
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in fault.headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
