"""The gateway's `GET /health`, asked over a bare socket: no HTTP client is worth importing for one answer."""

import asyncio
import json
from contextlib import suppress
from typing import Any

Health = dict[str, Any]


async def get_health(host: str, port: int, *, timeout_s: float = 3.0) -> tuple[int, Health]:
    """(status, body) of the gateway; (0, {}) when it does not answer."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(host, port)
    except (OSError, TimeoutError, ValueError):
        return 0, {}


async def _get(host: str, port: int) -> tuple[int, Health]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /health HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        answer = json.loads(body)
        return int(head.split(maxsplit=2)[1]), answer if isinstance(answer, dict) else {}
    except IndexError:
        return 0, {}
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def base_url(host: str, port: int) -> str:
    """`http://host:port` of a gateway that listens on `host`."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def banner(health: Health, *, url: str, redis: str, data_dir: str) -> list[str]:
    """What a person wants to know once the stack is up."""
    rows = [
        ("console", f"{url}/"),
        ("API docs", f"{url}/docs"),
        ("model", health.get("model", "")),
        ("sandbox", sandbox(health)),
        ("redis", redis),
        ("data", data_dir),
    ]
    version = health.get("version", "")
    lines = [f"Dialtone {version} is ready".replace("  ", " ")]
    lines += [f"  {name:<9} {text}" for name, text in rows if text]
    return ["", *lines, "  Ctrl-C stops everything", ""]


def sandbox(health: Health) -> str:
    """Which tier commands run in; where none holds, what to do about it."""
    tier = str(health.get("sandbox", ""))
    return f"{tier}: no tier holds, commands are refused; ./run.sh sandbox check says why" if "T3" in tier else tier
