"""What headers of a visit become on their way in and out.

The server inside sees what it would see from a browser on its own machine: `Host: localhost:3000`, the same origin in
`Origin` and `Referer`, and no word of proxies. So checks of development servers against foreign hosts hold, and
redirects to `localhost` are ours to turn back.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.auth import COOKIE

Headers = Iterable[tuple[bytes, bytes]]

# RFC 9110 7.6.1, and what HTTP/1.1 once had besides.
_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
    | {"proxy-authenticate", "proxy-authorization", "proxy-authentication-info"}
)
_NOT_IN = _HOP | {"host", "content-length", "expect", "forwarded", "x-real-ip", "via"}
_SOCKET = "sec-websocket-"
# Commands to a proxy in front of us, which takes them from us only: to serve a file of its own, or another address.
_TO_PROXIES = ("x-accel-", "x-sendfile", "x-lighttpd-send-", "x-reproxy-")
# `alt-svc` would lead browsers to another host or port, `strict-transport-security` outlives the link,
# `clear-site-data` takes the cookies of the whole registered domain, perhaps the console's, and `x-frame-options`
# keeps the preview out of the console's frame. The server writes its own `date`.
_NOT_OUT = _HOP | {"alt-svc", "clear-site-data", "strict-transport-security", "x-frame-options", "date"}
_STRICT_REFERRERS = frozenset({"no-referrer", "same-origin"})
_LOCAL = r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])"
OUR_KEY = "dt_"


@dataclass(frozen=True, slots=True)
class Disguise:
    """Two origins for one server: how the browser names it, and how it names itself."""

    outer: str
    inner: str
    port: int
    added: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers, in lower case, that go in with every request and that no visitor may set."""
    host: str = ""
    """What `Host` says, if somebody on the way turns it into that of `inner`."""

    def inward(self, headers: Headers) -> list[tuple[str, str]]:
        """The visitor's headers for the server. `content-length` and those of WebSockets are left to the carrier."""
        plain = [(name.decode("latin-1").lower(), _sendable(value)) for name, value in headers]
        dropped = _NOT_IN | _named(plain) | self.added.keys()
        kept = [("Host", self.host or self.inner.partition("://")[2]), *self.added.items()]
        for name, value in plain:
            if name in dropped or name.startswith(("x-forwarded-", _SOCKET)) or _is_our_key(name, value):
                continue
            match name:
                case "cookie":
                    value = _without_ours(value)
                    if not value:
                        continue
                case "origin" | "referer":
                    value = self._inner(value)
            kept.append((name, value))
        return kept

    def outward(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The server's headers for the visitor."""
        plain = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
        dropped = _NOT_OUT | _named(plain)
        plain = [header for header in plain if header[0] not in dropped and not header[0].startswith(_TO_PROXIES)]
        kept = [(name, self._changed(name, value)) for name, value in plain]
        policies = {value.strip().lower() for name, value in kept if name == "referrer-policy"}
        if not policies or not policies <= _STRICT_REFERRERS:  # else links to other sites would tell them the secret
            kept = [(name, value) for name, value in kept if name != "referrer-policy"]
            kept.append(("referrer-policy", "same-origin"))
        kept += [("x-robots-tag", "noindex, nofollow"), ("x-accel-buffering", "no")]
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]

    def _changed(self, name: str, value: str) -> str:
        if name in {"location", "content-location"}:
            return self._outer(value)
        if name == "set-cookie":  # for the preview's own host alone
            return ";".join(part for part in value.split(";") if part.split("=")[0].strip().lower() != "domain")
        if name == "access-control-allow-origin" and value == self.inner:
            return self.outer
        return value

    def _inner(self, value: str) -> str:
        """`value`, an origin or an address of ours, as the server names it."""
        rest = value[len(self.outer) :]
        return self.inner + rest if value.startswith(self.outer) and rest[:1] in {"", "/"} else value

    def _outer(self, value: str) -> str:
        """`value`, where it leads to the server itself, as the visitor names it."""
        itself = rf"(?:{re.escape(self.inner)}|(?:https?:)?//{_LOCAL}:{self.port})"
        if match := re.match(rf"{itself}(?=[/?#]|$)", value, re.IGNORECASE):
            return self.outer + value[match.end() :]
        return value


def _sendable(value: bytes) -> str:
    """`value` as text that aiohttp, which writes UTF-8, turns into the same bytes; cookies may well be UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _named(headers: list[tuple[str, str]]) -> frozenset[str]:
    """The headers that `Connection` says are for the next hop only."""
    return frozenset(
        token.strip().lower() for name, value in headers if name == "connection" for token in value.split(",")
    ) - {"host", "content-length", "cookie", "set-cookie"}


def _is_our_key(name: str, value: str) -> bool:
    """True for an API key of Dialtone, sent by somebody who took the preview for the API."""
    if name == "authorization":
        return value.partition(" ")[2].strip().startswith(OUR_KEY)
    return name == "x-api-key" and value.startswith(OUR_KEY)


def _without_ours(cookies: str) -> str:
    parts = [part.strip() for part in cookies.split(";")]
    return "; ".join(part for part in parts if part and part.partition("=")[0].strip() != COOKIE)


def is_navigation(headers: Headers) -> bool:
    """True if the visitor would rather read a page than a problem body."""
    return any(name.lower() == b"accept" and b"text/html" in value for name, value in headers)
