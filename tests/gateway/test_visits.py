"""A visit beside everything else that its gateway does."""

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
from typing import Any

import pytest

from gateway.visits.duplex import duplex
from gateway.visits.exchange import exchange
from gateway.visits.headers import Disguise
from modem.doors import Tunnel

MESSAGES = 20_000
EMPTY_TEXT, PING, NORMAL_CLOSE = b"\x81\x00", b"\x89\x00", b"\x88\x02\x03\xe8"
CHUNKS, AT_ONCE = 200_000, 20_000
SCOPE = {"type": "websocket", "headers": [], "subprotocols": [], "raw_path": b"/", "query_string": b""}


async def flood(sock: socket.socket, frame: bytes) -> bytes:
    """A server that sends the frame very often, then closes; what it heard meanwhile."""
    reader, writer = await asyncio.open_connection(sock=sock)
    key = re.findall(rb"(?i)sec-websocket-key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept)
    writer.write(b"\r\n\r\n" + frame * MESSAGES + NORMAL_CLOSE)
    with contextlib.closing(writer):
        return await reader.read()


@pytest.mark.parametrize(("frame", "shown"), [(EMPTY_TEXT, MESSAGES), (PING, 0)], ids=["texts", "pings"])
async def test_a_server_that_sends_without_pause_leaves_turns_to_others(frame: bytes, shown: int) -> None:
    ours, theirs = socket.socketpair()
    sent: list[str] = []
    turns = 0

    async def receive() -> dict[str, Any]:
        if sent:  # the visitor stays silent
            await asyncio.Event().wait()
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    server = asyncio.create_task(flood(theirs, frame))
    disguise = Disguise(outer="http://x.localhost", inner="http://localhost:1", port=1)
    tunnel = Tunnel(ours, "http://localhost:1", {})
    async with asyncio.timeout(60):
        await duplex(SCOPE, receive, send, tunnel=tunnel, disguise=disguise, max_bytes=1000)
        heard = await server
    others.cancel()
    assert sent == ["websocket.accept", *["websocket.send"] * shown, "websocket.close"]
    assert turns > MESSAGES / 2
    if frame == PING:
        assert heard.count(b"\x8a\x80") >= MESSAGES, "each is answered"


async def trickle(sock: socket.socket) -> None:
    """A server whose answer has very many chunks of one byte."""
    reader, writer = await asyncio.open_connection(sock=sock)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n")
    with contextlib.closing(writer):
        await writer.drain()


async def test_a_server_that_sends_tiny_chunks_leaves_turns_to_others() -> None:
    ours, theirs = socket.socketpair()
    came = [0]
    """Bytes shown to the visitor in each turn of the others."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()  # the visitor stays, and says nothing
        raise AssertionError

    async def send(message: Any) -> None:
        came[-1] += len(message.get("body", b""))

    async def take_turns() -> None:
        while True:
            came.append(0)
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    server = asyncio.create_task(trickle(theirs))
    disguise = Disguise(outer="http://x.localhost", inner="http://localhost:1", port=1)
    scope = SCOPE | {"type": "http", "method": "GET"}
    async with asyncio.timeout(60):
        tunnel = Tunnel(ours, "http://localhost:1", {})
        await exchange(scope, receive, send, tunnel=tunnel, disguise=disguise, max_bytes=0)
        await server
    others.cancel()
    assert sum(came) == CHUNKS
    assert max(came) <= AT_ONCE
