"""What changed in a workspace between two moments: a page of files, each with its unified diff where it has one."""

import asyncio
import os
from dataclasses import asdict
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from workflow.sandboxes.base import FLEETING, FileDifference, FileStat, Sandbox
from workflow.sandboxes.paths import is_below, readable
from workflow.tools.diffs import EVENT_CHARS, shortened, unified
from workflow.tools.output import PRIVATE_FOLDER

MAX_BYTES = 1_000_000
"""A larger file is named, not shown."""
PAGE_CHARS = 400_000
"""A page ends when its diffs are longer than this together."""
PAGE_S = 3.0
"""A page ends when it took this long: a file may cost half a second, and whoever waits gives up after 30 s."""


async def compared(sandbox: Sandbox, request: dict[str, Any]) -> dict[str, Any]:
    """{items, total, next}: the differences after `after`, a `next` of before, at most `limit`; '' at the end.

    What tools keep for themselves is left out.
    request: `old` and `new` are snapshots; an empty one stands for the workspace as it is now.
    """
    now = "" if request["old"] and request["new"] else await sandbox.snapshot(FLEETING)
    old, new = request["old"] or now, request["new"] or now
    differences = [item for item in await sandbox.compare(old, new) if not is_below(item.path, PRIVATE_FOLDER)]
    after = os.fsdecode(unquote_to_bytes(request["after"]))
    wanted = [item for item in differences if item.path > after]
    items: list[dict[str, Any]] = []
    chars = 0
    last, deadline = "", monotonic() + PAGE_S
    for difference in wanted[: int(request["limit"])]:
        last = difference.path
        items.append(await _item(sandbox, difference, old=old, new=new))
        chars += len(items[-1]["diff"])
        if chars > PAGE_CHARS or monotonic() > deadline:
            break
    has_more = len(items) < len(wanted)
    return {"items": items, "total": len(differences), "next": quote(os.fsencode(last)) if has_more else ""}


def told(stat: FileStat) -> dict[str, Any]:
    """An entry as the reply holds it."""
    return asdict(stat) | {"path": readable(stat.path)}


async def _item(sandbox: Sandbox, difference: FileDifference, *, old: str, new: str) -> dict[str, Any]:
    was, now = difference.old, difference.new
    change = "added" if was is None else "removed" if now is None else "modified"
    item: dict[str, Any] = {
        "path": readable(difference.path),
        "change": change,
        "old": None if was is None else told(was),
        "new": None if now is None else told(now),
        "diff": "",
        "binary": False,
        "too_large": False,
    }
    files = [(stat, at) for stat, at in ((was, old), (now, new)) if stat is not None and stat.kind == "file"]
    if not files:
        return item
    if any(stat.size > MAX_BYTES for stat, _ in files):
        return item | {"too_large": True}
    before, after = await _content(sandbox, was, old), await _content(sandbox, now, new)
    texts = _text(before), _text(after)
    if texts[0] is None or texts[1] is None:
        return item | {"binary": True}
    diff = await asyncio.to_thread(unified, texts[0], texts[1], readable(difference.path))
    return item | {"diff": shortened(diff, EVENT_CHARS)}


async def _content(sandbox: Sandbox, stat: FileStat | None, snapshot: str) -> bytes:
    if stat is None or stat.kind != "file":
        return b""
    return await sandbox.read_at(snapshot, stat.path)


def _text(content: bytes) -> str | None:
    """None for a binary file."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
