"""Our HTTP server: uvicorn, with connections that can be written to and cut, on a socket that processes share."""

import asyncio
import logging
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from gateway.sse import WIRE
from workflow.core.config import GatewaySettings
from workflow.core.errors import ConfigError

_log = logging.getLogger(__name__)

BACKLOG = 4096
SEND_BUFFER = 262_144
"""Bytes of one connection that the kernel holds (it doubles this); left to itself it took 4 MB for each client that
does not read (measured)."""
DEAD_PEER_MS = 30_000
"""How long sent bytes may stay unacknowledged before the kernel gives the connection up (TCP_USER_TIMEOUT)."""


MAX_HEAD_BYTES = 65_536
"""Of a request line with its header fields. The parser below has no limit of its own."""


class Protocol(HttpToolsProtocol):
    """Gives the application its connection as well: `gateway.subscription.Wire`; and bounds the heads of requests.

    A response that is under way is chunked, so whole chunks may be written between those of the ASGI `send`.
    """

    head_s = 30.0
    """The head of a request has to arrive within this, the first one from the moment of the connection on."""
    _is_in_head = False
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._patience = self.loop.call_later(self.head_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait_no_longer(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if was_in_head and self._is_in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._wait_no_longer()
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._patience = self._patience or self.loop.call_later(self.head_s, self.transport.close)
        extensions: dict[str, Any] = {WIRE: self}
        self.scope["extensions"] = extensions

    def is_ready(self) -> bool:
        return not self.flow.write_paused and not self.transport.is_closing()

    def write(self, chunk: bytes) -> None:
        self.transport.write(chunk)

    def abort(self) -> None:
        self.transport.abort()


class SocketProtocol(WebSocketsSansIOProtocol):
    """The same for WebSockets, which need it only to be cut."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            extensions: dict[str, Any] = {WIRE: self}
            self.scope["extensions"] = extensions | dict(self.scope["extensions"] or {})

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None:  # the server would log each refused upgrade as a fault of ours
            self.handshake_complete = self.close_sent

    def abort(self) -> None:
        self.transport.abort()


def listen(settings: GatewaySettings) -> socket.socket:
    """The listening socket. Raises: ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if settings.processes > 1:  # each listens itself, the kernel spreads the connections
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise ConfigError(f"gateway.port: cannot listen on {where}: {error.strerror}; choose another port") from error
    listener.setblocking(False)
    return listener


def serve(app: FastAPI, settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT. Raises: ConfigError when the address cannot be had."""
    listener = listen(settings)
    _log.info("listening on http://%s:%d", *listener.getsockname()[:2])
    uvicorn.Server(configure(app, settings)).run(sockets=[listener])


def configure(app: FastAPI, settings: GatewaySettings) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    options: dict[str, Any] = {
        "http": Protocol,
        "loop": "uvloop",
        "ws": SocketProtocol,
        "ws_per_message_deflate": False,  # 38 KB a connection, and nothing gained on small messages
        "ws_max_size": settings.max_body_bytes,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "forwarded_allow_ips": list(settings.forwarded_allow_ips),
        "timeout_graceful_shutdown": max(1, round(settings.drain_s)),
        "timeout_keep_alive": 75,  # longer than a proxy in front keeps idle connections (nginx: 60 s)
        "backlog": BACKLOG,
        "lifespan": "on",
    }
    return uvicorn.Config(app, **options)
