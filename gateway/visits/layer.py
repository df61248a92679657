"""The layer that serves previews: requests to their host names end here, everything else passes through."""

import asyncio
from collections import Counter
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import request_id_of
from gateway.sse import WIRE
from gateway.subscription import Wire
from gateway.visits.endings import Cut, Denied, Left
from gateway.visits.headers import Disguise, is_navigation
from gateway.visits.names import Names
from gateway.visits.pages import refusal
from modem.doors import Doors
from modem.links import Links
from workflow.core.config import GatewaySettings
from workflow.core.errors import DialtoneError, Gone, LimitExceeded, NotFound, Unavailable
from workflow.core.records import PreviewLink

RECHECK_S = 2.0
"""An open visit ends this soon after its link was revoked."""
AT_ONCE = 100
"""Visits to one link."""
POLICY_CLOSE = 1008


class Visits:
    """All visits of this process."""

    def __init__(self, app: ASGIApp, *, names: Names, links: Links, doors: Doors, settings: GatewaySettings) -> None:
        self._app = app
        self._names = names
        self._links = links
        self._doors = doors
        self._settings = settings
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        secret = self._names.secret(scope["headers"]) if scope["type"] in {"http", "websocket"} else None
        if secret is None:
            await self._app(scope, receive, send)
            return
        scope["state"]["is_foreign"] = True
        visit = _Visit(scope, receive, send)
        try:
            if not secret:
                raise NotFound("there is no such preview")
            await self._serve(visit, secret)
        except DialtoneError as error:
            await visit.refuse(error)
        except Denied as denied:
            await visit.deny(denied.status)
        except Cut:
            visit.abort()
        except Left:
            return

    async def _serve(self, visit: "_Visit", secret: str) -> None:
        link = await self._links.find(secret)
        if self._open[link.id] >= AT_ONCE:
            raise LimitExceeded(f"more than {AT_ONCE} requests to this preview at once", retry_after_s=1)
        self._open[link.id] += 1
        try:
            async with asyncio.timeout(None) as limit:
                watching = asyncio.ensure_future(self._watch(link, limit))
                try:
                    await self._visit(visit, link, secret)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Gone("this preview has expired or was revoked") from None
        finally:
            self._open[link.id] -= 1
            if not self._open[link.id]:
                del self._open[link.id]

    async def _visit(self, visit: "_Visit", link: PreviewLink, secret: str) -> None:
        # Here and not above: aiohttp takes 10 MB of every gateway, and many never serve a preview.
        from gateway.visits.duplex import duplex  # noqa: PLC0415
        from gateway.visits.exchange import exchange  # noqa: PLC0415

        tunnel = await self._doors.open(link)
        disguise = Disguise(
            outer=self._names.origin(secret),
            inner=tunnel.inner or tunnel.origin,
            port=link.port,
            added=tunnel.headers,
            host=tunnel.origin.partition("://")[2],
        )
        settings = self._settings
        carry, limit = (
            (duplex, settings.max_body_bytes)
            if visit.scope["type"] == "websocket"
            else (exchange, settings.max_upload_bytes)
        )
        await carry(visit.scope, visit.receive, visit.send, tunnel=tunnel, disguise=disguise, max_bytes=limit)

    async def _watch(self, link: PreviewLink, limit: asyncio.Timeout) -> None:
        """Ends the visit when the link does not hold any more; while Redis is away, nobody is thrown out."""
        while True:
            await asyncio.sleep(RECHECK_S)
            with suppress(Unavailable):
                if not await self._links.holds(link):
                    limit.reschedule(asyncio.get_running_loop().time())
                    return


class _Visit:
    """One request, and how far its answer has come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self._has_begun = False

    async def send(self, message: Message) -> None:
        self._has_begun = True
        await self._send(message)

    async def refuse(self, error: DialtoneError) -> None:
        """Says what is wrong, or cuts an answer that is under way."""
        if self._has_begun:
            if self.scope["type"] == "websocket":
                await self._send({"type": "websocket.close", "code": POLICY_CLOSE, "reason": error.message})
            else:
                self.abort()
            return
        as_page = is_navigation(self.scope["headers"])
        response = refusal(error, as_page=as_page, request_id=request_id_of(self.scope))
        await response(self.scope, self.receive, self._send)

    async def deny(self, status: int) -> None:
        """Refuses a WebSocket with the status that the server refused it with."""
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": []})
        await self._send({"type": "websocket.http.response.body", "body": b""})

    def abort(self) -> None:
        """Cuts the connection: what was sent is not the whole answer."""
        wire: Wire | None = (self.scope.get("extensions") or {}).get(WIRE)
        if wire is not None:
            wire.abort()
