"""Changes of a folder in a remote sandbox: scans compared, each begun when the vendor says that something changed.

Where the vendor cannot tell, scans follow each other in time.
"""

import asyncio
import logging
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from time import monotonic

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.base import FileStat
from workflow.sandboxes.machines import Asleep
from workflow.sandboxes.remote_answers import ROWS
from workflow.sandboxes.remote_line import Line

log = logging.getLogger(__name__)

POLL_S = 0.5
SETTLE_S = 0.05
"""Changes come in bursts; one scan serves all that come within this."""
DEPTH = 100


async def changes(line: Line, path: str, *, limit: int) -> AsyncIterator[FileStat]:
    """Each entry that was created or changed since the first step, and (size -1) each that is gone.

    Watching does not count as use: a sandbox that is put away ends the watch with SandboxError.
    """
    signals = await _signals(line, path)
    try:
        started = monotonic()
        known = await _scan(line, path, limit)
        while True:
            signals = await _wait(signals, max(POLL_S, 2 * (monotonic() - started)))
            started = monotonic()
            found = await _scan(line, path, limit)
            for place, stat in found.items():
                if known.get(place) != stat and (stat.kind != "dir" or place not in known):
                    yield stat
            for place, stat in known.items():
                if place not in found:
                    yield replace(stat, size=-1)
            known = found
    finally:
        if signals is not None:
            await signals.aclose()


async def _wait(signals: AsyncGenerator[None, None] | None, pause_s: float) -> AsyncGenerator[None, None] | None:
    """Until the next scan is due; gives the signals back, or None when they came to an end. Raises: Asleep."""
    if signals is None:
        await asyncio.sleep(pause_s)
        return None
    try:
        await anext(signals)
    except Asleep:  # another scan would wake it
        raise
    except (StopAsyncIteration, SandboxError):
        return None
    await asyncio.sleep(SETTLE_S)
    return signals


async def _signals(line: Line, path: str) -> AsyncGenerator[None, None] | None:
    """What says that something changed, already listening; None where there is no such thing."""
    machine = await line.reach()
    signals = machine.changes(posixpath.normpath(f"{line.home.workdir}/{path}"))
    if signals is None:
        return None
    try:
        await anext(signals)
    except (StopAsyncIteration, SandboxError) as error:
        log.info("changes of sandbox %s are polled: %s", machine.id, error)
        return None
    return signals


async def _scan(line: Line, path: str, limit: int) -> dict[str, FileStat]:
    try:
        rows = await line.peek("list", ROWS, path=path, depth=DEPTH, limit=limit)
    except ToolError as error:
        if error.kind != "file_missing":
            raise
        return {}  # it may come
    return {stat.path: stat for stat in (FileStat(*row) for row in rows)}
