"""Who calls: API key, token of an external issuer, the console's cookie, or a one-use stream ticket.

`Authorization: Bearer` carries a key or a token (a key may come as `X-API-Key` too). Browsers use the cookie,
which works only from our own pages; an EventSource on another origin uses a ticket. Nothing lasting is ever read
from a URL, because access logs keep URLs.
"""

import ipaddress
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from gateway.keyring import KeyRing
from modem.tickets import Tickets, digest
from workflow.core.config import AuthSettings, GatewaySettings
from workflow.core.errors import Forbidden, Unauthenticated
from workflow.core.ids import TenantId, ThreadId, UserId
from workflow.core.records import Caller

if TYPE_CHECKING:
    from gateway.tokens import TokenVerifier

_log = logging.getLogger(__name__)

COOKIE = "dialtone_session"
SESSION_S = 7 * 86_400
LOCAL = Caller(
    tenant=TenantId("local"), user=UserId("local"), scopes=frozenset({"read", "write", "operator"}), credential="off"
)
"""Everybody, while checks are off."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Authenticator:
    """Turns a request into its caller, and tells later whether that still holds."""

    def __init__(self, auth: AuthSettings, gateway: GatewaySettings, *, keys: KeyRing, tickets: Tickets) -> None:
        self.is_on = auth.mode == "on" or (auth.mode == "auto" and not is_loopback(gateway.host))
        self._is_local = auth.mode == "auto" and not self.is_on
        self._settings = auth
        self._public_url = gateway.public_url
        self._origins = frozenset(gateway.cors_origins)
        self._keys = keys
        self._tickets = tickets
        self._tokens: TokenVerifier | None = None
        if auth.jwt_algorithms:
            # Here and not above: what tokens need takes 11 MB of every gateway, and few installations have any.
            from gateway import tokens  # noqa: PLC0415

            self._tokens = tokens.TokenVerifier(auth)
        if not self.is_on:
            _log.warning(
                "callers are NOT checked: whoever reaches %s:%d may do everything (auth.mode = %s)",
                gateway.host, gateway.port, auth.mode,
            )  # fmt: skip

    async def caller(self, request: HTTPConnection, *, thread_id: ThreadId | None = None) -> Caller:
        """The caller of `request`; a ticket counts only where `thread_id` is given and is its thread.

        Raises: Unauthenticated, Forbidden when a page of another origin uses our cookie, Unavailable.
        """
        if not self.is_on:
            self._check_local(request)
            self.check_origin(request)
            return LOCAL
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.casefold() == "bearer" and value.strip():
            return await self._bearer(value.strip())
        if key := request.headers.get("x-api-key"):
            return self.key_caller(key)
        if thread_id is not None and (ticket := request.query_params.get("ticket")):
            return await self._ticket(ticket, thread_id)
        if secret := request.cookies.get(COOKIE):
            self.check_origin(request)
            return await self._session(digest(secret))
        raise Unauthenticated("no key: send `Authorization: Bearer <API key or token>`")

    async def check(self, caller: Caller) -> None:
        """Raises: Unauthenticated once the credential of an open stream no longer holds."""
        kind, _, value = caller.credential.partition(":")
        if kind == "key" and self._keys.still(value) != caller:
            raise Unauthenticated("the key was revoked or changed")
        if kind == "jwt" and time.time() > int(value.rpartition("@")[2]):
            raise Unauthenticated("the token has expired")
        if kind == "session":
            await self._session(value)

    async def close(self) -> None:
        if self._tokens is not None:
            await self._tokens.close()

    async def _bearer(self, text: str) -> Caller:
        if text.startswith("dt_"):
            return self.key_caller(text)
        if self._tokens is None:
            raise Unauthenticated("not an API key, and no token issuer is configured")
        return await self._tokens.caller(text)

    def key_caller(self, text: str) -> Caller:
        """Whom an API key stands for. Raises: Unauthenticated."""
        caller = self._keys.caller(text)
        if caller is None:
            raise Unauthenticated("the API key is unknown or was revoked")
        return caller

    async def _ticket(self, ticket: str, thread_id: ThreadId) -> Caller:
        found = await self._tickets.redeem(ticket)
        if found is None or found[1] != thread_id:
            raise Unauthenticated("the ticket is unknown, too old, used, or meant for another thread")
        await self.check(found[0])
        return found[0]

    async def _session(self, hashed: str) -> Caller:
        held = await self._tickets.session(hashed)
        if held is None:
            raise Unauthenticated("the session has ended; sign in again")
        await self.check(held)
        return held.model_copy(update={"credential": f"session:{hashed}"})

    def check_origin(self, request: HTTPConnection) -> None:
        """Keeps pages of other origins from using what the browser attaches by itself."""
        origin = request.headers.get("origin")
        if origin is None:
            # `same-site` too is another origin: a preview of what a sandbox serves may be one.
            site = request.headers.get("sec-fetch-site", "none")
            if site not in {"none", "same-origin"} and not _is_navigation(request):
                raise Forbidden("a page of another origin may not do this")
            return
        own = f"{request.url.scheme.replace('ws', 'http')}://{request.headers.get('host', '')}"
        if origin not in self._origins and origin not in {own, self._public_url.rstrip("/")}:
            raise Forbidden("a page of another origin may not do this; see gateway.cors_origins", origin=origin)

    def _check_local(self, request: HTTPConnection) -> None:
        """While checks are off by default, only this machine is answered, and only under its names: a foreign name
        that resolves here is how web pages reach local servers (DNS rebinding)."""
        if self._is_local and request.client is not None and not is_loopback(request.client.host):
            raise Forbidden("while callers are not checked, nobody is served through a proxy: set auth.mode")
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if self._is_local and not is_loopback(host) and host != urlsplit(self._public_url).hostname:
            raise Forbidden(
                "while callers are not checked, only loopback names are served: set auth.mode or gateway.public_url"
            )


def _is_navigation(request: HTTPConnection) -> bool:
    return request.headers.get("sec-fetch-mode") == "navigate" and request.scope.get("method") in _SAFE_METHODS
