"""The door of a worker: where gateways reach ports inside its sandboxes. What a pass opens, Redis says."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

from modem.doors import PASS_BYTES, Answer, Passes
from workflow.core.errors import ConfigError, DialtoneError, ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Sandbox, SandboxProvider
from workflow.sandboxes.ports import carry

log = logging.getLogger(__name__)

PASS_S = 5.0
CONNECT_S = 15.0
AT_ONCE = 1000
"""Connections at once; further ones are turned away."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Door:
    """Opened once per worker process, on its loop."""

    def __init__(self, passes: Passes, sandboxes: SandboxProvider, *, host: str, port: int) -> None:
        self._passes = passes
        self._sandboxes = sandboxes
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()
        self.address = ""
        """`host:port` for gateways; empty until it is open."""

    async def open(self) -> None:
        """Listens. Raises: ConfigError when the address cannot be had."""
        try:
            self._server = await asyncio.start_server(self._arrive, self._host, self._port)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise ConfigError(f"worker.door_host, worker.door_port: cannot listen on {where}: {error}") from error
        host, port = self._server.sockets[0].getsockname()[:2]
        if host in {"0.0.0.0", "::"}:
            host = await asyncio.to_thread(_own_address)
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Lets nobody in any more and ends all visits."""
        if self._server is not None:
            self._server.close()
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._visits) >= AT_ONCE:
            writer.close()
            return
        visit = asyncio.ensure_future(self._visit(reader, writer))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(PASS_S):
                    text = (await reader.readexactly(PASS_BYTES)).decode("ascii")
                opens = await self._passes.redeem(text)
                if opens is not None:
                    await self._let_in(reader, writer, *opens)
            except (asyncio.IncompleteReadError, UnicodeDecodeError, OSError):  # TimeoutError is an OSError
                return
            except DialtoneError as error:
                log.warning("a visit failed: %s", error)
            except Exception:  # the edge of a visit: the door stays open for others
                log.exception("a visit broke")

    async def _let_in(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, thread_id: ThreadId, port: int
    ) -> None:
        try:
            sandbox = await self._sandboxes.open(thread_id)
            async with sandbox.in_use(), _reach(sandbox, port) as (answer, inside):
                writer.write(answer.pack())
                await writer.drain()
                await carry((reader, writer), inside)
        except ToolError as error:
            status = "elsewhere" if error.kind == "held_elsewhere" else "failed"
            writer.write(Answer(status=status, detail=error.message).pack())
        except (DialtoneError, OSError) as error:
            # Why is for us: a visitor may be anybody who has the link.
            log.warning("port %d was not reached: %s", port, error, extra={"thread_id": thread_id})
            writer.write(Answer(status="failed", detail="the sandbox was not reached").pack())


@contextlib.asynccontextmanager
async def _reach(sandbox: Sandbox, port: int) -> AsyncIterator[tuple[Answer, Streams]]:
    """What the gateway must know of the server, and a connection to it.

    Raises: OSError, SandboxError, ToolError.
    """
    address = await sandbox.address(port)
    host, outer_port = address.host, address.port
    async with asyncio.timeout(CONNECT_S):
        if host.startswith("unix:"):
            origin = f"http://localhost:{port}"
            inside = await asyncio.open_unix_connection(host.removeprefix("unix:"))
        else:
            is_tls = outer_port == 443
            origin = f"https://{host}" if is_tls else f"http://{host}:{outer_port}"
            # Names under localhost are this machine (RFC 6761), whether or not its resolver knows: self-hosted Daytona.
            to = "127.0.0.1" if host.endswith(".localhost") else host
            inside = await asyncio.open_connection(
                to, outer_port, ssl=is_tls or None, server_hostname=host if is_tls else None
            )
    with contextlib.closing(inside[1]):
        yield Answer(status="open", origin=origin, inner=address.inner, headers=dict(address.headers)), inside


def _own_address() -> str:
    """The address of this host among its neighbours; in a container, that of the container."""
    return socket.gethostbyname(socket.gethostname())
