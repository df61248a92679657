"""How a gateway reaches a port inside a sandbox: through the door of the worker that has the sandbox.

The gateway writes down in Redis what it wants opened and shows the door a one-use pass for it; the door reads there
which thread and port that is. So whoever reaches a door can name neither a host nor a port, and a pass that somebody
overheard is used up. After one answer of a few bytes the connection is the port's, byte for byte.
"""

import asyncio
import logging
import secrets
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from modem import keys
from modem.pool import Connections, translated
from modem.tickets import digest
from modem.workers import workers
from workflow.core.errors import SandboxError, Unavailable
from workflow.core.ids import ThreadId
from workflow.core.records import PreviewLink, WorkerRecord

log = logging.getLogger(__name__)

PASS_BYTES = 43
"""What a pass has in characters."""
PASS_TTL_S = 10
CONNECT_S = 3.0
OPEN_S = 90.0
"""A remote sandbox may have to be woken first."""
AGAIN_S = 3
_LENGTH = struct.Struct("!H")


class Answer(BaseModel):
    """What a door says."""

    model_config = ConfigDict(frozen=True)

    status: Literal["open", "elsewhere", "failed"]
    """`elsewhere`: another worker has this sandbox."""
    origin: str = ""
    """How the server inside is addressed when `open`: `http://localhost:3000`."""
    inner: str = ""
    """The origin that the server gets to see, if that is another one; somebody on the way renames it."""
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    """What every request to it must bring along; secret."""
    detail: str = ""

    def pack(self) -> bytes:
        body = self.model_dump_json().encode()
        return _LENGTH.pack(len(body)) + body


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A connection to a port inside a sandbox."""

    socket: socket.socket
    origin: str
    headers: Mapping[str, str] = field(repr=False)
    """What every request over it must bring along; secret."""
    inner: str = ""
    """The origin that the server inside gets to see, if it is not `origin`."""


class Passes:
    """One-use passes for doors. Raises everywhere: Unavailable."""

    def __init__(self, connections: Connections) -> None:
        self._redis = connections.commands

    async def issue(self, thread_id: ThreadId, port: int) -> str:
        """A pass for one connection."""
        text = secrets.token_urlsafe(32)
        async with translated():
            await self._redis.set(keys.door_pass(digest(text)), f"{thread_id} {port}", ex=PASS_TTL_S)
        return text

    async def redeem(self, text: str) -> tuple[ThreadId, int] | None:
        """What a pass opens; None if it is unknown, too old or was used."""
        async with translated():
            value = await self._redis.getdel(keys.door_pass(digest(text)))
        if value is None:
            return None
        thread_id, port = value.decode().split()
        return ThreadId(thread_id), int(port)


class Doors:
    """The gateway's side."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._passes = Passes(connections)
        self._last: dict[ThreadId, str] = {}
        """The worker that had a thread's sandbox last."""

    async def open(self, link: PreviewLink) -> Tunnel:
        """A connection to the link's port; a sandbox that sleeps is woken.

        Raises: Unavailable when no worker can be reached; SandboxError when the sandbox does not open.
        """
        found = await self._candidates(link)
        for worker in found:
            try:
                async with asyncio.timeout(CONNECT_S):
                    sock = await _connect(worker.door)
            except OSError as error:
                log.warning("the door of worker %s is out of reach: %s", worker.worker, error)
                continue
            tunnel = await self._enter(sock, link)
            if tunnel is not None:
                self._remember(link.thread_id, worker.worker)
                return tunnel
        if found:
            raise Unavailable("the workers that run do not reach this sandbox", retry_after_s=AGAIN_S)
        raise Unavailable("no worker is running that could open the sandbox", retry_after_s=AGAIN_S)

    async def _candidates(self, link: PreviewLink) -> list[WorkerRecord]:
        """Workers with a door; first those that are most likely to have the sandbox."""
        likely = (self._last.get(link.thread_id), link.worker)
        found = [worker for worker in await workers(self._connections) if worker.door]
        order = {name: place for place, name in reversed(list(enumerate(likely)))}
        return sorted(found, key=lambda worker: (order.get(worker.worker, len(likely)), worker.draining))

    async def _enter(self, sock: socket.socket, link: PreviewLink) -> Tunnel | None:
        """The tunnel behind a door; None when another worker has the sandbox."""
        try:
            async with asyncio.timeout(OPEN_S):
                answer = await _ask(sock, await self._passes.issue(link.thread_id, link.port))
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            sock.close()
            log.warning("a door did not answer: %s", error, extra={"thread_id": link.thread_id})
            return None
        except BaseException:
            sock.close()
            raise
        if answer.status == "open":
            return Tunnel(sock, answer.origin, answer.headers, answer.inner)
        sock.close()
        if answer.status == "elsewhere":
            return None
        raise SandboxError(answer.detail)

    def _remember(self, thread_id: ThreadId, worker: str) -> None:
        self._last.pop(thread_id, None)
        self._last[thread_id] = worker
        if len(self._last) > 10_000:
            del self._last[next(iter(self._last))]


async def _connect(door: str) -> socket.socket:
    host, _, port = door.rpartition(":")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (host.strip("[]"), int(port)))
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask(sock: socket.socket, text: str) -> Answer:
    """Shows the pass. Reads to the last byte of the answer and no further. Raises: OSError, ValueError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, text.encode())
    (length,) = _LENGTH.unpack(await _read(sock, _LENGTH.size))
    return Answer.model_validate_json(await _read(sock, length))


async def _read(sock: socket.socket, count: int) -> bytes:
    loop, got = asyncio.get_running_loop(), b""
    while len(got) < count:
        piece = await loop.sock_recv(sock, count - len(got))
        if not piece:
            raise ConnectionError("the door was closed")
        got += piece
    return got
