"""HTTP requests to addresses that somebody else named: web pages a model asks for, webhooks a caller gave.

A name is resolved once, every address it has is checked, and the connection goes to a checked address: there is
no second look-up to lie to. Every redirect is checked like a first request. Sizes and times are bounded, also of
what a compressed body becomes. No proxy or cookie of the environment is used.
"""

import asyncio
import ipaddress
import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from workflow.core.addresses import is_private, is_public
from workflow.core.errors import BadInput, Forbidden, Unavailable

MAX_URL_CHARS = 2000
MAX_REDIRECTS = 5
USER_AGENT = "Dialtone/0.1"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
# Ports that no web server uses and other protocols do: the Fetch standard's list, and common databases.
_BAD_PORTS = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045,
    4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 2375, 2379, 3306, 5432, 6379,
    9042, 9200, 11211, 27017,
})  # fmt: skip

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
            raise Unavailable(f"{_short(url)} did not answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _AddressRefused):
                raise Forbidden(str(error.os_error)) from error
            raise Unavailable(f"{_short(url)} cannot be reached: {error.os_error}") from error
        except aiohttp.InvalidURL as error:
            raise BadInput(f"{_short(url)} is not a usable address") from error
        except (aiohttp.ClientError, zlib.error) as error:
            raise Unavailable(f"{_short(url)} gave no proper answer: {error}") from error

    def checked(self, url: str) -> URL:
        """`url` parsed, if it may be requested as far as its text tells. Raises: BadInput, Forbidden."""
        if len(url) > MAX_URL_CHARS or _ODD.search(url):
            raise BadInput("a URL must be at most 2,000 characters, without blanks, backslashes or control characters")
        try:
            parsed = URL(url)
            port = parsed.port
        except ValueError as error:
            raise BadInput(f"{_short(url)} is not a URL") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise BadInput(f"{_short(url)} must begin with http:// or https:// and name a host")
        if parsed.user is not None or parsed.password is not None or "@" in parsed.raw_authority:
            raise BadInput("a URL with a user name or password is refused")
        if port is None or port in _BAD_PORTS or port == 0:
            raise Forbidden(f"port {port} is refused")
        if "%" in parsed.host:
            raise BadInput(f"{_short(url)} has a host that is not plain")
        literal = _literal(parsed.host)
        if literal is not None and not self._is_allowed(literal):
            raise Forbidden(f"{parsed.host} is not a public address")
        return parsed.with_fragment(None)

    def _is_allowed(self, address: str) -> bool:
        return is_public(address) or (self._allow_private and is_private(address))

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
        raise Unavailable(f"{_short(str(url))}: more than {MAX_REDIRECTS} redirects")

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


def _literal(host: str) -> str | None:
    """`host` if it is an IP address; also one written as a single number or in other old forms, as dotted."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if re.fullmatch(r"(?:0[xX][0-9a-fA-F]*|\d+)(?:\.(?:0[xX][0-9a-fA-F]*|\d+)){0,3}\.?", host):
        try:
            return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return "0.0.0.0"  # looks like an address and is none: refuse it as one
    return None


def _joined(url: URL, location: str) -> str:
    try:
        return str(url.join(URL(location)))
    except ValueError:
        return location  # `checked` will say what is wrong with it


def _site(url: URL) -> str:
    """The host, with and without `www.` the same."""
    return (url.host or "").removeprefix("www.").rstrip(".")


def _short(url: str) -> str:
    """`url` for a message: without its query, which may hold secrets."""
    return url.partition("?")[0][:200]
