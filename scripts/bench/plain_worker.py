"""What one would write first: a Celery prefork worker whose task is an agent loop under `asyncio.run`, with LiteLLM.

A subject of `runs.py`: `celery -A scripts.bench.plain_worker worker`. PLAIN_REDIS and PLAIN_MODEL name Redis and the
model server, PLAIN_READY the key that it sets when it can work. It keeps its messages in memory, writes each token to
the thread's stream, and survives nothing.
"""

import asyncio
import json
import os
from typing import Any

import litellm
import redis.asyncio
from celery import Celery
from celery.signals import worker_ready

app = Celery("plain", broker=os.environ["PLAIN_REDIS"])
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1

_BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Runs a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}


@worker_ready.connect  # type: ignore[untyped-decorator]  # celery ships no types
def _say_ready(**_: Any) -> None:
    with redis.Redis.from_url(_redis_url()) as client:
        client.set(os.environ["PLAIN_READY"], 1)


@app.task(name="plain.run")  # type: ignore[untyped-decorator]  # celery ships no types
def run(thread_id: str, task: str) -> None:
    """Carries one run in this process, which does nothing else meanwhile."""
    asyncio.run(_run(thread_id, task))


async def _run(thread_id: str, task: str) -> None:
    client = redis.asyncio.Redis.from_url(_redis_url())
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]

    async def say(**event: Any) -> None:
        await client.xadd(f"thread:{{{thread_id}}}:stream", {"e": json.dumps(event)})

    await say(type="run.started")
    while True:
        stream = await litellm.acompletion(
            model="openai/bench", api_base=os.environ["PLAIN_MODEL"], api_key="bench",
            messages=messages, tools=[_BASH], stream=True,
        )  # fmt: skip
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            if text := chunk.choices[0].delta.content:
                await say(type="delta", text=text)
        answer: Any = litellm.stream_chunk_builder(chunks, messages=messages)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        await say(type="message", text=message.content)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            command = json.loads(call.function.arguments)["command"]
            process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output.decode()})
            await say(type="tool.result", call=call.id, output=output.decode())
    await say(type="run.finished")
    await client.aclose()


def _redis_url() -> str:
    return os.environ["PLAIN_REDIS"].replace("redis+socket://", "unix://")
