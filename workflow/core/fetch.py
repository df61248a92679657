"""HTTP requests to addresses that somebody else named: web pages a model asks for, webhooks a caller gave.

A name is resolved once, every address it has is checked, and the connection goes to a checked address: there is
no second look-up to lie to. Every redirect is checked like a first request. Sizes and times are bounded, also of
what a compressed body becomes. No proxy or cookie of the environment is used.
"""

import asyncio
import socket
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from workflow.core.addresses import checked_url, is_allowed, short
from workflow.core.errors import BadInput, Forbidden, Unavailable

MAX_REDIRECTS = 5
USER_AGENT = "Dialtone/0.1"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → its addresses."""
Follow = Literal["all", "same_host", "none"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whatever its status."""

    url: str
    """Where it came from in the end."""
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; of a repeated one the last."""
    is_cut: bool = False
    """True if the body was longer than `max_bytes`."""
    location: str = ""
    """Where a redirect points that was not followed; absolute."""


class SafeFetcher:
    """Makes requests to public addresses only. Use as `async with SafeFetcher(...) as fetcher`."""

    def __init__(
        self,
        *,
        max_bytes: int = 5_000_000,
        timeout_s: float = 20.0,
        allow_private: bool = False,
        resolve: Resolve | None = None,
    ) -> None:
        """timeout_s: a whole request, redirects included.

        allow_private: also loopback and private networks; link-local ones stay closed.
        resolve: how names become addresses; by default the system's resolver.
        """
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._allow_private = allow_private
        self._resolver = _CheckedResolver(resolve or _system, self._is_allowed)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, *, follow: Follow = "all", headers: Mapping[str, str] | None = None) -> Fetched:
        """What `url` answers. Raises as `request` does."""
        return await self.request("GET", url, follow=follow, headers=headers)

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        follow: Follow = "none",
    ) -> Fetched:
        """One request, and for GET and HEAD the redirects that `follow` allows.

        `headers` go to the first host only. Raises: BadInput for an unusable URL, Forbidden for an address that
        is not public, Unavailable when there is no (proper) answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(method, self.checked(url), body, dict(headers or {}), follow)
        except TimeoutError as error:
            raise Unavailable(f"{short(url)} did not answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _AddressRefused):
                raise Forbidden(str(error.os_error)) from error
            raise Unavailable(f"{short(url)} cannot be reached: {error.os_error}") from error
        except aiohttp.InvalidURL as error:
            raise BadInput(f"{short(url)} is not a usable address") from error
        except (aiohttp.ClientError, zlib.error) as error:
            raise Unavailable(f"{short(url)} gave no proper answer: {error}") from error

    def checked(self, url: str) -> URL:
        """`url` parsed, if it may be requested as far as its text tells. Raises: BadInput, Forbidden."""
        return checked_url(url, allow_private=self._allow_private)

    def _is_allowed(self, address: str) -> bool:
        return is_allowed(address, allow_private=self._allow_private)

    async def _follow(
        self, method: str, url: URL, body: bytes | None, headers: dict[str, str], follow: Follow
    ) -> Fetched:
        first_host = url.host
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._once(method, url, body, headers if url.host == first_host else {})
            if not answer.location or method not in ("GET", "HEAD") or follow == "none":
                return answer
            target = self.checked(answer.location)
            if follow == "same_host" and _site(target) != _site(url):
                return answer
            url = target
        raise Unavailable(f"{short(str(url))}: more than {MAX_REDIRECTS} redirects")

    async def _once(self, method: str, url: URL, body: bytes | None, headers: dict[str, str]) -> Fetched:
        if self._session is None:
            raise RuntimeError("SafeFetcher is used outside of `async with`")
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", "Accept": "*/*", **headers}
        async with self._session.request(method, url, data=body, headers=sent, allow_redirects=False) as response:
            received = {name.lower(): value for name, value in response.headers.items()}
            location = received.get("location", "") if response.status in _REDIRECTS else ""
            content, is_cut = (b"", False) if location else await self._body(response)
            return Fetched(
                url=str(url),
                status=response.status,
                body=content,
                headers=received,
                is_cut=is_cut,
                location=_joined(url, location) if location else "",
            )

    async def _body(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """At most `max_bytes` of the body, unpacked; and whether there was more."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip"):
            raise Unavailable(f"the answer is encoded as {encoding[:40]}, which was not asked for")
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if "gzip" in encoding else None
        content = bytearray()
        async for chunk in response.content.iter_chunked(65_536):
            room = self._max_bytes + 1 - len(content)
            content += chunk[:room] if unpack is None else unpack.decompress(chunk, room)
            if len(content) > self._max_bytes:
                return bytes(content[: self._max_bytes]), True
        return bytes(content), False


class _AddressRefused(OSError):
    """Raised while resolving; an OSError so that aiohttp reports it as a failed connection."""


class _CheckedResolver(AbstractResolver):
    """Gives the addresses of a name if all of them are allowed."""

    def __init__(self, resolve: Resolve, is_allowed: Callable[[str], bool]) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._resolve(host, port)
        if not addresses:
            raise OSError(f"{host} has no address")
        for address in addresses:
            if not self._is_allowed(address):
                raise _AddressRefused(f"{host} leads to {address}, which is not a public address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Holds nothing."""


async def _system(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _joined(url: URL, location: str) -> str:
    try:
        return str(url.join(URL(location)))
    except (ValueError, IndexError):
        return location  # `checked` will say what is wrong with it


def _site(url: URL) -> str:
    """The host, with and without `www.` the same."""
    return (url.host or "").removeprefix("www.").rstrip(".")
