"""A network between a browser and a gateway, to be cut, held up and mended by a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Wire:
    """Carries every connection to `port` of loopback, as long as it is whole."""

    def __init__(self, port: int) -> None:
        self._far_port = port
        self._near_port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Gives its port."""
        await self.mend()
        try:
            yield self._near_port
        finally:
            self.cut()

    def cut(self) -> None:
        """Resets what is open and refuses what comes."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def stall(self) -> None:
        """Swallows what is sent from now on, without a sign: a network that was unplugged."""
        self._flows.clear()

    async def mend(self) -> None:
        """Takes connections again, on the same port; what was held up while it stalled is delivered."""
        self._flows.set()
        if self._server and self._server.is_serving():
            return
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._near_port)
        self._near_port = self._server.sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()
