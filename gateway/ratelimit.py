"""Rate limits per caller and class of request, told in `RateLimit` header fields.

Redis away is a decision, not an accident: reads go through uncounted, executes are refused (503), since they
could not be recorded anyway. Source: draft-ietf-httpapi-ratelimit-headers
"""

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

from modem import keys
from modem.buckets import Buckets, Spent
from workflow.core.config import LimitSettings
from workflow.core.errors import LimitExceeded, Unavailable
from workflow.core.records import Caller

_log = logging.getLogger(__name__)

Kind = Literal["requests", "executes"]


@dataclass(slots=True)
class RateLimit:
    """Limits of all callers. One caller is one credential's user in its tenant."""

    buckets: Buckets
    settings: LimitSettings
    """May be replaced while it works."""

    async def spend(self, caller: Caller, kind: Kind, state: dict[str, Any]) -> None:
        """Counts one request; `state["headers"]` gets what the response is to say.

        Raises: LimitExceeded, or Unavailable for an execute while Redis is away.
        """
        per_minute = self.settings.executes_per_minute if kind == "executes" else self.settings.requests_per_minute
        if per_minute == 0:
            return
        try:
            spent = await self.buckets.take(keys.bucket(kind, f"{caller.tenant}:{caller.user}"), per_minute=per_minute)
        except Unavailable:
            if kind == "executes":
                raise
            _log.warning("rate not counted: Redis does not answer")
            return
        state["headers"] = _headers(kind, per_minute, spent)
        if not spent.is_allowed:
            raise LimitExceeded(
                f"more than {per_minute} {kind} a minute", retry_after_s=spent.retry_ms / 1000, limit=per_minute
            )


def _headers(kind: Kind, per_minute: int, spent: Spent) -> list[tuple[bytes, bytes]]:
    policy = f'"{kind}";q={per_minute};w=60'
    state = f'"{kind}";r={spent.left};t={math.ceil(spent.reset_ms / 1000)}'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]
