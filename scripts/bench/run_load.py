"""Clients of a whole line: each starts one run and watches it to its end, or only starts it."""

import asyncio
import re
import time
from dataclasses import dataclass

import aiohttp

_TYPE = re.compile(rb'"type": ?"([a-z._]+)"')
_AT_ONCE = 50
"""Requests under way at once; more would measure the accept queue."""


@dataclass(slots=True)
class Watched:
    """What one client saw. Seconds since its request."""

    first_s: float = 0.0
    """The first event that says that a worker has the run."""
    ended_s: float = 0.0
    deltas: int = 0
    facts: int = 0
    end: str = ""
    """Type of the terminal event; `broken` when the stream ended without one."""


async def watch_all(url: str, count: int, *, timeout_s: float) -> list[Watched]:
    """Starts `count` runs at once and watches each by SSE to its end."""
    async with _session(timeout_s) as session:
        return await asyncio.gather(*(_watch(session, url, number) for number in range(count)))


async def start_all(url: str, count: int, *, timeout_s: float) -> None:
    """Starts `count` runs and leaves them alone."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with slots:
            await _start(session, url, number)

    async with _session(timeout_s) as session:
        await asyncio.gather(*(one(number) for number in range(count)))


def _session(timeout_s: float) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, raise_for_status=True)


async def _start(session: aiohttp.ClientSession, url: str, number: int) -> str:
    async with session.post(f"{url}/api/agent/initiate", json={}) as answer:
        thread_id = (await answer.json())["thread_id"]
    body = {"task": f"bench-{number}- Do the steps, one after the other."}
    async with session.post(f"{url}/api/agent/{thread_id}/execute", json=body) as answer:
        stream_url: str = (await answer.json())["stream_url"]
    return f"{url}{stream_url}"


async def _watch(session: aiohttp.ClientSession, url: str, number: int) -> Watched:
    seen, began = Watched(), time.monotonic()
    try:
        async with session.get(await _start(session, url, number)) as stream:
            async for line in stream.content:
                found = _TYPE.search(line) if line.startswith(b"data:") else None
                if found is not None and _note(seen, found[1].decode(), time.monotonic() - began):
                    break
    except (aiohttp.ClientError, TimeoutError):
        seen.end = "broken"
    seen.ended_s = time.monotonic() - began
    return seen


def _note(seen: Watched, kind: str, at_s: float) -> bool:
    """Counts one event; True at the last."""
    seen.deltas += kind == "delta"
    seen.facts += kind != "delta"
    if kind == "run.started":
        seen.first_s = at_s
    if kind in {"run.finished", "run.failed", "run.cancelled"}:
        seen.end = kind
    return bool(seen.end)
