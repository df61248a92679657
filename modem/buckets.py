"""Rate limits: a token bucket per caller and kind of request, on the Redis server's clock."""

from dataclasses import dataclass
from importlib.resources import files

from modem.pool import Connections, translated

PERIOD_MS = 60_000
"""Limits are per minute; a full bucket may be spent at once."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a bucket said. Times are in milliseconds."""

    is_allowed: bool
    left: int
    retry_ms: int
    """Until the same request would be allowed."""
    reset_ms: int
    """Until the bucket is full again."""


class Buckets:
    """The buckets of all callers."""

    def __init__(self, connections: Connections) -> None:
        source = (files("modem") / "lua" / "bucket.lua").read_text()
        self._take = connections.commands.register_script(source)

    async def take(self, key: str, *, per_minute: int, cost: int = 1) -> Spent:
        """Takes `cost` tokens, or none when there are too few. Raises: Unavailable."""
        async with translated():
            allowed, left, retry_ms, reset_ms = await self._take(keys=[key], args=[per_minute, PERIOD_MS, cost])
        return Spent(bool(allowed), left, retry_ms, reset_ms)
