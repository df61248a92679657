"""One HTTP exchange over a connection that is there already."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import (
    BaseConnector,
    ClientRequest,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    StreamReader,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import RawResponseMessage
from starlette.types import Scope
from yarl import URL

from modem.doors import Tunnel
from workflow.core.errors import BadInput

MAX_LINE = 65_536
HEADERS_S = 300.0
"""How long a server may think before its answer begins."""
CONNECT_S = 5.0
BUFFER = 65_536
"""Bytes that wait to be taken. A sixteenth of it is how many chunks are taken in at once, while all others wait."""
MAX_INTERIM = 100
"""Answers below 200 before the one that counts."""


class _Answers(ResponseHandler):
    """What comes back over the connection: aiohttp takes interim answers without end, and nothing else meanwhile."""

    _interim = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        self._interim += 100 <= data[0].code <= 199
        if self._interim <= MAX_INTERIM:
            super().feed_data(data, size)
            return
        self.set_exception(ServerDisconnectedError("interim answers without end"))
        if self.transport is not None:
            self.transport.abort()


class _One(BaseConnector):
    """Gives out its one connection, once."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(force_close=True)
        self._socket = sock
        self.is_used = False

    async def _create_connection(self, req: ClientRequest, traces: Any, timeout: ClientTimeout) -> ResponseHandler:
        """aiohttp's own connectors are made by overriding this, e.g. its UnixConnector."""
        self.is_used = True
        async with asyncio.timeout(CONNECT_S):
            _, protocol = await self._loop.create_connection(lambda: _Answers(self._loop), sock=self._socket)
        return protocol


@contextlib.asynccontextmanager
async def over(sock: socket.socket) -> AsyncIterator[ClientSession]:
    """A session for one request over `sock` that adds and follows nothing by itself."""
    connector = _One(sock)
    try:
        async with ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            raise_for_status=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            timeout=ClientTimeout(total=None),
            read_bufsize=BUFFER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        ) as session:
            yield session
    finally:
        if not connector.is_used:
            sock.close()


def address(scope: Scope, tunnel: Tunnel) -> URL:
    """Where a request goes: to the server inside, whatever it says; path and query byte for byte. Raises: BadInput."""
    target = (scope.get("raw_path") or b"/").decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    if not target.startswith("/"):
        raise BadInput("the path does not start with /")
    return URL(f"http://{tunnel.origin.partition('://')[2]}{target}{'?' + query if query else ''}", encoded=True)
