"""What a gateway process holds open, put together and taken apart in one place."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gateway.auth import Authenticator
from gateway.figures import GatewayFigures
from gateway.hub import Hub
from gateway.keyring import KeyRing
from gateway.presence import Presence
from gateway.ratelimit import RateLimit
from modem.broker import Broker
from modem.buckets import Buckets
from modem.desk import Desk
from modem.doors import Doors
from modem.expiry import Expiry
from modem.files import Files
from modem.links import Links
from modem.meter import Meter
from modem.pool import Connections
from modem.quotas import TenantQuota
from modem.reaper import Reaper
from modem.runs import Runs
from modem.sched import Scheduler
from modem.send import Hints
from modem.stream import Log
from modem.threads import Threads
from modem.tickets import Tickets
from modem.versions import Versions
from modem.webhooks import Webhooks
from workflow.core.config import Settings
from workflow.core.config_load import Loaded
from workflow.core.config_reload import Follower
from workflow.core.ids import ThreadId
from workflow.core.log import set_level
from workflow.core.records import Caller
from workflow.core.tracing import Tracing, open_tracing

COMMAND_CONNECTIONS = 7
"""One event loop keeps no more busy; and for any number of browsers, Redis sees ten connections of a gateway."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a request may need."""

    settings: Settings
    connections: Connections
    hints: Hints
    threads: Threads
    files: Files
    versions: Versions
    links: Links
    doors: Doors
    log: Log
    tickets: Tickets
    webhooks: Webhooks
    auth: Authenticator
    limits: RateLimit
    hub: Hub
    reaper: Reaper
    expiry: Expiry
    requests: Counter[tuple[str, int]]
    """Requests answered so far, by method and status."""
    figures: GatewayFigures
    tracing: Tracing | None
    scheduler: Scheduler
    config: Follower
    presence: Presence
    desk: Desk

    @classmethod
    def open(cls, settings: Settings, loaded: Loaded | None = None) -> "Services":
        """Connects lazily: nothing is sent before the first request. Raises: ConfigError."""
        most = min(settings.redis.max_connections, COMMAND_CONNECTIONS)
        connections = Connections.open(settings.redis.model_copy(update={"max_connections": most}))
        hints = Hints(Broker.of(settings), connections.pulse)
        scheduler = Scheduler(connections, limits=settings.limits, runs=settings.runs)
        meter = Meter()
        runs = Runs(connections, scheduler, hints.send, meter=meter)
        threads = Threads(connections, settings, runs, scheduler)
        files = Files(connections, threads, quota=TenantQuota(connections, settings.sandbox, owner="gateway"))
        tickets = Tickets(connections)
        keys_file = Path(settings.auth.keys_file) if settings.auth.keys_file else Path(settings.data_dir) / "keys.json"
        auth = Authenticator(settings.auth, settings.gateway, keys=KeyRing(keys_file), tickets=tickets)

        async def recheck(caller: Caller, thread_id: ThreadId) -> None:
            await auth.check(caller)
            await threads.get(caller, thread_id)

        hub = Hub(
            connections,
            threads,
            settings=settings.gateway,
            auth=settings.auth,
            recheck=recheck,
            max_per_tenant=settings.limits.max_streams_per_tenant,
        )
        requests: Counter[tuple[str, int]] = Counter()
        figures = GatewayFigures(connections, meter, hub, requests)
        config = Follower(loaded or Loaded(settings, {}))
        return cls(
            settings=settings,
            connections=connections,
            hints=hints,
            threads=threads,
            files=files,
            versions=Versions(connections, threads, files),
            links=Links(connections, template=settings.gateway.preview_template),
            doors=Doors(connections),
            log=Log(connections),
            tickets=tickets,
            webhooks=runs.webhooks,
            auth=auth,
            limits=RateLimit(Buckets(connections), settings.limits),
            hub=hub,
            reaper=Reaper(connections, scheduler, runs, threads, settings.runs),
            expiry=Expiry(connections, threads, keep_days=settings.runs.keep_days),
            requests=requests,
            figures=figures,
            tracing=open_tracing(settings.telemetry, component="gateway", env=settings.env),
            scheduler=scheduler,
            config=config,
            presence=Presence(connections, figures, config),
            desk=Desk(connections, scheduler, runs),
        )

    async def follow_config(self) -> None:
        """Takes over what changes in config.toml while this process runs; never returns."""
        async for change in self.config.changes():
            settings = change.loaded.settings
            self.scheduler.limits = self.limits.settings = settings.limits
            self.hub.max_per_tenant = settings.limits.max_streams_per_tenant
            set_level(settings.log.level)
            change.report()

    async def close(self) -> None:
        """Ends streams and closes connections."""
        await self.hub.stop()
        await self.auth.close()
        self.hints.close()
        await self.files.close()
        await self.connections.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
