"""Waiting for something that has no event to wait on (another process's state), bounded and without long sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.02


async def until(look: Callable[[], Awaitable[T]], *, timeout_s: float = 10.0, what: str = "it") -> T:
    """The first truthy answer of `look`. Raises: AssertionError with the last answer after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}; last seen: {answer!r}"
        await asyncio.sleep(PAUSE_S)


def until_sync(look: Callable[[], T], *, timeout_s: float = 10.0, what: str = "it") -> T:
    """The same for code without a loop."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}; last seen: {answer!r}"
        time.sleep(PAUSE_S)
