"""Whole runs against model servers that go wrong on the wire, through both drivers and both wires."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.agent.bench import Bench, bench, running
from tests.servers.answers import Answer, Call
from tests.servers.anthropic_server import AnthropicServer
from tests.servers.base import ModelServer
from tests.servers.openai_server import OpenAiServer
from workflow.core.config import LlmSettings, ModelSettings
from workflow.llm.models import build_llm

# LiteLLM's own code uses what pydantic has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    # Cut in its first step, LiteLLM leaves a coroutine of its own unawaited.
    pytest.mark.filterwarnings("ignore:.*ChatCompletion.*:pytest.PytestUnraisableExceptionWarning"),
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
                "model": "openai/test-model" if self.wire == "openai" else "anthropic/claude-test",
                "api_base": self.server.base_url,
                "api_key_env": "TEST_KEY",
                "driver": self.driver,
                "context_tokens": 30_000,
                "max_output_tokens": 2_000,
                "reasoning_effort": "low" if self.wire == "anthropic" else None,
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


async def test_reasoning_goes_back_with_every_later_turn(wire: Wire) -> None:
    answers = [Answer(text="On.", reasoning=f"Thought {n}.", calls=(Call("todo_read"),)) for n in (1, 2)]
    subject = await wire.bench(*answers, Answer(text="Done."))
    await subject.attempt()
    assert end(subject).type == "run.finished"
    assert wire.server is not None
    first, second, third = (json.dumps(received.body["messages"]) for received in wire.server.requests)
    assert "Thought" not in first
    if (wire.wire, wire.driver) == ("openai", "litellm"):
        assert "Thought" not in third, "only providers that are known to want plain reasoning get it back"
        return
    assert ("Thought 1." in second, "Thought 2." in second) == (True, False)
    assert ("Thought 1." in third, "Thought 2." in third) == (True, True)
    if wire.wire == "anthropic":
        blocks = [message["content"] for message in wire.server.requests[2].body["messages"]]
        thinking = [b for content in blocks for b in content if isinstance(b, dict) and b["type"] == "thinking"]
        assert all(block["signature"] for block in thinking), "signed blocks go back with their signature"
        assert len(thinking) == 2


@pytest.mark.parametrize("size", [1, 7])
async def test_a_stream_that_comes_in_single_bytes_runs_its_calls(wire: Wire, size: int) -> None:
    answer = Answer(text="Grüße 👋", calls=(Call("job_plan", PLAN),), argument_chars=1, write_bytes=size)
    subject = await wire.bench(answer, Answer(text="Done."))
    await subject.attempt()
    assert end(subject).type == "run.finished"
    assert subject.journal.of("message")[0].text == "Grüße 👋"
    assert subject.journal.of("plan.updated")[0].steps[0].title == "Do it"


async def test_arguments_cut_off_at_any_byte_never_run(wire: Wire) -> None:
    finish = "length" if wire.wire == "openai" else "max_tokens"
    cut = [Answer(calls=(Call("job_plan", PLAN[:size]),), finish=finish) for size in range(len(PLAN))]
    subject = await wire.bench(*cut, Answer(text="Then in words."))
    agent = {"stuck_errors": len(PLAN), "stuck_repeats": len(PLAN)}
    subject.settings = subject.settings.model_copy(update={"agent": subject.settings.agent.model_copy(update=agent)})
    await subject.attempt()
    assert end(subject).type == "run.finished"
    assert [r.error for r in subject.journal.of("tool.result")] == ["cut_off"] * len(PLAN)
    assert "plan.updated" not in subject.journal.types()


async def test_an_overflow_is_answered_by_a_compaction_and_the_run_goes_on(wire: Wire) -> None:
    work = [Answer(text=f"Step {n}.", calls=(Call("todo_read"),)) for n in range(3)]
    too_long = Answer(status=400, error="prompt is too long: maximum context length exceeded")
    subject = await wire.bench(*work, too_long, Answer(text="NOTES"), Answer(text="Done."))
    await subject.attempt("Keep this wish.")
    assert (end(subject).type, end(subject).summary) == ("run.finished", "Done.")
    (compacted,) = subject.journal.of("context.compacted")
    assert compacted.summary.endswith("NOTES")
    assert wire.server is not None
    last = json.dumps(wire.server.requests[-1].body["messages"])
    assert ("Keep this wish." in last, "NOTES" in last, "Step 0." in last) == (True, True, False)


async def test_an_overflow_that_no_compaction_cures_ends_the_run_once(wire: Wire) -> None:
    too_long = Answer(status=400, error="prompt is too long: maximum context length exceeded")
    subject = await wire.bench(*[too_long] * 4)
    await subject.attempt()
    assert (end(subject).type, end(subject).reason) == ("run.failed", "context_overflow")


async def test_a_cancel_in_the_middle_of_an_answer_ends_the_run_and_the_connection(wire: Wire) -> None:
    subject = await wire.bench(Answer(text="half of it and then nothing", stall_after=3), idle_timeout_s=60.0)
    assert wire.server is not None
    async with running(subject) as task, asyncio.timeout(20):
        await wire.server.stalled.wait()
        subject.control.stop("cancel")
        await task
        await wire.server.left.wait()
    assert end(subject).type == "run.cancelled"


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
    # Long enough that a machine with other work does not take each further try for a stall as well.
    patience: dict[str, Any] = {"idle_timeout_s": 2.0, "max_retries": 5} if fault == "a stall" else {}
    subject = await wire.bench(FAULTS[fault], Answer(text="All is well."), **patience)
    async with asyncio.timeout(50):
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
