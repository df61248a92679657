"""Whole runs against model servers that go wrong on the wire, through both drivers and both wires."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.agent.bench import Bench, bench
from tests.servers.answers import Answer, Call
from tests.servers.anthropic_server import AnthropicServer
from tests.servers.base import ModelServer
from tests.servers.openai_server import OpenAiServer
from workflow.core.config import LlmSettings, ModelSettings
from workflow.llm.models import build_llm

# LiteLLM's own code uses what pydantic has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]

DRIVERS = [("openai", "direct"), ("anthropic", "direct"), ("openai", "litellm"), ("anthropic", "litellm")]
PLAN = json.dumps({"steps": [{"id": "1", "title": "Do it", "status": "done"}]})


@pytest.fixture(params=DRIVERS, ids=["-".join(pair) for pair in DRIVERS])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator["Wire"]:
    wire = Wire(*request.param)
    yield wire
    await wire.close()


class Wire:
    """A bench whose model is a server that plays `answers` over one wire and one driver."""

    def __init__(self, wire: str, driver: str) -> None:
        self.wire, self.driver = wire, driver
        self.server: ModelServer | None = None
        self._models: Any = None

    async def bench(self, *answers: Answer, **llm: Any) -> Bench:
        kind = OpenAiServer if self.wire == "openai" else AnthropicServer
        self.server = await kind(list(answers), api_key="sk-test-key-0123456789").__aenter__()
        model = ModelSettings.model_validate(
            {
                "model": f"{self.wire}/test-model",
                "api_base": self.server.base_url,
                "api_key_env": "TEST_KEY",
                "driver": self.driver,
                "context_tokens": 30_000,
                "max_output_tokens": 2_000,
            }
        )
        limits: dict[str, Any] = {"max_retries": 2, "retry_base_s": 0.01, "retry_max_s": 1.0, "idle_timeout_s": 10.0}
        settings = LlmSettings.model_validate({"default": "m", "models": {"m": model}, **limits, **llm})
        self._models = build_llm(settings, environ={"TEST_KEY": "sk-test-key-0123456789"})
        subject = bench()
        subject.settings = subject.settings.model_copy(update={"llm": settings})
        subject.models = self._models
        await self._models.warm_up()
        return subject

    async def close(self) -> None:
        if self._models is not None:
            await self._models.close()
        if self.server is not None:
            await self.server.__aexit__(None, None, None)


def end(subject: Bench) -> Any:
    ends = [event for event in subject.journal.events if event.terminal]
    assert len(ends) == 1, subject.journal.types()
    return ends[0]


async def test_parallel_calls_and_reasoning_go_round(wire: Wire) -> None:
    calls = (Call("job_plan", PLAN), Call("todo_write", '{"items": [{"content": "a"}]}'))
    subject = await wire.bench(Answer(text="Both.", reasoning="Hm.", calls=calls), Answer(text="Done."))
    await subject.attempt()
    assert (end(subject).type, end(subject).summary) == ("run.finished", "Done.")
    assert [r.ok for r in subject.journal.of("tool.result")] == [True, True]
    assert subject.journal.of("message")[0].reasoning == "Hm."


@pytest.mark.parametrize("cut", range(0, len(PLAN), 9))
async def test_arguments_cut_off_anywhere_never_run(wire: Wire, cut: int) -> None:
    finish = "length" if wire.wire == "openai" else "max_tokens"
    broken = Answer(calls=(Call("job_plan", PLAN[:cut]),), finish=finish)
    subject = await wire.bench(broken, Answer(text="Then in words."))
    await subject.attempt()
    assert end(subject).type == "run.finished"
    assert [r.ok for r in subject.journal.of("tool.result")] == [False]
    assert "plan.updated" not in subject.journal.types()


FAULTS = {
    "429 with Retry-After": Answer(status=429, headers={"retry-after": "0"}),
    "500": Answer(status=500),
    "529": Answer(status=529),
    "a stall": Answer(text="half of it and then nothing", stall_after=3),
    "a cut connection": Answer(text="half of it and then nothing", drop_after=4),
    "an end without an end": Answer(text="half of it and then nothing", end_after=4),
    "an error in the stream": Answer(text="half of it and then nothing", error_after=4),
}


@pytest.mark.parametrize("fault", FAULTS, ids=[name.replace(" ", "-") for name in FAULTS])
async def test_a_passing_fault_is_tried_again_and_seen(wire: Wire, fault: str) -> None:
    patience = {"idle_timeout_s": 1.0} if fault == "a stall" else {}
    subject = await wire.bench(FAULTS[fault], Answer(text="All is well."), **patience)
    async with asyncio.timeout(30):
        await subject.attempt()
    assert (end(subject).type, end(subject).summary) == ("run.finished", "All is well.")
    assert "model_retry" in [notice.code for notice in subject.journal.of("notice")]


@pytest.mark.parametrize("status", [500, 429])
async def test_a_lasting_fault_ends_the_run_with_its_reason(wire: Wire, status: int) -> None:
    subject = await wire.bench(*[Answer(status=status, headers={"retry-after": "0"})] * 9)
    async with asyncio.timeout(20):
        await subject.attempt()
    assert (end(subject).type, end(subject).reason) == ("run.failed", "model_overloaded")


@pytest.mark.parametrize("status", [401, 400])
async def test_a_refusal_ends_the_run_at_once_without_the_key(wire: Wire, status: int) -> None:
    subject = await wire.bench(Answer(status=status, error="bad sk-test-key-0123456789"))
    await subject.attempt()
    assert (end(subject).type, end(subject).reason) == ("run.failed", "model_refused")
    assert "sk-test-key" not in end(subject).detail
    assert wire.server is not None
    assert len(wire.server.requests) == 1


async def test_broken_json_and_unknown_tools_go_back_to_the_model(wire: Wire) -> None:
    calls = (Call("job_plan", '{"steps": nonsense}'), Call("job_planner", PLAN))
    subject = await wire.bench(Answer(calls=calls), Answer(text="I see."))
    await subject.attempt()
    assert end(subject).type == "run.finished"
    assert [r.ok for r in subject.journal.of("tool.result")] == [False, False]
