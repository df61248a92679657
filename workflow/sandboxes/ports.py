"""Ports inside a sandbox, reached from outside: a unix socket per port, whose connections are carried in.

The sandbox has a network namespace of its own. Its init opens the connection there and hands the descriptor out, so
that no program has to run inside for it and the namespace stays closed.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from workflow.core.errors import SandboxError
from workflow.sandboxes.cell import Cell

CHUNK = 65_536
MAX_PATH = 107
"""Bytes of a unix socket's path (unix(7))."""
LOOPBACK = ("127.0.0.1", "::1")
"""Tried in this order: some servers listen on `localhost` as IPv6 only."""

GetCell = Callable[[], Awaitable[Cell]]


class Ports:
    """The exposed ports of one sandbox. Belongs to the event loop it is used on."""

    def __init__(self, folder: Path, cell: GetCell) -> None:
        """cell: gives the live cell, started when there is none: a visitor wakes a sandbox that was reclaimed.

        It raises SandboxError rather than start one beside that of another worker.
        """
        self._folder = folder
        self._cell = cell
        self._servers: dict[int, asyncio.Server] = {}
        self._files: dict[int, os.stat_result] = {}
        """What each of our sockets is in the file system."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_used(self) -> bool:
        """True while somebody is connected."""
        return bool(self._tasks)

    def path(self, port: int) -> Path:
        return self._folder / f"port-{port}"

    def is_ours(self, port: int) -> bool:
        """True if the socket at `path` is of this process; another worker may have put its own there."""
        try:
            return port in self._files and os.path.samestat(self.path(port).stat(), self._files[port])
        except FileNotFoundError:
            return False

    async def expose(self, port: int) -> Path:
        """The unix socket that leads to `port`; only our own user can connect. Raises: SandboxError."""
        path = self.path(port)
        if self.is_ours(port):
            return path
        if port in self._servers:
            self._servers.pop(port).close()
        if len(str(path).encode()) > MAX_PATH:
            raise SandboxError(f"the data folder's path is too long for sockets: {path}")
        try:
            with contextlib.ExitStack() as undo:
                path.unlink(missing_ok=True)
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                undo.callback(listener.close)
                listener.bind(str(path))
                path.chmod(0o600)
                self._files[port] = path.stat()
                self._servers[port] = await asyncio.start_unix_server(self._serve(port), sock=listener)
                undo.pop_all()
        except OSError as error:
            raise SandboxError(f"port {port} cannot be exposed: {error}") from error
        return path

    async def close(self) -> None:
        """Ends every connection and takes the sockets away."""
        for port, server in self._servers.items():
            server.close()
            if self.is_ours(port):
                self.path(port).unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers.clear()

    def _serve(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._carry(port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return connected

    async def _carry(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Joins one connection with the port; closes it at once when nothing listens there."""
        with contextlib.closing(writer):
            try:
                inside = await dial(await self._cell(), port)
            except (OSError, SandboxError):
                return
            inner_reader, inner_writer = await asyncio.open_connection(sock=inside)
            with contextlib.closing(inner_writer):
                await carry((reader, writer), (inner_reader, inner_writer))


async def carry(
    visitor: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Carries bytes both ways until either side has ended.

    A visitor's end ends it too: it may be a connection that is gone, which a silent server would never notice.
    """
    await until_one_ends(pipe(visitor[0], server[1]), pipe(server[0], visitor[1]))


async def until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    """Runs all of them until one ends, however it does, and ends the others with it."""
    tasks = {asyncio.ensure_future(way) for way in ways}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def dial(cell: Cell, port: int) -> socket.socket:
    """A connection to `port` on the sandbox's loopback. Raises: OSError if nothing listens."""
    for host in LOOPBACK[:-1]:
        with contextlib.suppress(OSError):
            return await cell.dial(host, port)
    return await cell.dial(LOOPBACK[-1], port)


async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Carries everything over, the end too; a broken connection counts as the end."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK):
            target.write(chunk)
            await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()
