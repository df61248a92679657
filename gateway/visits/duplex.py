"""One WebSocket visit: messages both ways, each whole, until either side closes."""

import asyncio
import contextlib
import socket

from aiohttp import ClientError, ClientWebSocketResponse, ClientWSTimeout, WSMsgType, WSServerHandshakeError
from starlette.types import Receive, Scope, Send

from gateway.visits.endings import Denied
from gateway.visits.headers import Disguise
from gateway.visits.tunnel import HEADERS_S, address, over
from modem.doors import Tunnel
from workflow.core.errors import SandboxError

READ = 65_536
"""Bytes that may wait to be read from the server. With fewer than two packets of the loopback they come haltingly."""
NORMAL, GOING_AWAY, FAILED = 1000, 1001, 1011


async def duplex(
    scope: Scope, receive: Receive, send: Send, *, tunnel: Tunnel, disguise: Disguise, max_bytes: int
) -> None:
    """Carries one WebSocket. Raises: SandboxError when nothing answers; Denied."""
    # A frame may have two bytes, and what was read at once is also parsed at once, while all others wait.
    tunnel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ)
    async with over(tunnel.socket) as session, contextlib.AsyncExitStack() as stack:
        await receive()  # websocket.connect
        try:
            async with asyncio.timeout(HEADERS_S):
                inner = await stack.enter_async_context(
                    session.ws_connect(
                        address(scope, tunnel),
                        headers=disguise.inward(scope["headers"]),
                        protocols=scope["subprotocols"],
                        max_msg_size=max_bytes,
                        timeout=ClientWSTimeout(ws_close=5),
                        autoping=False,
                    )
                )
        except WSServerHandshakeError as error:
            raise Denied(error.status if 400 <= error.status < 600 else 502) from error
        except (ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise SandboxError(f"nothing answers on port {disguise.port}") from error
        await send({"type": "websocket.accept", "subprotocol": inner.protocol, "headers": []})
        await _carry(inner, receive, send)


async def _carry(inner: ClientWebSocketResponse, receive: Receive, send: Send) -> None:
    inward = asyncio.ensure_future(_inward(inner, receive))
    outward = asyncio.ensure_future(_outward(inner, send))
    try:
        done, _ = await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
        if outward in done:
            code = await outward
            await send({"type": "websocket.close", "code": code})
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)


async def _inward(inner: ClientWebSocketResponse, receive: Receive) -> None:
    with contextlib.suppress(ClientError, OSError):
        while (message := await receive())["type"] != "websocket.disconnect":
            if message.get("text") is not None:
                await inner.send_str(message["text"])
            else:
                await inner.send_bytes(message["bytes"])
        await inner.close(code=_sendable(message.get("code") or GOING_AWAY))


async def _outward(inner: ClientWebSocketResponse, send: Send) -> int:
    """The code with which the server closed."""
    async for message in inner:
        if message.type is WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        elif message.type is WSMsgType.PING:
            with contextlib.suppress(ClientError, OSError):  # it is closing
                await inner.pong(message.data)
        await asyncio.sleep(0)  # thousands may be waiting, and none of the above need wait for anything
    return _sendable(inner.close_code or FAILED)


def _sendable(code: int) -> int:
    """`code` if a close frame may hold it, else one that says as much. Source: RFC 6455 7.4."""
    is_open = 1000 <= code <= 1014 and code not in {1004, 1005, 1006}
    return code if is_open or 3000 <= code <= 4999 else NORMAL if code == 1005 else FAILED
