"""One HTTP visit: the request goes in as it comes, the answer comes out as it is made."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.visits.endings import Cut, Left
from gateway.visits.headers import Disguise
from gateway.visits.tunnel import HEADERS_S, address, over
from modem.doors import Tunnel
from workflow.core.errors import BadInput, SandboxError, TooLarge

_REFUSED = frozenset({"CONNECT", "TRACE"})
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no value of a header may hold (RFC 9110 5.5)."""


class _Unsayable(ValueError):
    """The answer is none that may be passed on."""


class Upload:
    """The visitor's side of a request: its body in pieces, then the news that the visitor left."""

    def __init__(self, receive: Receive, *, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._is_read = asyncio.Event()
        self.too_large = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body. Raises: Left; TooLarge."""
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Left
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                self.too_large = True
                raise TooLarge(f"the body is larger than {self._max_bytes} bytes", limit=self._max_bytes)
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                self.skip()
                return

    def skip(self) -> None:
        """Says that nobody reads the body (any more)."""
        self._is_read.set()

    async def left(self) -> None:
        """Returns when the visitor leaves."""
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def exchange(
    scope: Scope, receive: Receive, send: Send, *, tunnel: Tunnel, disguise: Disguise, max_bytes: int
) -> None:
    """Carries one request in and its answer out.

    Raises: SandboxError when nothing answers; BadInput, TooLarge for a request that is not passed on; Cut, Left.
    """
    if scope["method"] in _REFUSED:
        raise BadInput(f"{scope['method']} is not passed on")
    upload = Upload(receive, max_bytes=max_bytes)
    carrying = asyncio.ensure_future(_carry(scope, send, upload, tunnel, disguise))
    leaving = asyncio.ensure_future(upload.left())
    try:
        await asyncio.wait({carrying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not carrying.done():
            raise Left
        await carrying
    finally:
        for task in (carrying, leaving):
            task.cancel()
        await asyncio.gather(carrying, leaving, return_exceptions=True)


async def _carry(scope: Scope, send: Send, upload: Upload, tunnel: Tunnel, disguise: Disguise) -> None:
    async with over(tunnel.socket) as session:
        has_begun = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(HEADERS_S):
                    answer = await stack.enter_async_context(
                        session.request(
                            scope["method"],
                            address(scope, tunnel),
                            headers=[*disguise.inward(scope["headers"]), *_length(scope), ("Connection", "close")],
                            data=upload.pieces() if _has_body(scope, upload) else None,
                            allow_redirects=False,
                        )
                    )
                headers = _headers(answer, disguise)
                has_begun = True
                await _answer(send, answer, headers)
        except (ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            if upload.too_large:
                raise TooLarge("the body is larger than this gateway lets through") from error
            if has_begun:
                raise Cut from error
            raise SandboxError(f"nothing answers on port {disguise.port}") from error


def _headers(answer: ClientResponse, disguise: Disguise) -> list[tuple[bytes, bytes]]:
    """What stands before the body. Raises: _Unsayable."""
    # 101 would make a proxy in front of us a tunnel; others below 200 are no answer; above 599 there are none.
    if not 200 <= answer.status <= 599:
        raise _Unsayable(f"status {answer.status}")
    headers = disguise.outward(answer.raw_headers)
    if any(_CONTROL.search(value) for _, value in headers):
        raise _Unsayable("a control character in a header")
    # RFC 9112 6.3: chunks win. Of an answer without a body, our server would wait for as many bytes.
    if "transfer-encoding" in answer.headers or answer.status in {204, 304}:
        headers = [header for header in headers if header[0] != b"content-length"]
    return headers


async def _answer(send: Send, answer: ClientResponse, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for chunk in answer.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await asyncio.sleep(0)  # thousands of tiny chunks may be there already, and neither of the two waits
    await send({"type": "http.response.body", "body": b""})


def _length(scope: Scope) -> list[tuple[str, str]]:
    """The declared length of the body, if the server gets it unchanged."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    return [("Content-Length", length)] if length.isdecimal() and "transfer-encoding" not in headers else []


def _has_body(scope: Scope, upload: Upload) -> bool:
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return True
    upload.skip()
    return False
