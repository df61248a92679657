"""The queue of hints as kombu reaches it: Celery's workers read it, `modem.send` writes it."""

from dataclasses import dataclass
from typing import Any

from modem.pool import broker_url
from workflow.core.config import Settings

RUN_TASK = "dialtone.run"
"""Celery's name of the one task."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What a kombu connection is made of."""

    url: str
    options: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings) -> "Broker":
        url = broker_url(settings.redis)
        options: dict[str, Any] = {
            "visibility_timeout": int(settings.worker.visibility_timeout_s),
            "socket_keepalive": True,
            "health_check_interval": 25,
            "socket_connect_timeout": settings.redis.timeout_s,
        }
        if url.startswith("unix://"):
            url = "redis+socket://" + url.removeprefix("unix://")
        if url.startswith("sentinel://"):
            options["master_name"] = settings.redis.sentinel_service
        return cls(url, options)
