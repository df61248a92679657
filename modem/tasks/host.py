"""The composition root of a worker process: opened once on its loop, shared by every run it carries."""

import asyncio
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modem import workers
from modem.broker import Broker
from modem.deliveries import Deliveries
from modem.doors import Passes
from modem.figures import Reporter, memory_bytes
from modem.files import FileServer
from modem.lag import LoopLag
from modem.leases import Heartbeat
from modem.links import Links
from modem.meter import Meter
from modem.pool import Connections
from modem.quotas import TenantQuota
from modem.reaper import Reaper
from modem.runs import Runs
from modem.sched import Scheduler
from modem.send import Hints
from modem.signals import listen
from modem.tasks.carrier import Carrier
from modem.tasks.door import Door
from modem.tasks.workspace import answer_file_request
from modem.threads import Threads
from modem.workspaces import Removals, installation, is_wanted
from workflow.core.config import Settings
from workflow.core.config_load import Loaded, config_hash
from workflow.core.config_reload import Follower
from workflow.core.errors import Unavailable
from workflow.core.ids import RunId, ThreadId
from workflow.core.log import set_level
from workflow.core.records import WorkerRecord
from workflow.core.tracing import open_tracing
from workflow.runner.build import Workshop, open_workshop
from workflow.runner.reload import follow_config

log = logging.getLogger(__name__)


class Host:
    """What a worker process opens, and what runs in it beside the runs."""

    def __init__(self, loaded: Loaded, *, consume: Callable[[bool], None]) -> None:
        """consume: begins or ends taking hints from the broker."""
        self._settings = loaded.settings
        self._consume = consume
        self._host, self._version = socket.gethostname(), version("dialtone")
        self.name = f"{self._host}:{os.getpid()}:{secrets.token_hex(2)}"
        self._lag = LoopLag(alarm_ms=self._settings.worker.loop_lag_alarm_ms)
        self._meter = Meter()
        self._follower = Follower(loaded)
        self._stack = AsyncExitStack()
        self._started_ms = int(time.time() * 1000)

    async def open(self) -> None:
        """Connects, opens models and sandboxes, and starts what runs beside the runs."""
        settings = self._settings
        self._connections = Connections.open(settings.redis)
        self._stack.push_async_callback(self._connections.close)
        await self._connections.check()
        hints = Hints(Broker.of(settings), self._connections.pulse)
        self._stack.callback(hints.close)
        self._scheduler = Scheduler(self._connections, limits=settings.limits, runs=settings.runs)
        runs = Runs(self._connections, self._scheduler, hints.send, meter=self._meter)
        threads = Threads(self._connections, settings, runs, self._scheduler)
        await self._open_shop(threads)
        self._open_carrier(runs)
        await self._open_door()
        for name, serve in self._services(runs, threads).items():
            self._beside(name, serve)
        log.info("worker %s: model %s, sandbox %s", self.name, self._model, self._shop.report.tier)

    async def _open_shop(self, threads: Threads) -> None:
        settings = self._settings
        quota = TenantQuota(self._connections, settings.sandbox, owner=self.name)
        self._shop: Workshop = await self._stack.enter_async_context(
            open_workshop(
                settings,
                config_hash=config_hash(settings),
                exists=partial(is_wanted, self._connections),
                # A local sandbox is on our own disk: nobody else's is there.
                installation="" if settings.sandbox.provider == "local" else await installation(self._connections),
                busy=threads.busy,
                quota=quota if quota.is_limited else None,
            )
        )
        links = Links(self._connections, template=settings.gateway.preview_template, worker=self.name)
        self._shop.services["previews"] = links
        await self._describe()

    def _open_carrier(self, runs: Runs) -> None:
        settings = self._settings
        tracing = open_tracing(settings.telemetry, component="worker", env=settings.env)
        if tracing is not None:
            self._stack.push_async_callback(asyncio.to_thread, tracing.close)
        heartbeat = Heartbeat(self._connections, lease_s=settings.runs.lease_s)
        heartbeat.start()
        self._stack.callback(heartbeat.stop)
        self.carrier = Carrier(
            self._connections,
            self._scheduler,
            runs,
            heartbeat,
            self._shop,
            settings,
            worker=self.name,
            meter=self._meter,
            tracing=tracing,
        )

    async def _open_door(self) -> None:
        worker = self._settings.worker
        self._door = Door(Passes(self._connections), self._shop.sandboxes, host=worker.door_host, port=worker.door_port)
        self._stack.push_async_callback(self._door.close)
        await self._door.open()

    def _services(self, runs: Runs, threads: Threads) -> dict[str, Callable[[], Awaitable[Any]]]:
        """What runs beside the runs, by name; what it holds open is closed with the host."""
        settings = self._settings
        sandboxes = self._shop.sandboxes
        files = FileServer(
            self._connections, partial(answer_file_request, sandboxes, partial(is_wanted, self._connections))
        )
        self._stack.push_async_callback(files.close)
        reporter = Reporter(self._connections, self._meter, process=self.name, component="worker", gauges=self._gauges)
        self._stack.push_async_callback(reporter.leave)
        services: dict[str, Callable[[], Awaitable[Any]]] = {
            "reaper": Reaper(self._connections, self._scheduler, runs, threads, settings.runs).serve,
            "signals": self._listen,
            "files": files.serve,
            "removals": Removals(self._connections, sandboxes.remove).serve,
            "announce": self._announce,
            "figures": reporter.serve,
            "lag": self._lag.serve,
            "sweep": self._sweep,
            "models": self._warm_up,
            "config": lambda: follow_config(
                self._shop, self._follower, on_models=self._describe, on_settings=self._take_settings
            ),
        }
        if settings.webhooks.enabled and settings.webhooks.secret is not None:
            services["webhooks"] = Deliveries(runs.webhooks, settings.webhooks, meter=self._meter).serve
        return services

    def _take_settings(self, settings: Settings) -> None:
        self._scheduler.limits = settings.limits
        set_level(settings.log.level)

    async def _describe(self) -> None:
        self._model = await asyncio.to_thread(self._shop.models.describe)  # it may look for a local Ollama

    def _beside(self, name: str, serve: Callable[[], Awaitable[Any]]) -> None:
        """Runs `serve` until the host closes; a bug in it is logged and it starts again."""

        async def forever() -> None:
            while True:
                try:
                    await serve()
                except Exception:  # the edge of a service: the others must go on
                    log.exception("%s broke and starts again", name)
                    await asyncio.sleep(1)

        task = asyncio.create_task(forever(), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)

    async def close(self) -> None:
        """Gives all runs back, then closes everything."""
        await self.carrier.drain()
        with suppress(Unavailable):  # the record of a worker expires by itself
            await workers.leave(self._connections, await asyncio.to_thread(self._record))
        await self._stack.aclose()

    def _gauges(self) -> dict[str, float]:
        return {
            "dialtone_runs_running": self.carrier.running,
            "dialtone_runs_capacity": 0 if self.carrier.draining else self._settings.worker.concurrency,
            "dialtone_sandboxes": self._shop.sandboxes.live,
            "dialtone_loop_lag_seconds": self._lag.worst_ms / 1000,
            "dialtone_memory_bytes": memory_bytes(),
        }

    async def _announce(self) -> None:
        while True:
            try:
                self._obey(await workers.announce(self._connections, await asyncio.to_thread(self._record)))
            except Unavailable:
                log.warning("announce: Redis is away")
            await asyncio.sleep(1)

    def _record(self) -> WorkerRecord:
        """What this process says of itself. Blocking: a network disk may take its time."""
        folder = Path(self._settings.data_dir)
        # With sandboxes at a vendor nobody may have made it.
        disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
        return WorkerRecord(
            worker=self.name,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            model=self._model,
            sandbox=self._shop.report.label,
            sandbox_gaps=self._shop.report.gaps,
            concurrency=self._settings.worker.concurrency,
            running=self.carrier.running,
            draining=self.carrier.draining,
            drained_by=self.carrier.drained_by,
            loop_lag_ms=round(self._lag.worst_ms, 1),
            memory_bytes=int(memory_bytes()),
            sandboxes=self._shop.sandboxes.live,
            disk_free_bytes=disk.free,
            disk_bytes=disk.total,
            door=self._door.address,
            started_at=self._started_ms,
            config=self._follower.state,
        )

    def _obey(self, wishes: workers.Wishes) -> None:
        """Does what operators want of this process."""
        self._follower.ask(wishes.reload)
        if wishes.drained_by != self.carrier.drained_by:
            self.carrier.drained_by = wishes.drained_by
            self._consume(not wishes.drained_by)
            log.warning("drained by %s" if wishes.drained_by else "takes runs again%s", wishes.drained_by)
        if wishes.drained_by and wishes.hand_over:
            self.carrier.hand_over()

    async def _listen(self) -> None:
        async with asyncio.TaskGroup() as group:

            def on_signal(kind: str, about: str) -> None:
                if kind == "place":
                    group.create_task(self._shop.sandboxes.yield_place([ThreadId(name) for name in about.split()]))
                else:
                    self.carrier.on_signal(kind, RunId(about))

            await listen(self._connections, on_signal)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(30)
            closed = await self._shop.sandboxes.sweep()
            if closed:
                log.info("closed %d idle sandboxes", closed)

    async def _warm_up(self) -> None:
        """Loads what the model's driver loads late, after the worker has said that it lives."""
        await self._shop.models.warm_up()
        await asyncio.Event().wait()
