"""Retries, fallbacks and the account of one model call, above any driver.

What is tried again: ModelOverloaded (rate limits, 5xx, silence, cut streams), with exponential backoff, jitter and
the provider's Retry-After; then the fallback models in order. ContextOverflow, ModelRefused and other errors go
up at once: the same request would fail the same way. A broken stream is started anew even after pieces of it were
shown, tool calls included, because calls run only after the Completion; `Restarted` tells watchers.

Every attempt that spent tokens is in the account: in the Completion's usage, in `details["usage"]` of the error,
and, for a call that was cancelled, in `ModelCall.usage`.
"""

import asyncio
import inspect
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from workflow.core.config import LlmSettings, ModelSettings
from workflow.core.errors import ModelError, ModelOverloaded, ModelRefused
from workflow.core.events import Usage
from workflow.llm.base import (
    LLM,
    AssistantMessage,
    Completion,
    ModelEvent,
    ModelRequest,
    Restarted,
    ToolCallDelta,
    ToolMessage,
    UserMessage,
)
from workflow.llm.messages import without_images
from workflow.llm.tokens import estimate_usage

OnNotice = Callable[[str, str], Awaitable[None] | None]
"""Told (code, text) of what a watcher should know: `model_retry`, `model_fallback`, `model_price_unknown`,
`model_images_dropped`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer."""

    name: str
    settings: ModelSettings
    llm: LLM
    cost_usd: Callable[[Usage], float] | None
    """What one call costs; None when the price is not known."""


class PolicyLLM:
    """Calls the first candidate, with retries, then the others. Itself an `LLM`."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        settings: LlmSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.candidates = tuple(candidates)
        self.settings = settings
        self.sleep = sleep
        self._clock = clock
        self._down_until: dict[str, float] = {}

    def call(self, request: ModelRequest, *, on_notice: OnNotice | None = None) -> "ModelCall":
        """One call, whose account can be read at any time."""
        return ModelCall(self, request, on_notice)

    def stream(self, request: ModelRequest, *, on_notice: OnNotice | None = None) -> AsyncGenerator[ModelEvent, None]:
        """The pieces of one answer. See `LLM.stream`."""
        return self.call(request, on_notice=on_notice).stream()

    def estimate_usd(self, *, input_tokens: int, output_tokens: int) -> float:
        """What a call of that size costs with the first candidate; 0 when its price is not known."""
        cost = self.candidates[0].cost_usd
        return cost(Usage(input_tokens=input_tokens, output_tokens=output_tokens)) if cost is not None else 0.0

    async def close(self) -> None:
        """Nothing to release: `Models` owns the drivers."""

    def order(self) -> tuple[Candidate, ...]:
        """The candidates to try now: one that was given up within the last `retry_max_s` comes last."""
        now = self._clock()
        return tuple(sorted(self.candidates, key=lambda candidate: self._down_until.get(candidate.name, 0.0) > now))

    def give_up(self, candidate: Candidate) -> None:
        """Remembers that a candidate failed all its attempts."""
        self._down_until[candidate.name] = self._clock() + self.settings.retry_max_s

    def wait_s(self, error: ModelOverloaded, attempt: int) -> float:
        """How long to wait after attempt number `attempt` (from 0)."""
        if error.retry_after_s is not None:
            return min(error.retry_after_s, self.settings.retry_max_s) * random.uniform(1.0, 1.1)
        return min(self.settings.retry_base_s * 2.0**attempt, self.settings.retry_max_s) * random.uniform(0.5, 1.0)


class ModelCall:
    """One call of the policy. `stream` may be used once."""

    def __init__(self, policy: PolicyLLM, request: ModelRequest, on_notice: OnNotice | None) -> None:
        self._policy = policy
        self._asked = request
        self._on_notice = on_notice
        self._candidate, *self._waiting = policy.order()
        self._request = _prepared(request, self._candidate.settings, policy.settings)
        self._attempt = 0
        self._settled = Usage()
        self._chars: int | None = None
        """Characters received in the open attempt; None while none is open."""

    @property
    def usage(self) -> Usage:
        """What all attempts have spent so far, the open one estimated. Right also after a cancel."""
        if self._chars is None:
            return self._settled
        return self._settled + self._priced(estimate_usage(self._request, output_chars=self._chars))

    async def stream(self) -> AsyncGenerator[ModelEvent, None]:
        """The pieces of the answer; the last one is a Completion with the usage of every attempt."""
        await self._note_unknown_price()
        while True:
            shown = False
            events = self._candidate.llm.stream(self._request)
            self._chars = 0
            try:
                async for event in events:
                    if isinstance(event, Completion):
                        yield self._completed(event)
                        continue  # lets the driver put its connection back
                    if not isinstance(event, Restarted):
                        self._chars += len(event.arguments if isinstance(event, ToolCallDelta) else event.text)
                    shown = True
                    yield event
                return
            except ModelError as error:
                await self._after(self._settle(error))
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()
            if shown:
                yield Restarted("the answer broke off")

    def _completed(self, completion: Completion) -> Completion:
        self._settled += self._priced(completion.usage)
        self._chars = None
        return replace(completion, usage=self._settled, model=self._candidate.settings.model)

    def _settle(self, error: ModelError) -> ModelError:
        """Books what the failed attempt spent; the error tells what all of them did."""
        spent = error.details.get("usage")
        if isinstance(spent, Usage):
            self._settled += self._priced(spent)
        self._chars = None
        if self._settled.tokens:
            error.details["usage"] = self._settled
        return error

    async def _after(self, error: ModelError) -> None:
        """Prepares the next attempt, the wait before it included; raises the error when there is none."""
        if isinstance(error, ModelRefused) and _blames_images(error, self._request):
            self._request = replace(self._request, messages=without_images(self._request.messages))
            await self._notice("model_images_dropped", f"{self._candidate.name} refused a picture; it goes on without")
            return
        if not isinstance(error, ModelOverloaded):
            raise error
        most = self._policy.settings.max_retries
        too_long = (error.retry_after_s or 0.0) > self._policy.settings.retry_max_s
        if self._attempt < most and not (too_long and self._waiting):
            wait_s = self._policy.wait_s(error, self._attempt)
            self._attempt += 1
            text = f"{self._candidate.name}: {error.message}; try {self._attempt} of {most} in {wait_s:.1f} s"
            await self._notice("model_retry", text)
            await self._policy.sleep(wait_s)
            return
        self._policy.give_up(self._candidate)
        if not self._waiting:
            raise error
        failed = self._candidate.name
        self._candidate = self._waiting.pop(0)
        self._request = _prepared(self._asked, self._candidate.settings, self._policy.settings)
        self._attempt = 0
        await self._notice("model_fallback", f"{failed}: {error.message}; {self._candidate.name} takes over")
        await self._note_unknown_price()

    def _priced(self, usage: Usage) -> Usage:
        cost_usd = self._candidate.cost_usd
        return usage if cost_usd is None else usage.model_copy(update={"cost_usd": cost_usd(usage)})

    async def _note_unknown_price(self) -> None:
        """Says once per conversation, at its first call, that money cannot be counted."""
        begun = any(isinstance(message, AssistantMessage) for message in self._asked.messages)
        if self._candidate.cost_usd is None and not begun:
            name = self._candidate.settings.model
            text = f'the price of {name} is not known: it counts as 0; set [llm.prices."{name}"]'
            await self._notice("model_price_unknown", text)

    async def _notice(self, code: str, text: str) -> None:
        if self._on_notice is not None:
            done = self._on_notice(code, text)
            if inspect.isawaitable(done):
                await done


def _prepared(request: ModelRequest, model: ModelSettings, settings: LlmSettings) -> ModelRequest:
    """The request for one model: what it leaves open comes from the settings, what is over a limit is lowered."""
    return replace(
        request,
        model=model.model,
        messages=without_images(request.messages, only_lost=model.vision),
        max_output_tokens=min(request.max_output_tokens or model.max_output_tokens, model.max_output_tokens),
        temperature=model.temperature if request.temperature is None else request.temperature,
        reasoning_effort=request.reasoning_effort or model.reasoning_effort,
        timeout_s=min(request.timeout_s, settings.timeout_s),
        idle_timeout_s=min(request.idle_timeout_s, settings.idle_timeout_s),
    )


def _blames_images(error: ModelRefused, request: ModelRequest) -> bool:
    """True when a picture in the transcript seems to be what the provider refused: it would refuse it for ever."""
    pictures = any(message.images for message in request.messages if isinstance(message, UserMessage | ToolMessage))
    return pictures and "image" in error.message.lower()
