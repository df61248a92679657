"""Retries, fallbacks and the account of a call."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from tests.llm.asking import ask, collect, completed
from workflow.core.config import LlmSettings, ModelSettings
from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded, ModelRefused
from workflow.core.events import Usage
from workflow.core.ids import CallId
from workflow.llm.base import (
    AssistantMessage,
    Completion,
    Image,
    ModelEvent,
    ModelRequest,
    Restarted,
    SystemMessage,
    TextDelta,
    ToolMessage,
    UserMessage,
)
from workflow.llm.policy import Candidate, PolicyLLM
from workflow.llm.scripted import ScriptedLLM, TurnLike
from workflow.llm.scripted_turns import Turn, tool_call

SPENT = Usage(input_tokens=1000, output_tokens=10)
BUSY = ModelOverloaded("busy")


class Bench:
    """A policy over scripted models, with a clock that only its waits move."""

    def __init__(self, *scripts: Sequence[TurnLike], models: tuple[ModelSettings, ...] = (), **settings: Any) -> None:
        self.waits: list[float] = []
        self.notices: list[tuple[str, str]] = []
        self.now = 0.0
        self.llms = [ScriptedLLM.of(script) for script in scripts]
        candidates = [
            Candidate(
                name=f"model{place}",
                settings=models[place] if models else ModelSettings(model=f"maker{place}/model"),
                llm=llm,
                cost_usd=lambda usage: usage.tokens / 1000,
            )
            for place, llm in enumerate(self.llms)
        ]
        self.policy = PolicyLLM(candidates, LlmSettings(**settings), sleep=self.sleep, clock=lambda: self.now)

    async def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)
        self.now += wait_s

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        return self.policy.stream(request, on_notice=lambda code, text: self.notices.append((code, text)))

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.notices]


async def test_overload_is_tried_again_with_growing_waits_and_told() -> None:
    bench = Bench([BUSY, BUSY, BUSY, "hello"], retry_base_s=1, max_retries=4)
    answer = await completed(bench.stream(ask("x")))
    assert answer.text == "hello"
    for wait, (low, high) in zip(bench.waits, [(0.5, 1), (1, 2), (2, 4)], strict=True):
        assert low <= wait <= high
    assert bench.codes == ["model_retry"] * 3
    assert "model0: busy; try 1 of 4 in" in bench.notices[0][1]


async def test_a_wait_never_grows_beyond_the_limit() -> None:
    bench = Bench([BUSY] * 8 + ["hello"], retry_base_s=1, retry_max_s=3, max_retries=10)
    await completed(bench.stream(ask("x")))
    assert max(bench.waits) <= 3


async def test_the_provider_s_own_wait_is_kept() -> None:
    bench = Bench([ModelOverloaded("slow down", retry_after_s=20), "hello"])
    await completed(bench.stream(ask("x")))
    assert 20 <= bench.waits[0] <= 22


async def test_retries_end_with_the_last_error() -> None:
    bench = Bench([BUSY] * 3, max_retries=2)
    with pytest.raises(ModelOverloaded, match="busy"):
        await collect(bench.stream(ask("x")))
    assert len(bench.llms[0].requests) == 3


@pytest.mark.parametrize("error", [ContextOverflow("too long"), ModelRefused("bad key"), ModelError("odd")])
async def test_what_would_fail_again_goes_up_at_once(error: ModelError) -> None:
    bench = Bench([error], ["never"])
    with pytest.raises(type(error)):
        await collect(bench.stream(ask("x")))
    assert bench.waits == []
    assert bench.notices == []


async def test_a_fallback_takes_over_when_the_retries_are_used_up() -> None:
    bench = Bench([BUSY] * 3, ["from the second"], max_retries=2)
    answer = await completed(bench.stream(ask("x")))
    assert (answer.text, answer.model) == ("from the second", "maker1/model")
    assert bench.codes == ["model_retry", "model_retry", "model_fallback"]
    assert bench.llms[1].requests[0].model == "maker1/model"


async def test_a_fallback_takes_over_at_once_when_the_provider_wants_too_long_a_wait() -> None:
    bench = Bench([ModelOverloaded("come tomorrow", retry_after_s=86_400)], ["from the second"], retry_max_s=60)
    assert (await completed(bench.stream(ask("x")))).text == "from the second"
    assert bench.waits == []


async def test_without_a_fallback_too_long_a_wait_is_cut_to_the_limit() -> None:
    bench = Bench([ModelOverloaded("come tomorrow", retry_after_s=86_400), "hello"], retry_max_s=60)
    await completed(bench.stream(ask("x")))
    assert 60 <= bench.waits[0] <= 66


async def test_a_model_that_failed_is_left_alone_for_a_while_and_then_tried_again() -> None:
    bench = Bench([BUSY, "back again"], ["second"] * 2, max_retries=0, retry_max_s=60)
    texts = [(await completed(bench.stream(ask("x")))).text for _ in range(2)]
    bench.now += 61
    texts.append((await completed(bench.stream(ask("x")))).text)
    assert texts == ["second", "second", "back again"]


async def test_a_broken_stream_begins_anew_and_says_so_even_after_a_tool_call() -> None:
    broken = Turn(text="Let me", tool_calls=(tool_call("bash", command="ls"),), error=ModelOverloaded("cut"))
    bench = Bench([broken, "hello"])
    pieces = await collect(bench.stream(ask("x")))
    place = next(place for place, piece in enumerate(pieces) if isinstance(piece, Restarted))
    assert "".join(piece.text for piece in pieces[:place] if isinstance(piece, TextDelta)) == "Let me"
    assert "".join(piece.text for piece in pieces[place:] if isinstance(piece, TextDelta)) == "hello"
    last = pieces[-1]
    assert isinstance(last, Completion)
    assert (last.text, last.tool_calls) == ("hello", ())


async def test_nothing_is_said_to_restart_when_nothing_was_shown() -> None:
    pieces = await collect(Bench([BUSY, "hello"]).stream(ask("x")))
    assert not any(isinstance(piece, Restarted) for piece in pieces)


async def test_failed_attempts_are_in_the_account_of_the_one_that_succeeds() -> None:
    bench = Bench([Turn(text="half", usage=SPENT, error=ModelOverloaded("cut")), Turn(text="whole", usage=SPENT)])
    answer = await completed_last(bench.stream(ask("x")))
    assert answer.usage == Usage(input_tokens=2000, output_tokens=20, cost_usd=2.02)


async def completed_last(events: AsyncGenerator[ModelEvent, None]) -> Completion:
    last = (await collect(events))[-1]
    assert isinstance(last, Completion)
    return last


async def test_failed_attempts_are_in_the_account_of_the_error() -> None:
    bench = Bench([Turn(text="half", usage=SPENT, error=ModelOverloaded("cut")), ModelRefused("bad key")])
    with pytest.raises(ModelRefused) as caught:
        await collect(bench.stream(ask("x")))
    assert caught.value.details["usage"] == Usage(input_tokens=1000, output_tokens=10, cost_usd=1.01)


async def test_a_cancelled_call_knows_what_it_spent() -> None:
    bench = Bench([Turn(text="half", usage=SPENT, error=ModelOverloaded("cut")), Turn(text="word " * 100)])
    call = bench.policy.call(ask("x" * 4000))
    restarted = False
    async with aclosing(call.stream()) as events:
        async for event in events:
            restarted = restarted or isinstance(event, Restarted)
            if restarted and isinstance(event, TextDelta):
                break
    assert call.usage.input_tokens > 2000
    assert call.usage.output_tokens > 10
    assert call.usage.cost_usd == pytest.approx(call.usage.tokens / 1000)


async def test_a_call_cancelled_while_it_waits_counts_what_was_spent_before() -> None:
    waiting = asyncio.Event()

    async def sleep(wait_s: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    bench = Bench([Turn(text="half", usage=SPENT, error=ModelOverloaded("cut"))])
    bench.policy.sleep = sleep
    call = bench.policy.call(ask("x"))
    task = asyncio.create_task(collect(call.stream()))
    await asyncio.wait_for(waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.usage.tokens == SPENT.tokens


async def test_settings_fill_what_a_request_leaves_open_and_lower_what_is_over_a_limit() -> None:
    model = ModelSettings(model="maker/model", max_output_tokens=500, temperature=0.3, reasoning_effort="low")
    bench = Bench(["a"], models=(model,), timeout_s=100, idle_timeout_s=10)
    request = ModelRequest(model="?", messages=ask("x").messages, max_output_tokens=900)
    await completed(bench.stream(request))
    sent = bench.llms[0].requests[0]
    assert (sent.model, sent.max_output_tokens, sent.temperature) == ("maker/model", 500, 0.3)
    assert (sent.reasoning_effort, sent.timeout_s, sent.idle_timeout_s) == ("low", 100, 10)


PICTURE = Image("image/png", b"\x89PNG")
WITH_PICTURES = ModelRequest(
    model="?",
    messages=(
        SystemMessage("s"),
        UserMessage("look", (PICTURE,)),
        AssistantMessage(""),
        ToolMessage(CallId("a"), "file_read", "a shot", images=(PICTURE,)),
    ),
)


async def test_a_model_without_eyes_gets_a_line_of_text_for_every_picture() -> None:
    bench = Bench(["a"], models=(ModelSettings(model="maker/model", vision=False),))
    await completed(bench.stream(WITH_PICTURES))
    texts = [message.text for message in bench.llms[0].requests[0].messages]
    assert texts[1] == "look\n[a picture, image/png, 4 bytes: not shown to this model]"
    assert texts[3] == "a shot\n[a picture, image/png, 4 bytes: not shown to this model]"


async def test_a_refused_picture_does_not_poison_the_conversation() -> None:
    bench = Bench([ModelRefused("answered 400: Could not process image"), "I cannot see it"])
    assert (await completed(bench.stream(WITH_PICTURES))).text == "I cannot see it"
    assert bench.codes == ["model_images_dropped"]


async def test_an_unknown_price_is_said_once_in_a_conversation() -> None:
    candidate = Candidate("m", ModelSettings(model="maker/new"), ScriptedLLM.of(["a", "b"]), cost_usd=None)
    policy = PolicyLLM([candidate], LlmSettings())
    told: list[tuple[str, str]] = []

    async def tell(code: str, text: str) -> None:
        told.append((code, text))

    await completed(policy.stream(ask("x"), on_notice=tell))
    later = ModelRequest(model="?", messages=(*ask("x").messages, AssistantMessage("a"), UserMessage("more")))
    await completed(policy.stream(later, on_notice=tell))
    assert told == [
        ("model_price_unknown", 'the price of maker/new is not known: it counts as 0; set [llm.prices."maker/new"]')
    ]
