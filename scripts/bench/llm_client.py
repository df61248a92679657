"""One measurement of the model layer in a process of its own; prints its figures as one line of JSON."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

Client = Callable[[], Awaitable[int]]
"""Takes one stream in and gives back how many pieces of text came."""

BODY = {"model": "bench", "stream": True, "messages": [{"role": "user", "content": "go"}]}


def rss_mb() -> float:
    """Resident memory of this process."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096 / 1_000_000


async def httpx_client(base_url: str) -> tuple[Client, Callable[[], Awaitable[None]]]:
    import httpx  # noqa: PLC0415  # each measurement loads only what it measures

    session = httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None), trust_env=False)

    async def take() -> int:
        count = 0
        async with session.stream("POST", f"{base_url}/chat/completions", json=BODY) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    choices = json.loads(line[6:])["choices"]
                    count += bool(choices and choices[0]["delta"].get("content"))
        return count

    return take, session.aclose


async def aiohttp_client(base_url: str) -> tuple[Client, Callable[[], Awaitable[None]]]:
    import aiohttp  # noqa: PLC0415  # each measurement loads only what it measures

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def take() -> int:
        count = 0
        async with session.post(f"{base_url}/chat/completions", json=BODY) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                    choices = json.loads(line[6:])["choices"]
                    count += bool(choices and choices[0]["delta"].get("content"))
        return count

    return take, session.close


async def driver_client(base_url: str, driver: str) -> tuple[Client, Callable[[], Awaitable[None]]]:
    """The product's own path: a model of the configuration, behind the policy."""
    from workflow.core.config import LlmSettings, ModelSettings  # noqa: PLC0415  # each measurement loads only what it measures
    from workflow.llm.base import ModelRequest, SystemMessage, TextDelta, UserMessage  # noqa: PLC0415  # as above
    from workflow.llm.models import build_llm  # noqa: PLC0415  # as above

    model = ModelSettings.model_validate({"model": "openai/bench", "api_base": base_url, "driver": driver})
    models = build_llm(LlmSettings(default="bench", models={"bench": model}), environ={"OPENAI_API_KEY": "bench"})
    await models.warm_up()
    llm = models.get().llm
    request = ModelRequest(model="", messages=(SystemMessage("s"), UserMessage("go")))

    async def take() -> int:
        return len([piece async for piece in llm.stream(request) if isinstance(piece, TextDelta)])

    return take, models.close


async def worst_lag_ms(stop: asyncio.Event) -> float:
    """The longest time the loop kept a timer of 5 ms waiting."""
    worst = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        worst = max(worst, time.perf_counter() - before - 0.005)
    return worst * 1000


async def measure(client: str, base_url: str, streams: int) -> dict[str, float]:
    started = time.perf_counter()
    if client == "httpx":
        take, close = await httpx_client(base_url)
    elif client == "aiohttp":
        take, close = await aiohttp_client(base_url)
    else:
        take, close = await driver_client(base_url, client)
    load_s = time.perf_counter() - started
    loaded_mb = rss_mb()
    await take()  # what a first call alone pays for is not a cost of each
    stop = asyncio.Event()
    lag = asyncio.create_task(worst_lag_ms(stop))
    wall, cpu = time.perf_counter(), time.process_time()
    counts = await asyncio.gather(*(take() for _ in range(streams)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stop.set()
    figures = {
        "pieces": sum(counts),
        "wall_s": wall,
        "cpu_s": cpu,
        "us_per_piece": cpu / max(1, sum(counts)) * 1e6,
        "lag_ms": await lag,
        "load_s": load_s,
        "loaded_mb": loaded_mb,
        "peak_mb": rss_mb(),
    }
    await close()
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=["httpx", "aiohttp", "direct", "litellm"])
    parser.add_argument("base_url")
    parser.add_argument("streams", type=int)
    given = parser.parse_args()
    json.dump(asyncio.run(measure(given.client, given.base_url, given.streams)), sys.stdout)
