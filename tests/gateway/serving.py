"""The gateway under test: the real application behind the real server, on a free port, in this event loop."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from pydantic import BaseModel

from gateway.app import create_app
from gateway.server import configure, listen
from gateway.services import Services
from workflow.core.config import Settings


def make_settings(redis_url: str, folder: Path, **sections: dict[str, Any]) -> Settings:
    """Settings for one test; `sections` override single keys, as `gateway={"heartbeat_s": 0.2}`."""
    base: dict[str, dict[str, Any]] = {
        "redis": {"url": redis_url},
        "gateway": {"port": 0, "heartbeat_s": 0.3, "drain_s": 3.0, "retry_ms": 100},
        "limits": {"requests_per_minute": 0, "executes_per_minute": 0, "max_queued_per_tenant": 0},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return _unchecked(Settings(data_dir=str(folder)), base)


def _unchecked(settings: Settings, sections: dict[str, dict[str, Any]]) -> Settings:
    """Port 0 (any free one) is for tests alone, so the sections are changed behind the check."""
    update = {}
    for name, values in sections.items():
        section = getattr(settings, name)
        assert isinstance(section, BaseModel)
        assert set(values) <= set(type(section).model_fields), values
        update[name] = section.model_copy(update=values)
    return settings.model_copy(update=update)


class Gateway:
    """A running gateway."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self._listener = listen(settings.gateway)
        self.port: int = self._listener.getsockname()[1]
        self.config = configure(self.app, settings.gateway)
        self._server = uvicorn.Server(self.config)
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def services(self) -> Services:
        held: Services = self.app.state.services
        return held

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        async with asyncio.timeout(10):
            while not self._server.started:
                assert not self._task.done(), self._task
                await asyncio.sleep(0.005)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stops as on a signal."""
        self.services.hub.drain()
        self._server.should_exit = True
        if self._task is not None:
            async with asyncio.timeout(15):
                await self._task
