"""Who works: each worker process says so every second, and is gone when it stays silent."""

from modem import keys
from modem.pool import Connections, translated
from workflow.core.records import WorkerRecord

SILENT_MS = 10_000


async def announce(connections: Connections, record: WorkerRecord) -> None:
    """Says that this worker lives."""
    async with translated():
        seconds, _ = await connections.commands.time()
        pipe = connections.commands.pipeline(transaction=False)
        pipe.zadd(keys.WORKERS, {record.worker: seconds * 1000})
        pipe.set(keys.worker_record(record.worker), record.model_dump_json(), px=SILENT_MS)
        await pipe.execute()


async def leave(connections: Connections, worker: str) -> None:
    """Says that this worker goes."""
    async with translated():
        pipe = connections.commands.pipeline(transaction=False)
        pipe.zrem(keys.WORKERS, worker)
        pipe.delete(keys.worker_record(worker))
        await pipe.execute()


async def workers(connections: Connections) -> list[WorkerRecord]:
    """The workers that live, by name."""
    async with translated():
        seconds, _ = await connections.commands.time()
        await connections.commands.zremrangebyscore(keys.WORKERS, "-inf", seconds * 1000 - SILENT_MS)
        names = await connections.commands.zrange(keys.WORKERS, 0, -1)
        records = (
            await connections.commands.mget([keys.worker_record(name.decode()) for name in names]) if names else []
        )
    return [WorkerRecord.model_validate_json(record) for record in records if record]
