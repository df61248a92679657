"""When to try again and how long to wait first. Pure: no clock, no network."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say "later": the request may be sent again once it is safe to repeat."""

REFUSED_STATUSES = frozenset({429})
"""Answers that promise nothing was done: any request may be sent again. 503 does not: a Redis that stalled may have
done what was asked before."""

MAX_PAUSE_S = 60.0


def backoff_s(
    attempt: int,
    *,
    base_s: float,
    max_s: float = 30.0,
    retry_after_s: float | None = None,
    jitter: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait before try number `attempt` + 1, where `attempt` counts from 0.

    Doubles from `base_s` to `max_s` and takes 50..100 % of it, so that clients cut off together come back apart.
    `retry_after_s` is never undercut, but no wait is longer than MAX_PAUSE_S.
    """
    pause_s = min(base_s * 2.0 ** min(attempt, 20), max_s) * (0.5 + 0.5 * jitter())
    if retry_after_s is not None:
        pause_s = retry_after_s + pause_s * 0.1
    return min(pause_s, MAX_PAUSE_S)


def read_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """The seconds of a `Retry-After` header, given as a number or as a date; None if there is none to read."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
