"""The stack as a context: everything runs inside the block, nothing is left after it."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from scripts.stack import embedded_redis
from scripts.stack.health import Health, base_url, get_health, reachable
from scripts.stack.output import Output
from scripts.stack.plan import Plan, environment, gateways, workers
from scripts.stack.preflight import check_data_dir, check_port, watch_disk
from scripts.stack.supervisor import Backoff, StackError, Supervisor

T = TypeVar("T")

READY_TIMEOUT_S = 90.0
GATEWAY_LEAD_S = 1.0
"""A stopping gateway has this long to itself; then the workers are told as well."""


class Stopped(Exception):
    """Somebody asked the stack to stop."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack whose parts have been started."""

    supervisor: Supervisor
    plan: Plan
    redis: str
    """Which Redis, in words."""
    stop: asyncio.Event

    @property
    def url(self) -> str:
        gateway = self.plan.loaded.settings.gateway
        return base_url(gateway.host, gateway.port)

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises: Stopped or StackError when that happens first."""
        return await unless_stopped(work, self.stop, self.supervisor)

    async def ready(self, output: Output) -> Health:
        """What /health says, once our parts can serve (`{}` without a gateway). Raises: Stopped, StackError."""
        health = await self.unless_stopped(self._ready(output))
        self.supervisor.is_ready = True
        return health

    async def _ready(self, output: Output) -> Health:
        if not self.plan.gateway:
            await asyncio.sleep(3)  # a worker that cannot work ends by itself before
            return {}
        clock = asyncio.get_running_loop()
        started = told = clock.time()
        gateway = self.plan.loaded.settings.gateway
        while True:
            status, health = await get_health(reachable(gateway.host), gateway.port)
            # `degraded` is a gateway without a worker: good enough only where the worker is not ours to start.
            if status == 200 and (health.get("status") == "ok" or not self.plan.worker):
                return health
            now = clock.time()
            reason = _reason(status, health)
            if now - started > READY_TIMEOUT_S:
                raise StackError(f"not ready after {READY_TIMEOUT_S:g} s: {reason}")
            if now - told > 10:
                told = now
                output.say(f"still starting: {reason}", level="WARNING")
            await asyncio.sleep(0.1)


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event, supervisor: Supervisor) -> T:
    """The result of `work`. Raises: Stopped when `stop` is set first, StackError when a part cannot run."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping, supervisor.failed}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if supervisor.failed.done():
            raise StackError(supervisor.failed.result())
        raise Stopped
    finally:
        for waiting in (task, stopping):
            waiting.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


@asynccontextmanager
async def running(
    plan: Plan, output: Output, *, stop: asyncio.Event, backoff: Backoff | None = None
) -> AsyncIterator[Stack]:
    """Starts the stack and ends it again: gateway, then worker, then Redis. Raises: StackError, Stopped."""
    settings = plan.loaded.settings
    for warning in check_data_dir(plan.data_dir):
        output.say(warning, level="WARNING")
    if plan.gateway:
        check_port(settings.gateway.host, settings.gateway.port)
    async with (
        Supervisor(output, backoff=backoff) as supervisor,
        _redis(plan, output, supervisor, stop) as (url, redis),
    ):
        env = environment(plan, redis_url=url, as_json=output.as_json)
        front, back = gateways(plan, env), workers(plan, env)
        for part in (*front, *back):
            supervisor.start(part)
        watching = asyncio.create_task(watch_disk(plan.data_dir, partial(output.say, level="ERROR")))
        try:
            yield Stack(supervisor, plan, redis, stop)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await _stop(supervisor, [part.name for part in front], [part.name for part in back])


@asynccontextmanager
async def _redis(
    plan: Plan, output: Output, supervisor: Supervisor, stop: asyncio.Event
) -> AsyncIterator[tuple[str, str]]:
    """The URL of the Redis to use, and which it is in words; starts our own when none is configured."""
    settings = plan.loaded.settings.redis
    if settings.url:
        # Here and not above: only an external server needs redis-py in this process.
        from scripts.stack import external_redis  # noqa: PLC0415

        version, warnings = await asyncio.to_thread(external_redis.check, settings)
        for warning in warnings:
            output.say(warning, level="WARNING")
        yield settings.url, f"external, version {version}"
        return
    if not (plan.gateway and plan.worker):
        raise StackError("one part alone needs a Redis that outlives it: set REDIS_URL, or start all with ./run.sh")
    server = await asyncio.to_thread(embedded_redis.prepare, plan.data_dir, settings)
    try:
        supervisor.start(server.part)
        await unless_stopped(embedded_redis.wait_until_it_answers(server, supervisor), stop, supervisor)
        yield server.url, f"embedded, version {server.version}"
    finally:
        await supervisor.stop([server.part.name])
        os.close(server.lock)


async def _stop(supervisor: Supervisor, front: list[str], back: list[str]) -> None:
    closing = asyncio.ensure_future(supervisor.stop(front))
    await asyncio.wait({closing}, timeout=GATEWAY_LEAD_S)
    await asyncio.gather(closing, supervisor.stop(back))


def _reason(status: int, health: Health) -> str:
    if status == 0:
        return "the gateway does not answer yet"
    if health.get("status") == "degraded":
        return "the worker does not answer yet"
    redis = health.get("redis")
    problem = redis.get("problem", "") if isinstance(redis, dict) else ""
    return f"the gateway answers {status} {problem}".rstrip()
