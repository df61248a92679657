"""Changes of a folder, found by comparing scans.

Compared, not notified: inotify watchers follow the symlinks a sandboxed command plants, out of the workspace.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from time import monotonic

from workflow.sandboxes.base import FileStat

Scan = Callable[[], Awaitable[list[FileStat]]]


async def changes(scan: Scan, *, interval_s: float = 0.25) -> AsyncIterator[FileStat]:
    """Each entry that was created or changed since the call began, and (size -1) each that is gone.

    Waits `interval_s` between scans, and nine times the scan's own duration when that is more, so that a
    huge workspace costs at most a tenth of a core.
    """
    known = {stat.path: stat for stat in await scan()}
    while True:
        started = monotonic()
        found = {stat.path: stat for stat in await scan()}
        for path, stat in found.items():
            if known.get(path) != stat and (stat.kind != "dir" or path not in known):
                yield stat
        for path, stat in known.items():
            if path not in found:
                yield replace(stat, size=-1)
        known = found
        await asyncio.sleep(max(interval_s, 9 * (monotonic() - started)))
