"""The plain line's gateway: `plain_sse.py` with the two routes that start a run.

A subject of `runs.py`: `python -m scripts.bench.plain_gateway <port> <redis url>`.
"""

import asyncio
import secrets
import sys
from typing import Any

import uvicorn
from celery import Celery
from fastapi import FastAPI

from scripts.bench.plain_sse import make_app


def with_runs(url: str) -> FastAPI:
    """The app; tasks go to the worker of `plain_worker.py`, which is not imported (LiteLLM would come along)."""
    app = make_app(url)
    queue = Celery("plain", broker=url.replace("unix://", "redis+socket://"))

    @app.post("/api/agent/initiate")
    async def initiate() -> dict[str, str]:
        return {"thread_id": secrets.token_hex(10)}

    @app.post("/api/agent/{thread_id}/execute", status_code=202)
    async def execute(thread_id: str, body: dict[str, Any]) -> dict[str, str]:
        await asyncio.to_thread(queue.send_task, "plain.run", args=[thread_id, body["task"]], ignore_result=True)
        return {"stream_url": f"/api/agent/{thread_id}/stream"}

    return app


if __name__ == "__main__":
    uvicorn.run(with_runs(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
