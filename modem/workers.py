"""Who works: each process says so every second, hears what operators want of it, and is gone when it is silent."""

import json
from dataclasses import dataclass
from typing import TypeVar

from modem import keys
from modem.pool import Connections, translated
from workflow.core.errors import NotFound
from workflow.core.records import GatewayRecord, WorkerRecord

SILENT_MS = 10_000
WISH_S = 3600
"""A wish for a worker outlives its silence by this: a worker that comes back after a long pause still obeys."""

P = TypeVar("P", WorkerRecord, GatewayRecord)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What operators want of a process."""

    reload: int = 0
    """Number of the newest reload that was asked for; 0 none."""
    drained_by: str = ""
    """Who drains it; empty: nobody."""
    hand_over: bool = False
    """Its runs go on elsewhere now, instead of ending here."""


async def announce(connections: Connections, record: WorkerRecord | GatewayRecord) -> Wishes:
    """Says that this process lives; gives back what is wanted of it. Raises: Unavailable."""
    index, name, key = _place(record)
    now_ms = await connections.now_ms()
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.zadd(index, {name: now_ms})
        pipe.set(key, record.model_dump_json(), px=SILENT_MS)
        pipe.get(keys.RELOAD)
        pipe.getex(keys.drain(name), ex=WISH_S)
        _, _, reload, drain = await pipe.execute()
    wish = json.loads(drain) if drain else {}
    return Wishes(int(reload or 0), wish.get("by", ""), wish.get("hand_over", False))


async def leave(connections: Connections, record: WorkerRecord | GatewayRecord) -> None:
    """Says that this process goes. Raises: Unavailable."""
    index, name, key = _place(record)
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.zrem(index, name)
        pipe.delete(key, keys.drain(name))
        await pipe.execute()


async def workers(connections: Connections) -> list[WorkerRecord]:
    """The workers that live, by name. Raises: Unavailable."""
    return await _living(connections, keys.WORKERS, WorkerRecord)


async def gateways(connections: Connections) -> list[GatewayRecord]:
    """The gateway processes that live, by name. Raises: Unavailable."""
    return await _living(connections, keys.GATEWAYS, GatewayRecord)


async def drain(connections: Connections, worker: str, *, by: str, hand_over: bool) -> None:
    """Wants a worker to take no more runs. Raises: NotFound if none of that name lives; Unavailable."""
    await _check_lives(connections, worker)
    async with translated():
        await connections.commands.set(keys.drain(worker), json.dumps({"by": by, "hand_over": hand_over}), ex=WISH_S)


async def undrain(connections: Connections, worker: str) -> None:
    """Lets a worker take runs again. Raises: NotFound if none of that name lives; Unavailable."""
    await _check_lives(connections, worker)
    async with translated():
        await connections.commands.delete(keys.drain(worker))


async def ask_reload(connections: Connections) -> int:
    """Wants every process to read its configuration again; the number by which each says that it did."""
    async with translated():
        return int(await connections.commands.incr(keys.RELOAD))


async def _check_lives(connections: Connections, worker: str) -> None:
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.zscore(keys.WORKERS, worker)  # a gateway has a record as well
        pipe.exists(keys.worker_record(worker))
        if not all(await pipe.execute()):
            raise NotFound(f"no worker {worker} is alive")


def _place(record: WorkerRecord | GatewayRecord) -> tuple[str, str, str]:
    """Index, name and key of a process's record."""
    if isinstance(record, WorkerRecord):
        return keys.WORKERS, record.worker, keys.worker_record(record.worker)
    return keys.GATEWAYS, record.gateway, keys.worker_record(record.gateway)


async def _living(connections: Connections, index: str, kind: type[P]) -> list[P]:
    now_ms = await connections.now_ms()
    async with translated():
        await connections.commands.zremrangebyscore(index, "-inf", now_ms - SILENT_MS)
        names = await connections.commands.zrange(index, 0, -1)
        records = await connections.commands.mget([keys.worker_record(n.decode()) for n in names]) if names else []
    return [kind.model_validate_json(record) for record in records if record]
