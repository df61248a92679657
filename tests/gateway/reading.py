"""A browser's view of a stream: a bare socket, an SSE parser, and everything that came."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from dialtone.sse import SseMessage, SseParser

WAIT_S = 10.0


@dataclass
class Reader:
    """One connection to an event stream.

    status: of the answer.  headers: lower-case names.  messages: all that came, heartbeats left out.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    headers: dict[str, str]
    parser: SseParser = field(default_factory=SseParser)
    messages: list[SseMessage] = field(default_factory=list)
    heartbeats: int = 0
    ended: bool = False

    @classmethod
    async def open(cls, url: str, *, headers: Mapping[str, str] | None = None) -> Self:
        """Sends the request and reads the head of the answer."""
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        lines = [f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(WAIT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.strip().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in rest)
        return cls(reader, writer, int(first.split()[1]), fields)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leaves without a word, as a closed tab does."""
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def more(self) -> bool:
        """Takes what comes next; False when the stream has ended."""
        try:
            size = int(await self.reader.readline() or b"0", 16)
            chunk = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            size, chunk = 0, b""
        if size == 0:
            self.ended = True
            return False
        for message in self.parser.feed(chunk[:-2]):
            if message.event == "keep_alive":
                self.heartbeats += 1
            else:
                self.messages.append(message)
        return True

    async def until(self, count: int, *, timeout_s: float = WAIT_S) -> list[SseMessage]:
        """The messages so far, once there are `count`, or the stream has ended."""
        async with asyncio.timeout(timeout_s):
            while len(self.messages) < count and await self.more():
                pass
        return self.messages

    async def until_id(self, event_id: str, *, timeout_s: float = WAIT_S) -> list[SseMessage]:
        """The messages so far, once the event `event_id` is among them."""
        async with asyncio.timeout(timeout_s):
            while self.last_id != event_id and await self.more():
                pass
        return self.messages

    async def until_end(self, *, timeout_s: float = WAIT_S) -> list[SseMessage]:
        """All messages, once the server has ended the stream."""
        async with asyncio.timeout(timeout_s):
            while await self.more():
                pass
        return self.messages

    async def until_event(self, name: str, *, timeout_s: float = WAIT_S) -> SseMessage:
        """The first message of this name."""
        async with asyncio.timeout(timeout_s):
            while True:
                for message in self.messages:
                    if message.event == name:
                        return message
                assert await self.more(), f"the stream ended without {name}"

    async def until_heartbeats(self, count: int, *, timeout_s: float = WAIT_S) -> None:
        async with asyncio.timeout(timeout_s):
            while self.heartbeats < count:
                assert await self.more()

    async def body(self) -> bytes:
        """The rest of an answer that is no stream."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readexactly(int(self.headers.get("content-length", "0")))

    @property
    def last_id(self) -> str:
        return self.parser.last_id

    @property
    def ids(self) -> list[str]:
        """Ids of the facts that came."""
        return [message.id for message in self.messages if message.event == "task_agent_execute" and message.id]

    @property
    def data(self) -> list[dict[str, Any]]:
        """Bodies of everything that came."""
        return [json.loads(message.data) for message in self.messages]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [body for body in self.data if body.get("type") == "delta"]
