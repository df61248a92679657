"""Delivers notices to other servers: signed (Standard Webhooks), patiently, to public addresses only.

Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md
"""

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from modem.meter import WEBHOOKS, Meter
from modem.webhooks import Delivery, Outcome, Webhooks
from workflow.core.config import WebhookSettings
from workflow.core.errors import BadInput, Forbidden, Unavailable
from workflow.core.fetch import Fetched, SafeFetcher

log = logging.getLogger(__name__)

AT_ONCE = 64
PER_HOST = 8
"""One receiver that hangs must not take all places."""
POLL_S = 1.0
LEASE_MARGIN_S = 5.0
MAX_ANSWER_BYTES = 4096
"""Nothing of the answer is used but its status."""
LONGEST_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one attempt ended."""

    outcome: Outcome
    result: str = ""
    retry_after_s: float = 0.0


class Deliveries:
    """The delivering part of a worker process."""

    def __init__(self, webhooks: Webhooks, settings: WebhookSettings, *, meter: Meter | None = None) -> None:
        """settings: must hold a secret; several keys sign alongside, so that receivers can change theirs."""
        assert settings.secret is not None
        self._webhooks = webhooks
        self._settings = settings
        self._keys = [Webhook(key) for key in settings.secret.get_secret_value().split(" ")]
        self._under_way: Counter[str] = Counter()
        """Deliveries by host."""
        self._meter = meter or Meter()

    async def serve(self) -> None:
        """Delivers until cancelled; what is under way then is delivered again by another worker."""
        fetcher = SafeFetcher(
            max_bytes=MAX_ANSWER_BYTES,
            timeout_s=self._settings.timeout_s,
            allow_private=self._settings.allow_private,
        )
        async with fetcher, asyncio.TaskGroup() as group:
            while True:
                self._webhooks.news.clear()
                taken = await self._take()
                for delivery in taken:
                    group.create_task(self._carry(fetcher, delivery))
                    await asyncio.sleep(0)  # so that the next one sees this one's place taken
                if not taken:
                    await self._rest()

    async def _take(self) -> list[Delivery]:
        room = AT_ONCE - self._under_way.total()
        if room <= 0:
            return []
        try:
            return await self._webhooks.take(limit=room, lease_s=self._settings.timeout_s + LEASE_MARGIN_S)
        except Unavailable:
            log.warning("webhooks: Redis is away")
            return []

    async def _rest(self) -> None:
        """Until this process queued something or a place is free, for at most `POLL_S`: others queue as well."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._webhooks.news.wait()
        except TimeoutError:
            return

    async def _carry(self, fetcher: SafeFetcher, delivery: Delivery) -> None:
        host = urlsplit(delivery.url).hostname or ""
        if self._under_way[host] >= PER_HOST:
            await self._settle(delivery, Verdict("later"))
            return
        self._under_way[host] += 1
        try:
            verdict = await self._attempt(fetcher, delivery)
        except Exception:  # the edge of one delivery: a bug must not stop the others
            log.exception("a delivery broke", extra={"webhook_id": delivery.id})
            verdict = Verdict("again", "an internal error")
        finally:
            self._under_way[host] -= 1
            if not self._under_way[host]:
                del self._under_way[host]
        await self._settle(delivery, verdict)
        self._webhooks.news.set()

    async def _attempt(self, fetcher: SafeFetcher, delivery: Delivery) -> Verdict:
        try:
            answer = await fetcher.request("POST", delivery.url, body=delivery.body, headers=self._headers(delivery))
        except (BadInput, Forbidden) as error:
            return Verdict("dead", error.message)
        except Unavailable as error:
            return Verdict("again", error.message)
        return _judge(answer)

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        now = datetime.now(UTC)
        body = delivery.body.decode()
        return {
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(key.sign(delivery.id, now, body) for key in self._keys),
        }

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Records the verdict; without Redis the lease runs out and the notice is delivered once more."""
        outcome, tried = verdict.outcome, delivery.attempts + 1
        if outcome == "again" and tried >= self._settings.max_attempts:
            outcome = "dead"
        wait_s = random.uniform(1, 2) if outcome == "later" else self._wait_s(tried, verdict.retry_after_s)
        if outcome != "later":
            self._meter.add(WEBHOOKS, outcome)
        if outcome == "dead":
            ids = {"webhook_id": delivery.id, "host": urlsplit(delivery.url).hostname}
            log.warning("a notice was given up after %d attempts: %s", tried, verdict.result, extra=ids)
        try:
            await self._webhooks.settle(delivery, outcome, result=verdict.result, wait_s=wait_s)
        except Unavailable:
            log.warning("webhooks: Redis is away", extra={"webhook_id": delivery.id})

    def _wait_s(self, tried: int, retry_after_s: float) -> float:
        """The pause after attempt number `tried`; a receiver may ask for a longer one, up to a day."""
        waits = self._settings.waits_s
        wait_s = waits[min(tried, len(waits)) - 1] * random.uniform(1.0, 1.2)
        return min(max(wait_s, retry_after_s), LONGEST_WAIT_S)


def _judge(answer: Fetched) -> Verdict:
    """A 2xx is success; 410 asks for no more; all else, redirects included, is worth another attempt."""
    status = answer.status
    if 200 <= status < 300:
        return Verdict("delivered")
    if status == 410:
        return Verdict("dead", "HTTP 410: the receiver wants no more of these")
    note = ": redirects are not followed" if 300 <= status < 400 else ""
    asked = answer.headers.get("retry-after", "")
    return Verdict("again", f"HTTP {status}{note}", float(asked) if asked.isdecimal() and len(asked) < 9 else 0.0)
