"""What models cost and how much they take in: US dollars per million tokens, from the providers' price lists.

As of November 2026. An operator's `[llm.prices]` comes first; a model in neither table costs 0 and says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workflow.core.config import PriceSettings
from workflow.core.events import Usage

_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per million tokens of each class."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def cost_usd(self, usage: Usage) -> float:
        """Dollars for that many tokens."""
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * self.cache_read
            + usage.cache_write_tokens * self.cache_write
        ) / 1_000_000


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model."""

    rates: Rates
    context_tokens: int
    max_output_tokens: int
    long_from: int | None = None
    """A call with more prompt tokens than this is charged at `long_rates`, all of it."""
    long_rates: Rates | None = None
    vision: bool = True

    def cost_usd(self, usage: Usage) -> float:
        """Dollars for one call. Sums of calls must be priced call by call."""
        prompt_tokens = usage.tokens - usage.output_tokens
        if self.long_rates is not None and self.long_from is not None and prompt_tokens > self.long_from:
            return self.long_rates.cost_usd(usage)
        return self.rates.cost_usd(usage)


def _claude(input_: float, output: float, read: float, write: float) -> Card:
    return Card(Rates(input_, output, read, write), 1_000_000, 128_000)


def _gpt(input_: float, output: float, read: float, write: float) -> Card:
    """OpenAI's larger models: above 272,000 prompt tokens twice the input prices and 1.5 times the output's."""
    long_rates = Rates(input_ * 2, output * 1.5, read * 2, write * 2)
    return Card(Rates(input_, output, read, write), 922_000, 128_000, 272_000, long_rates)


def _flat(input_: float, output: float, read: float, context: int, most: int, *, vision: bool = True) -> Card:
    return Card(Rates(input_, output, read, input_), context, most, vision=vision)


CARDS: Final[Mapping[str, Card]] = {
    "claude-fable-5-1": _claude(10, 50, 0.25, 12.5),
    "claude-opus-5-5": _claude(4, 20, 0.2, 5),
    "claude-opus-5": _claude(5, 25, 0.5, 6.25),
    "claude-opus-4-8": _claude(5, 25, 0.5, 6.25),
    "claude-sonnet-5-5": _claude(2, 10, 0.1, 2.5),
    "claude-sonnet-5": _claude(2, 10, 0.2, 2.5),
    "claude-sonnet-4-6": _claude(3, 15, 0.3, 3.75),
    "claude-haiku-5-5": Card(Rates(0.1, 0.5, 0.01, 0.125), 1_000_000, 128_000, 100_000, Rates(0.5, 2.5, 0.05, 0.625)),
    "claude-haiku-4-5": Card(Rates(1, 5, 0.1, 1.25), 200_000, 64_000),
    "gpt-6-astra": _gpt(10, 50, 1, 12.5),
    "gpt-6.1-sol": _gpt(2, 10, 0.1, 2.5),
    "gpt-6-sol": _gpt(2, 10, 0.2, 2.5),
    "gpt-6-luna": _gpt(0.1, 0.5, 0.01, 0.125),
    "gpt-5.6": _gpt(4, 20, 0.4, 5),
    "gpt-5.6-sol": _gpt(4, 20, 0.4, 5),
    "gpt-5.6-terra": _gpt(2, 12, 0.2, 2.5),
    "gpt-5.6-luna": _gpt(0.2, 1.2, 0.02, 0.25),
    "gpt-5.5": _gpt(5, 30, 0.5, 5),
    "gpt-5.4": _gpt(2.5, 15, 0.25, 2.5),
    "gpt-5.4-mini": _flat(0.75, 4.5, 0.075, 272_000, 128_000),
    "gpt-5.4-nano": _flat(0.2, 1.25, 0.02, 272_000, 128_000),
    "gpt-5.2": _flat(1.75, 14, 0.175, 272_000, 128_000),
    "gpt-5.1": _flat(1.25, 10, 0.125, 272_000, 128_000),
    "gpt-5": _flat(1.25, 10, 0.125, 272_000, 128_000),
    "gpt-5-mini": _flat(0.25, 2, 0.025, 272_000, 128_000),
    "gpt-4.1": _flat(2, 8, 0.5, 1_047_576, 32_768),
    "gpt-4.1-mini": _flat(0.4, 1.6, 0.1, 1_047_576, 32_768),
    "gemini/gemini-3.1-pro-preview": Card(Rates(2, 12, 0.2, 2), 1_048_576, 65_536, 200_000, Rates(4, 18, 0.4, 4)),
    "gemini/gemini-3.8-flash": _flat(0.75, 3.75, 0.075, 1_048_576, 65_536),
    "gemini/gemini-3.5-flash-lite": _flat(0.3, 2.5, 0.03, 1_048_576, 65_536),
    "deepseek/deepseek-v4-pro": _flat(1.32, 3.96, 0.044, 1_000_000, 393_216, vision=False),
    "deepseek/deepseek-v4-flash": _flat(0.3, 1.2, 0.006, 1_000_000, 393_216),
    "xai/grok-4.7": Card(Rates(2, 6, 0.5, 2), 500_000, 500_000, 200_000, Rates(4, 12, 1, 4)),
    "mistral/mistral-large-latest": _flat(0.5, 1.5, 0.05, 262_144, 262_144),
    "mistral/devstral-latest": _flat(0.4, 2, 0.04, 256_000, 256_000, vision=False),
}
"""By LiteLLM name; Anthropic's and OpenAI's own models without their prefix."""


def card_of(model: str) -> Card | None:
    """What is known of a model by its LiteLLM name, with or without a date at its end."""
    bare = model.removeprefix("anthropic/").removeprefix("openai/").removeprefix("responses/")
    return CARDS.get(bare) or CARDS.get(_DATE.sub("", bare))


def configured_rates(prices: Mapping[str, PriceSettings], *names: str) -> Rates | None:
    """The operator's rates for the first of `names` that has any."""
    for name in names:
        if name in prices:
            found = prices[name]
            return Rates(found.input, found.output, found.cache_read, found.cache_write)
    return None
