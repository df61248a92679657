"""Around every request: its id, its log line, safe headers, and bodies that stay within limits.

Pure ASGI: a `BaseHTTPMiddleware` costs each open stream 22 KB and two tasks (measured).
"""

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ProblemResponse, problem, respond
from workflow.core.errors import DialtoneError, TooLarge
from workflow.core.log import bind

_access = logging.getLogger("gateway.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

BODY_TIMEOUT_S = 30.0
"""A body, or the next piece of an upload, has to arrive within this."""
MAX_DEPTH = 64
"""Nesting of JSON bodies. Python's parser alone would give up somewhere near 1,000."""

_HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_CONSOLE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    b"connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-src %b; "
    b"frame-ancestors 'none'; require-trusted-types-for 'script'"
)
# Swagger UI comes from its CDN and starts from an inline script.
_DOCS_POLICY = (
    b"default-src 'none'; script-src https://cdn.jsdelivr.net 'unsafe-inline'; connect-src 'self'; "
    b"style-src https://cdn.jsdelivr.net 'unsafe-inline'; img-src data: https://fastapi.tiangolo.com; "
    b"frame-ancestors 'none'"
)


def content_policy(path: str, *, frames: str) -> bytes:
    """The Content-Security-Policy for what is served at `path`. frames: whose pages the console may show."""
    if path.startswith(("/docs", "/redoc")):
        return _DOCS_POLICY
    return _API_POLICY if is_api(path) else _CONSOLE_POLICY % frames.encode()


def is_api(path: str) -> bool:
    """True for what programs call, False for what browsers show."""
    return path.startswith(("/api", "/agent", "/events", "/health", "/metrics", "/openapi"))


Later = Callable[[Receive, Send], Awaitable[None]]
"""The long rest of a response. One that puts it on `scope["state"]["later"]` is sent on from the outermost layer,
after the framework's own twenty layers have returned: they hold 10 KB as long as they wait (measured)."""


class Edge:
    """The outermost layer. Gives the request its id, adds headers, writes one log line, 499 when the client left."""

    def __init__(self, app: ASGIApp, *, counts: Counter[tuple[str, int]], frames: str) -> None:
        """frames: whose pages the console may show in a frame, as its policy names them."""
        self._app = app
        self._counts = counts
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        later: list[Later] = []
        scope.setdefault("state", {}).update(request_id=request_id, later=later)
        exchange = _Exchange(scope, receive, send, request_id, frames=self._frames)
        with bind(request_id=request_id):
            try:
                await self._app(scope, exchange.receive, exchange.send)
                if later:
                    _slim(scope)
                    await later[0](exchange.receive, exchange.send)
            finally:
                self._counts[exchange.report()] += 1


def _slim(scope: Scope) -> None:
    """Forgets what only the framework needed of the request."""
    for name in ("app", "endpoint", "route", "router", "path_params", *(n for n in scope if n.startswith("fastapi"))):
        scope.pop(name, None)


class _Exchange:
    """One request on its way through."""

    __slots__ = (
        "_frames",
        "_receive",
        "_request_id",
        "_scope",
        "_send",
        "_started",
        "is_complete",
        "is_left",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, *, frames: str) -> None:
        self._scope = scope
        self._frames = frames
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._started = time.monotonic()
        self.status = 0
        self.is_complete = False
        self.is_left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_left = not self.is_complete
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in _HEADS:
            self.status = message.get("status", 101)
            message["headers"] = [*message.get("headers", []), *self._extra(message.get("headers", []))]
        elif kind == "http.response.body":
            self.is_complete = not message.get("more_body", False)
        elif kind == "websocket.close":
            self.status = self.status or 403  # nobody serves this path: what the server makes of it
        await self._send(message)

    def _extra(self, present: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if self._scope["state"].get("is_foreign", False):  # a page of a sandbox's server, on an origin of its own
            return []
        names = {name.lower() for name, _ in present}
        wanted = [
            (b"x-request-id", self._request_id.encode()),
            *_SAFE,
            (b"content-security-policy", content_policy(self._scope["path"], frames=self._frames)),
            (b"cache-control", b"no-store" if is_api(self._scope["path"]) else b"no-cache"),
            *self._scope["state"].get("headers", []),
        ]
        if self._scope["scheme"] == "https":
            wanted.append((b"strict-transport-security", b"max-age=31536000"))
        return [header for header in wanted if header[0] not in names]

    def report(self) -> tuple[str, int]:
        """Writes one line, without the query, which may hold a ticket; gives back method and status."""
        status = 499 if self.is_left else self.status or 499
        took_ms = int((time.monotonic() - self._started) * 1000)
        method = self._scope.get("method", "WS")
        extra = {"status": status, "took_ms": took_ms}
        path = self._scope["path"]
        if self._scope["state"].get("is_foreign", False):
            path = f"preview:{path}"  # without its host, which is a secret
        _access.info("%s %s %d %d ms", method, path, status, took_ms, extra=extra)
        return method if method in _METHODS else "other", status


class Bodies:
    """Reads JSON bodies whole, within size, depth and time; lets uploads (PUT) pass in pieces, counted."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        request_id = scope.get("state", {}).get("request_id", "")
        is_upload = scope["method"] == "PUT"
        limit = self._max_upload_bytes if is_upload else self._max_bytes
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            await respond(_too_large(limit), request_id)(scope, receive, send)
            return
        if is_upload:
            await self._app(scope, _Counted(receive, limit).receive, send)
            return
        try:
            body = await _read(receive, limit)
        except TimeoutError:
            late = problem(408, "request_timeout", "the body did not arrive in time", request_id=request_id)
            await ProblemResponse(late, 408, {"Connection": "close"})(scope, receive, send)
        except DialtoneError as error:
            await respond(error, request_id)(scope, receive, send)
        else:
            if body is None:
                return
            if _is_too_deep(body):
                deep = problem(400, "bad_json", f"the body nests deeper than {MAX_DEPTH}", request_id=request_id)
                await ProblemResponse(deep, 400)(scope, receive, send)
            else:
                await self._app(scope, _Replayed(receive, body).receive, send)


class _Replayed:
    """Gives a body that was read already, then whatever the connection says."""

    def __init__(self, receive: Receive, body: bytes) -> None:
        self._receive = receive
        self._body: bytes | None = body

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Counted:
    """Passes an upload on and stops it at its limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0
        self._is_whole = False

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await self._receive()
        self._seen += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._seen > self._limit:
            raise _too_large(self._limit)
        return message


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the client left. Raises: TooLarge, TimeoutError."""
    pieces, size = [], 0
    async with asyncio.timeout(BODY_TIMEOUT_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join(pieces)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", limit=limit)


# The closing quote is optional: else a body of escaped quotes would be scanned once per quote.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def _is_too_deep(body: bytes) -> bool:
    """True if arrays and objects nest deeper than `MAX_DEPTH`; brackets in strings do not count."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
