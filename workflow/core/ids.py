"""Identifiers: how they look, how they are made, how they are checked.

A run id carries its thread id (`<thread_id>.<8 hex>`), so that a queue message needs the run id alone.
Curly braces never appear in an id: they would change the hash slot of a Redis key.
"""

import re
import secrets
from typing import NewType

TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
ThreadId = NewType("ThreadId", str)
RunId = NewType("RunId", str)
CallId = NewType("CallId", str)
"""A tool call's id as the model gave it: any printable text, stored unmodified."""
ItemId = NewType("ItemId", str)
"""Names one message while it grows; deltas and the finished event share it."""

THREAD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
RUN_ID = re.compile(r"([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{1,64})")
PREVIEW_SECRET = re.compile(r"[a-z2-7]{26}")
"""The first label of a preview's host; whoever knows it may visit."""


def new_thread_id() -> ThreadId:
    """A fresh thread id: 20 hexadecimal digits, 80 random bits."""
    return ThreadId(secrets.token_hex(10))


def new_run_id(thread_id: ThreadId) -> RunId:
    """A fresh run id inside `thread_id`."""
    return RunId(f"{thread_id}.{secrets.token_hex(4)}")


def new_item_id() -> ItemId:
    """A fresh id for a message that is about to grow."""
    return ItemId(secrets.token_hex(6))


def thread_of(run_id: RunId) -> ThreadId:
    """The thread that `run_id` belongs to. Raises: ValueError if it is no run id."""
    match = RUN_ID.fullmatch(run_id)
    if match is None:
        raise ValueError(f"not a run id: {run_id!r}")
    return ThreadId(match[1])
