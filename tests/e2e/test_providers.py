"""Whole runs with models of the OpenAI and the Anthropic wire, through LiteLLM and through the direct driver."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from dialtone.client import AsyncClient
from dialtone.results import ModelChoice
from tests.line import Line, bash, script
from tests.servers.anthropic_server import AnthropicServer
from tests.servers.openai_server import OpenAiServer
from workflow.core.events import Delta, Message, RunFinished, ToolResulted, UsageUpdated

KEY = "sk-canary-0123456789abcdefghijklmnopqrstuv"


@dataclass
class Providers:
    """One line whose models live on two local servers, each behind both drivers."""

    line: Line
    openai: OpenAiServer
    anthropic: AnthropicServer


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with OpenAiServer(api_key=KEY) as openai, AnthropicServer(api_key=KEY) as anthropic:
        models = {
            f"{wire}-{driver}": {
                "model": f"{wire}/test-model",
                "api_base": server.base_url,
                "api_key_env": "TEST_MODEL_KEY",
                "driver": driver,
            }
            for wire, server in (("openai", openai), ("anthropic", anthropic))
            for driver in ("litellm", "direct")
        }
        line = Line(settings={"DIALTONE_LLM__MODELS": json.dumps(models), "TEST_MODEL_KEY": KEY})
        try:
            await asyncio.to_thread(line.start)
            yield Providers(line, openai, anthropic)
        finally:
            await asyncio.to_thread(line.stop)


@pytest.mark.timeout(180)
async def test_a_run_streams_and_uses_tools_through_every_driver_and_wire(providers: Providers) -> None:
    two_calls = {
        "text": "Two things at once.",
        "tool_calls": [
            {"name": "files_creation", "arguments": {"files": [{"path": "a.txt", "content": "äöü\n"}]}},
            {"name": "bash", "arguments": {"command": "echo side by side"}},
        ],
    }
    task = script(two_calls, bash("cat a.txt"), {"text": "All of it worked. ", "tokens": 40, "delay_ms": 20})
    async with AsyncClient(providers.line.url) as client:
        for model in ("openai-direct", "anthropic-direct", "openai-litellm", "anthropic-litellm"):
            items = await _play(client, task, model)
            assert isinstance(items[-1], RunFinished), (model, items[-1], providers.line.logs()[-3000:])
            assert items[-1].summary.startswith("All of it worked.")
            outputs = [item.output for item in items if isinstance(item, ToolResulted)]
            assert len(outputs) == 3
            assert "äöü" in outputs[2]
            last = [item for item in items if isinstance(item, Message)][-1]
            pieces = [item for item in items if isinstance(item, Delta) and item.item == last.item]
            assert len(pieces) > 1, f"{model} streams"
            usage = [item for item in items if isinstance(item, UsageUpdated)][-1]
            assert usage.run.output_tokens > 0
            assert usage.run.input_tokens + usage.run.cache_read_tokens + usage.run.cache_write_tokens > 0
    assert KEY not in providers.line.logs()


@pytest.mark.timeout(120)
async def test_thread_and_run_choose_who_plans_and_who_works(providers: Providers) -> None:
    task = script(bash("true"), {"text": "Done."})
    async with AsyncClient(providers.line.url) as client:
        thread_id = await client.initiate(model="openai-direct", models=ModelChoice(planning="anthropic-direct"))
        assert await _who(client, thread_id, task) == ["anthropic/test-model", "openai/test-model"]
        other = ModelChoice(planning="openai-direct")
        assert await _who(client, thread_id, task, model="anthropic-direct", models=other) == [
            "openai/test-model",
            "anthropic/test-model",
        ]
        changed = await client.update_thread(thread_id, model="anthropic-direct", models={})
        assert (changed.model, changed.models) == ("anthropic-direct", ModelChoice())
        assert await _who(client, thread_id, task) == ["anthropic/test-model"] * 2


async def _who(client: AsyncClient, thread_id: str, task: str, **execute: Any) -> list[str]:
    """The models of a run's calls, in order."""
    run = await client.execute(thread_id, task, **execute)
    async with asyncio.timeout(60):
        items = [item async for item in client.stream(thread_id, run_id=run.run_id)]
    assert isinstance(items[-1], RunFinished), items[-1]
    return [item.model for item in items if isinstance(item, UsageUpdated)]


async def _play(client: AsyncClient, task: str, model: str) -> list[Any]:
    thread_id = await client.initiate()
    run = await client.execute(thread_id, task, model=model)
    async with asyncio.timeout(60):
        return [item async for item in client.stream(thread_id, run_id=run.run_id)]
