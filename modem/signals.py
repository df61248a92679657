"""The fast path from a caller to a worker that holds a run or a sandbox: a hint, whose loss costs a moment."""

import asyncio
import logging
from collections.abc import Callable

from modem import keys
from modem.pool import Connections, translated
from workflow.core.errors import Unavailable
from workflow.core.ids import RunId

log = logging.getLogger(__name__)


async def send_signal(connections: Connections, kind: str, run_id: RunId) -> None:
    """Tells all workers `cancel`, `release` or `news` of a run."""
    async with translated():
        await connections.commands.publish(keys.SIGNALS, f"{kind}|{run_id}")


async def listen(connections: Connections, on_signal: Callable[[str, str], None]) -> None:
    """Hands every signal, its kind and what it is about, to `on_signal` until cancelled.

    Comes back by itself when Redis was away.
    """
    while True:
        try:
            client = connections.pubsub_client()
            async with client, client.pubsub() as pubsub, translated():
                await pubsub.subscribe(keys.SIGNALS)
                async for message in pubsub.listen():
                    if message["type"] == "message":
                        kind, _, about = message["data"].decode().partition("|")
                        on_signal(kind, about)
        except Unavailable:
            log.warning("signals: Redis is away; cancels arrive with the heartbeat until it is back")
            await asyncio.sleep(0.5)
