"""The remote providers against their local servers. One server per vendor and test process; each test starts empty."""

import atexit
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Literal

from tests.servers import boxes
from tests.servers.boxes import BoxServer
from workflow.core.config import SandboxSettings
from workflow.sandboxes.machines import Pace
from workflow.sandboxes.remote import RemoteProvider

Vendor = Literal["e2b", "daytona"]
VENDORS: tuple[Vendor, ...] = ("e2b", "daytona")
KEY = "key_0123456789abcdef0123456789abcdef"
PACE = Pace(pause_s=0.02, beat_s=0.2, silence_s=1.5)


def why_not() -> str:
    """Empty when the local servers can run here."""
    return boxes.why_not()


def make_server(vendor: Vendor, *, home: str = "") -> BoxServer:
    """The vendor's server, not started yet. home: as of BoxServer."""
    # Imported here: the vendors' libraries take seconds.
    if vendor == "e2b":
        from tests.servers.e2b_server import E2bServer

        return E2bServer(api_key=KEY, home=home)
    from tests.servers.daytona_server import DaytonaServer

    return DaytonaServer(api_key=KEY, home=home)


@cache
def _started(vendor: Vendor) -> BoxServer:
    server = make_server(vendor)
    server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return server


def fresh_server(vendor: Vendor) -> Any:
    """The vendor's server, without sandboxes and faults; an E2bServer or a DaytonaServer."""
    server = _started(vendor)
    server.reset()
    return server


def connect(
    vendor: Vendor,
    server: Any,
    *,
    api_key: str = KEY,
    pace: Pace = PACE,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> RemoteProvider:
    """A provider of its own, as each worker process has one."""
    if vendor == "e2b":
        from workflow.sandboxes.e2b import E2bProvider

        chosen = SandboxSettings.model_validate({"provider": "e2b", "api_url": server.url, **(settings or {})})
        return E2bProvider(chosen, api_key=api_key, sandbox_url=server.url, home=server.home, pace=pace, **more)
    from workflow.sandboxes.daytona import DaytonaProvider

    chosen = SandboxSettings.model_validate({"provider": "daytona", "api_url": server.api_url, **(settings or {})})
    return DaytonaProvider(chosen, api_key=api_key, target="local", home=server.home, pace=pace, **more)


@asynccontextmanager
async def remote_provider(vendor: Vendor) -> AsyncIterator[RemoteProvider]:
    """A provider on a server without sandboxes."""
    server = fresh_server(vendor)
    try:
        async with connect(vendor, server) as provider:
            yield provider
    finally:
        server.reset()
