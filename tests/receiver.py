"""Another server that is told of runs: it keeps what it gets and answers as the test says."""

import asyncio
import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Received:
    """One delivery."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def notice(self) -> dict[str, Any]:
        """The body, after its signature was checked."""
        return self.verified(SECRET)

    def verified(self, secret: str) -> dict[str, Any]:
        verified: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        assert verified == json.loads(self.body)
        return verified


@dataclass
class Receiver:
    """Listens on a free port of loopback while it is open."""

    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers; 204 when there are no more."""
    headers: dict[str, str] = field(default_factory=dict)
    """Header fields of every answer."""
    holds: asyncio.Event | None = None
    """When given: no answer before it is set."""
    received: list[Received] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._came = asyncio.Condition()
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?from=dialtone"

    async def wait(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """The first `count` deliveries, as soon as they are there."""
        async with asyncio.timeout(timeout_s), self._came:
            await self._came.wait_for(lambda: len(self.received) >= count)
        return self.received[:count]

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        status = self.statuses.pop(0) if self.statuses else 204
        received = Received(headers, await request.read())
        async with self._came:
            self.received.append(received)
            self._came.notify_all()
        if self.holds is not None:
            await self.holds.wait()
        return web.Response(status=status, headers=self.headers)
