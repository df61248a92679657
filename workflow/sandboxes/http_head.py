"""The head of an HTTP/1.1 request, read strictly: what two parsers could understand differently is refused."""

import asyncio
import re
from dataclasses import dataclass

MAX_BYTES = 65_536
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HOP_BY_HOP = frozenset({
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
    *("te", "trailer", "upgrade"),
})  # fmt: skip
"""RFC 9110 section 7.6.1. Transfer-Encoding stays, because the body is passed on as it comes."""
FRAMING = frozenset({"content-length", "transfer-encoding"})
"""What `Connection` cannot name away: without them the body would be read as a request of its own."""


class BadRequest(ValueError):
    """A head that is not passed on."""


@dataclass(frozen=True, slots=True)
class Head:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """The value of a header that may occur once; empty when there is none. Raises: BadRequest."""
        found = [value for key, value in self.headers if key.lower() == name]
        if len(found) > 1:
            raise BadRequest(f"{name} was sent {len(found)} times")
        return found[0] if found else ""

    def body_bytes(self) -> int | None:
        """The length of the body; None when it is chunked. Raises: BadRequest when it can be read in two ways."""
        length, encoding = self.get("content-length"), self.get("transfer-encoding")
        if encoding and (length or encoding.lower() != "chunked"):
            raise BadRequest("the body's length is ambiguous")
        if length and not re.fullmatch(r"\d{1,15}", length):
            raise BadRequest("Content-Length is not a number")
        return None if encoding else int(length or 0)

    def rewritten(self, target: str, host: str, extra: dict[str, str]) -> bytes:
        """The head as it goes to `host`: hop-by-hop headers and those in `extra` replaced, one request a connection."""
        dropped = HOP_BY_HOP | {"host"} | {name.lower() for name in extra}
        dropped |= {name.strip().lower() for name in self.get("connection").split(",")} - FRAMING
        kept = [(name, value) for name, value in self.headers if name.lower() not in dropped]
        headers = [("Host", host), *kept, *extra.items(), ("Connection", "close")]
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The next request's head. Raises: BadRequest; asyncio.IncompleteReadError if the connection ends before."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise BadRequest("the head is too long") from error
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if not _TOKEN.fullmatch(method) or version not in ("HTTP/1.1", "HTTP/1.0") or re.search(r"[\x00-\x20\x7f]", target):
        raise BadRequest("not an HTTP/1.1 request")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or re.search(r"[\x00\r\n]", value):
            raise BadRequest("a malformed header")
        headers.append((name, value.strip(" \t")))
    return Head(method, target, tuple(headers))
