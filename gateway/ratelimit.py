"""Rate limits per caller and class of request, for some routes also per route, told in `RateLimit` header fields.

Redis away is a decision, not an accident: reads go through uncounted, executes are refused (503), since they
could not be recorded anyway. Source: draft-ietf-httpapi-ratelimit-headers
"""

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modem import keys
from modem.buckets import Buckets, Spent
from workflow.core.config import LimitSettings
from workflow.core.errors import ConfigError, LimitExceeded, Unavailable
from workflow.core.records import Caller

_log = logging.getLogger(__name__)

Kind = Literal["requests", "executes"]


@dataclass(slots=True)
class RateLimit:
    """Limits of all callers. One caller is one credential's user in its tenant."""

    buckets: Buckets
    settings: LimitSettings
    """May be replaced while it works."""

    async def spend(self, caller: Caller, kind: Kind, route: str, state: dict[str, Any]) -> None:
        """Counts one request to `route` (`GET /api/agent`); `state["headers"]` gets what the response is to say.

        Raises: LimitExceeded, or Unavailable for an execute while Redis is away.
        """
        rate = self.settings.executes_per_minute if kind == "executes" else self.settings.requests_per_minute
        told: list[tuple[str, int, Spent]] = []
        # The narrower first: what it refuses costs nothing of the other.
        for name, per_minute in ((route, self.settings.routes.get(route, 0)), (kind, rate)):
            if per_minute == 0:
                continue
            try:
                spent = await self.buckets.take(
                    keys.bucket(name, f"{caller.tenant}:{caller.user}"), per_minute=per_minute
                )
            except Unavailable:
                if kind == "executes":
                    raise
                _log.warning("rate not counted: Redis does not answer")
                return
            told.append((name, per_minute, spent))
            state["headers"] = _headers(told)
            if not spent.is_allowed:
                what = kind if name == kind else f"requests to {route}"
                raise LimitExceeded(
                    f"more than {per_minute} {what} a minute", retry_after_s=spent.retry_ms / 1000, limit=per_minute
                )


def check_routes(settings: LimitSettings, document: Mapping[str, Any]) -> None:
    """Raises: ConfigError for a rate of a route that the OpenAPI document does not have."""
    known = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    for route in settings.routes:
        if route not in known:
            near = difflib.get_close_matches(route, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see /docs"
            raise ConfigError(f"limits.routes: there is no {route!r}{hint}")


def _headers(told: Sequence[tuple[str, int, Spent]]) -> list[tuple[bytes, bytes]]:
    policy = ", ".join(f'"{name}";q={per_minute};w=60' for name, per_minute, _ in told)
    state = ", ".join(f'"{name}";r={spent.left};t={math.ceil(spent.reset_ms / 1000)}' for name, _, spent in told)
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]
