"""The one way out of a sandbox that has a network: an HTTP proxy that lets through what the policy allows.

It accepts on sockets that live inside the sandboxes' network namespaces. A name is resolved once, every address of
it must be public, and the connection goes to such an address: there is no second look-up to lie to. Redirects are
requests of their own and are checked like any other. What it cannot see is the inside of a TLS connection: a host
that is allowed may serve others behind it (domain fronting), and data can be sent to any allowed host.
"""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from workflow.core.addresses import is_public
from workflow.sandboxes.egress import Policy
from workflow.sandboxes.hello import NotTls, read_hello
from workflow.sandboxes.http_head import MAX_BYTES, BadRequest, Head, read_head
from workflow.sandboxes.ports import carry, until_one_ends
from workflow.sandboxes.secrecy import Mask

if TYPE_CHECKING:
    from workflow.sandboxes.authority import Authority

log = logging.getLogger(__name__)

PORT = 3128
"""Where a sandbox finds the proxy on its loopback."""
HEAD_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 15.0
MAX_AGE_S = 3600.0
MAX_CONNECTIONS = 128
"""Per sandbox, at once."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[list[str]]]
Connect = Callable[[str, int, str, ssl.SSLContext | None], Awaitable[Streams]]
"""(address, port, host name for TLS, TLS or None) → an open connection."""


class Refused(Exception):
    """A request that is not let through: its status and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the worker's own resolver knows them. Raises: OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def system_connect(address: str, port: int, host: str, tls: ssl.SSLContext | None) -> Streams:
    return await asyncio.open_connection(address, port, ssl=tls, server_hostname=host if tls else None)


class Proxy:
    """Serves all sandboxes of one worker process."""

    def __init__(
        self,
        policy: Policy,
        *,
        credentials: Mapping[str, str] | None = None,
        resolve: Resolve = system_resolve,
        connect: Connect = system_connect,
        upstream_tls: ssl.SSLContext | None = None,
    ) -> None:
        """credentials: host → value of the Authorization header its requests get; never shown to the sandbox."""
        self.authority: Authority | None = None
        if credentials:
            # Here and not above: cryptography takes 9 MB of every worker, and few have credentials to inject.
            from workflow.sandboxes import authority  # noqa: PLC0415

            self.authority = authority.Authority()
        self._policy = policy
        self._credentials = dict(credentials or {})
        self._resolve = resolve
        self._connect = connect
        self._upstream_tls = upstream_tls or ssl.create_default_context()

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Accepts from `listener` until the server is closed."""
        busy = asyncio.Semaphore(MAX_CONNECTIONS)

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if busy.locked():  # Nobody may wait here: each who waits holds a descriptor of ours.
                writer.close()
                return
            async with busy:
                await self._answer(reader, writer)

        return await asyncio.start_server(accepted, sock=listener, limit=MAX_BYTES)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(MAX_AGE_S):
                    async with asyncio.timeout(HEAD_TIMEOUT_S):
                        head = await read_head(reader)
                    if head.method == "CONNECT":
                        await self._tunnel(head, reader, writer)
                    else:
                        await self._forward(head, reader, writer)
            except (Refused, BadRequest, NotTls) as error:
                status = error.status if isinstance(error, Refused) else "400 Bad Request"
                log.info("refused a request of a sandbox: %.300s", error)
                body = f"{error}\n".encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
                writer.write(body)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError) as error:
                log.debug("a connection of a sandbox ended: %r", error)

    async def _tunnel(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = head.target.rpartition(":")
        if port != "443":
            raise Refused("403 Forbidden", f"{head.target}: only port 443 can be tunnelled to")
        host = host.lower()
        if host in self._credentials and self.authority is not None:
            self._check(host)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self.authority.context(host))
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                inner = await read_head(reader)
            if not inner.target.startswith("/"):
                raise BadRequest("not a path")
            await self._exchange(inner, inner.target, host, 443, reader, writer)
            return
        upstream_reader, upstream = await self._open(host, 443)
        with contextlib.closing(upstream):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                hello, name = await read_hello(reader)
            if name != host:
                # Too late for a status: the connection just ends, and the log says why.
                log.info("refused a tunnel of a sandbox to %s: its TLS names %.300r", host, name)
                return
            upstream.write(hello)
            await carry((reader, writer), (upstream_reader, upstream))

    async def _forward(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A plain HTTP request, whose target is a whole URL."""
        try:
            url = urlsplit(head.target)
            port, host = url.port or 80, (url.hostname or "").lower()
        except ValueError as error:
            raise BadRequest(f"not a URL: {error}") from error
        if url.scheme != "http" or url.username is not None or url.password is not None or not host:
            raise BadRequest("the target must be http://host/path")
        if port != 80:
            raise Refused("403 Forbidden", f"{head.target}: only port 80 is served for plain HTTP")
        if host in self._credentials:  # Whoever is on the way would read it, and might be any server.
            raise Refused("403 Forbidden", f"{host}: requests to it carry a credential, which needs https")
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        await self._exchange(head, target, host, 80, reader, writer)

    async def _exchange(
        self, head: Head, target: str, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One request and its answer, the credential of the host put in."""
        size = head.body_bytes()
        named = head.get("host").lower()
        if named not in ("", host, f"{host}:{port}"):
            raise BadRequest(f"the request is for {host}, its Host header says {named}")
        credential = self._credentials.get(host, "")
        # Uncompressed, so that a credential that comes back is seen.
        extra = {"Authorization": credential, "Accept-Encoding": "identity"} if credential else {}
        upstream_reader, upstream = await self._open(host, port, tls=port == 443)
        with contextlib.closing(upstream):
            upstream.write(head.rewritten(target, host, extra))
            # Nothing else is read from this client, but that it left is to be noticed: the host may be silent for long.
            await until_one_ends(
                _pass_on(upstream_reader, writer, Mask(credential)), _send_body(reader, upstream, size)
            )

    def _check(self, host: str) -> None:
        reason = self._policy.refusal(host)
        if reason:
            raise Refused("403 Forbidden", f"{host}: {reason}")

    async def _open(self, host: str, port: int, *, tls: bool = False) -> Streams:
        """A connection to a host that is allowed, at an address that is public. Raises: Refused."""
        self._check(host)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                addresses = await self._resolve(host, port)
                if not addresses or not all(is_public(address) for address in addresses):
                    raise Refused("403 Forbidden", f"{host}: its address is not a public one")
                return await self._reach(addresses, port, host, self._upstream_tls if tls else None)
        except TimeoutError as error:
            raise Refused("504 Gateway Timeout", f"{host}: no answer in time") from error
        except OSError as error:
            raise Refused("502 Bad Gateway", f"{host}: {error}") from error

    async def _reach(self, addresses: list[str], port: int, host: str, tls: ssl.SSLContext | None) -> Streams:
        """A connection to the first of the addresses that takes one. Raises: OSError as the last one does."""
        for address in addresses[:-1]:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CONNECT_TIMEOUT_S / len(addresses)):
                    return await self._connect(address, port, host, tls)
        return await self._connect(addresses[-1], port, host, tls)


async def _pass_on(upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, mask: Mask) -> None:
    """Passes on an answer, without the credential."""
    while chunk := await upstream.read(MAX_BYTES):
        writer.write(mask.hide(chunk))
        await writer.drain()
    writer.write(mask.rest)


async def _send_body(reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, size: int | None) -> None:
    """Passes on a body of `size` bytes, or a chunked one, and nothing that follows it; returns when the client left."""
    if size is None:
        await _send_chunks(reader, upstream)
    else:
        await _send(reader, upstream, size)
    while await reader.read(MAX_BYTES):
        pass


async def _send_chunks(reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        length = line.rstrip(b"\r\n").partition(b";")[0]
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", length):
            raise BadRequest("a malformed chunk")
        upstream.write(length + b"\r\n")
        if int(length, 16) == 0:  # Trailers are left out.
            upstream.write(b"\r\n")
            return
        await _send(reader, upstream, int(length, 16) + 2)


async def _send(reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, size: int) -> None:
    while size > 0:
        chunk = await reader.read(min(size, MAX_BYTES))
        if not chunk:
            return
        upstream.write(chunk)
        await upstream.drain()
        size -= len(chunk)
