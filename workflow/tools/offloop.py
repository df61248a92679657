"""Work on long texts, kept away from the event loop that hundreds of runs share."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

_LONG = 100_000
"""Characters or bytes; about a millisecond of the work that tools do per text."""


async def off_loop(size: int, work: Callable[[], R]) -> R:
    """`work()`, in a thread if it is about a text of `size` that could hold up others."""
    return work() if size < _LONG else await asyncio.to_thread(work)
