"""What one would write first: FastAPI with sse-starlette and a blocking XREAD on a connection of its own per client.

A subject of `stream.py`; runs as a program of its own: `python -m scripts.bench.plain_sse <port> <redis url>`.
"""

import sys
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio
import uvicorn
from fastapi import FastAPI
from sse_starlette import EventSourceResponse, ServerSentEvent


def make_app(url: str) -> FastAPI:
    app = FastAPI()

    @app.get("/api/agent/{thread_id}/stream")
    async def stream(thread_id: str) -> EventSourceResponse:
        return EventSourceResponse(follow(url, f"thread:{{{thread_id}}}:stream"), ping=15)

    return app


async def follow(url: str, key: str) -> AsyncIterator[ServerSentEvent]:
    """The log from its beginning, for ever."""
    client = redis.asyncio.Redis.from_url(url, socket_timeout=None)
    last = "0-0"
    try:
        while True:
            found: Any = await client.xread({key: last}, block=15_000)
            for _, entries in found or []:
                for entry_id, fields in entries:
                    last = entry_id.decode()
                    yield ServerSentEvent(fields[b"e"].decode(), id=last, event="task_agent_execute")
    finally:
        await client.aclose()


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
