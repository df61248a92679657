"""Pages of what is kept by time, newest first. Their cursors hold while items come and go."""

import re
from typing import Any

from workflow.core.errors import BadInput

_PLACE = re.compile(r"([0-9]{1,15}):([\x21-\x7e]{1,100})")
_COUNT = re.compile(r"[0-9]{1,15}")


def cursor_of(time_ms: float, name: str) -> str:
    """The place right behind an item."""
    return f"{time_ms:.0f}:{name}"


async def rank_after(redis: Any, index: str, cursor: str) -> int:
    """How many items of the sorted set `index`, newest first, are before the place `cursor` ('' for its beginning).

    The item that the cursor was made of may be gone. Raises: BadInput for what is no cursor.
    """
    if not cursor:
        return 0
    place = _PLACE.fullmatch(cursor)
    if place is None:
        raise _no_cursor()
    pipe = redis.pipeline(transaction=True)
    pipe.zcount(index, f"({place[1]}", "+inf")
    pipe.zrangebyscore(index, place[1], place[1])
    newer, same = await pipe.execute()
    last: bytes = place[2].encode()
    return int(newer) + sum(1 for name in same if name >= last)


def count_before(cursor: str, total: int) -> int:
    """How many items of a list that only grows, oldest first, a page may still show. Raises: BadInput as above."""
    if not cursor:
        return total
    if _COUNT.fullmatch(cursor) is None:
        raise _no_cursor()
    return min(int(cursor), total)


def _no_cursor() -> BadInput:
    return BadInput("not a cursor; give the `next_cursor` of the page before, or none for the first page")
