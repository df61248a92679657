"""The ways to a model: each driver over each wire that it is used for, against a local server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tests.servers.anthropic_server import AnthropicServer
from tests.servers.base import ModelServer, Script
from tests.servers.openai_server import OpenAiServer
from tests.servers.responses_server import ResponsesServer
from workflow.llm.anthropic_wire import AnthropicWire
from workflow.llm.base import LLM
from workflow.llm.direct import DirectLLM
from workflow.llm.litellm import LiteLLM
from workflow.llm.openai_wire import OpenAiWire
from workflow.llm.responses_wire import ResponsesWire
from workflow.llm.wire import Target, Wire

KEY = "sk-test-0123456789abcdef0123456789"

Connect = Callable[..., Awaitable["Line"]]


@dataclass(frozen=True, slots=True)
class Line:
    """A driver connected to a server."""

    driver: str
    wire: str
    model: str
    server: ModelServer
    llm: LLM


SERVERS: dict[str, type[OpenAiServer] | type[AnthropicServer] | type[ResponsesServer]] = {
    "openai": OpenAiServer,
    "anthropic": AnthropicServer,
    "responses": ResponsesServer,
}
WIRES: dict[str, Wire] = {"openai": OpenAiWire(), "anthropic": AnthropicWire(), "responses": ResponsesWire()}
MODELS = {
    "openai": "openai/gpt-test",
    "anthropic": "anthropic/claude-sonnet-5-5",
    "responses": "openai/responses/gpt-5.6",
}


@pytest.fixture(params=["direct-openai", "direct-anthropic", "direct-responses", "litellm-openai", "litellm-anthropic"])
def way(request: pytest.FixtureRequest) -> str:
    """Driver and wire."""
    return str(request.param)


@pytest.fixture
async def connect(way: str) -> AsyncIterator[Connect]:
    """Starts a server that plays the given answers, and connects a driver to it."""
    driver, wire = way.split("-")
    async with AsyncExitStack() as stack:

        async def connect(answers: Script = (), *, api_key: str = KEY) -> Line:
            server = await stack.enter_async_context(SERVERS[wire](answers, api_key=KEY))
            llm = connected(driver, wire, server.base_url, api_key)
            stack.push_async_callback(llm.close)
            return Line(driver, wire, MODELS[wire], server, llm)

        yield connect


def connected(driver: str, wire: str, base_url: str, api_key: str) -> LLM:
    """A driver for the server at `base_url`."""
    if driver == "litellm":
        return LiteLLM(MODELS[wire], api_base=base_url, api_key=api_key)
    return DirectLLM(WIRES[wire], Target(MODELS[wire].partition("/")[2], base_url, api_key))
