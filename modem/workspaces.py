"""Tells the workers that a workspace is not needed any more."""

import json
import secrets

from modem import keys
from modem.pool import Connections, translated
from workflow.core.ids import ThreadId

KEPT_S = 7 * 86_400
"""How long the word waits for a worker."""


async def give_up(connections: Connections, thread_id: ThreadId) -> None:
    """Has some worker delete the thread's sandbox and files. Raises: Unavailable."""
    request_id = secrets.token_hex(8)
    async with translated():
        await connections.commands.set(keys.file_body(request_id), b"", ex=KEPT_S)
        asked = json.dumps({"op": "forget", "id": request_id, "thread_id": thread_id})
        await connections.commands.rpush(keys.FILE_REQUESTS, asked)
