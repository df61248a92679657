"""The models of a process: the one place where drivers are made, shared and closed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workflow.core.config import LlmSettings, ModelSettings
from workflow.core.errors import ConfigError, ModelRefused
from workflow.core.events import Usage
from workflow.llm.anthropic_wire import ANTHROPIC_URL, AnthropicWire
from workflow.llm.base import LLM
from workflow.llm.catalog import SCRIPTED, Choice, is_local, needs_responses, proxy_of, resolve, wire_name
from workflow.llm.direct import DirectLLM
from workflow.llm.litellm import LiteLLM
from workflow.llm.messages import provider_of
from workflow.llm.ollama import ollama_models, ollama_url
from workflow.llm.openai_wire import OPENAI_URL, OpenAiWire
from workflow.llm.policy import Candidate, PolicyLLM
from workflow.llm.prices import card_of, configured_rates
from workflow.llm.responses_wire import ResponsesWire
from workflow.llm.scripted import ScriptedLLM
from workflow.llm.wire import Target, Wire


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model ready to be called."""

    name: str
    """What it was asked for as, e.g. `fast` or `anthropic/claude-sonnet-5-5`."""
    model: str
    """Its LiteLLM name."""
    settings: ModelSettings
    """With driver, limits and key variable filled in."""
    llm: PolicyLLM
    why: str
    notes: tuple[str, ...] = ()
    """What an operator should know: an unknown price, a fallback without its key."""


class Models:
    """Every model of this process, made when first asked for. One event loop for life."""

    def __init__(
        self,
        settings: LlmSettings,
        environ: Mapping[str, str],
        *,
        list_ollama: Callable[[str], tuple[str, ...]] = ollama_models,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._list_ollama = list_ollama
        self._resolved: dict[str, ResolvedModel] = {}
        self._drivers: dict[tuple[str, str, str, str], LLM] = {}

    def get(self, name: str | None = None) -> ResolvedModel:
        """The model that `name` stands for, None for the default. Raises: ModelRefused; see `catalog.resolve`."""
        key = name or "auto"
        if key not in self._resolved:
            self._resolved[key] = self._resolve(name)
        return self._resolved[key]

    async def warm_up(self) -> None:
        """Loads what the default model's driver loads late. Call it once the worker answers for its health."""
        for candidate in self.get().llm.candidates:
            if isinstance(candidate.llm, LiteLLM):
                await candidate.llm.warm_up()

    async def close(self) -> None:
        """Closes every connection."""
        for driver in self._drivers.values():
            await driver.close()
        self._drivers.clear()
        self._resolved.clear()

    def describe(self) -> str:
        """One line for the banner: the active model and why. May ask a local Ollama server; blocks up to 0.6 s."""
        try:
            model = self.get()
        except ModelRefused as error:
            return f"no model: {error.message}"
        if model.model != SCRIPTED:
            return "; ".join([f"{model.model} by the {model.settings.driver} driver ({model.why})", *model.notes])
        line = f"the scripted demo model, which plays a fixed job ({model.why})"
        url = ollama_url(self._environ)
        if self._settings.default == "auto" and (found := self._list_ollama(url)):
            return f'{line}; Ollama with {found[0]} answers at {url}: set llm.default = "ollama" to use it'
        return line

    def _resolve(self, name: str | None) -> ResolvedModel:
        choice = self._choose(name)
        notes: list[str] = []
        candidates = [self._candidate(choice)]
        for fallback in choice.settings.fallbacks:
            try:
                candidates.append(self._candidate(self._choose(fallback)))
            except ModelRefused as error:
                notes.append(f"fallback {fallback} is left out: {error.message}")
        notes += [
            f"the price of {candidate.settings.model} is not known and counts as 0"
            for candidate in candidates
            if candidate.cost_usd is None
        ]
        return ResolvedModel(
            name=choice.name,
            model=choice.settings.model,
            settings=choice.settings,
            llm=PolicyLLM(candidates, self._settings),
            why=choice.why,
            notes=tuple(notes),
        )

    def _choose(self, name: str | None) -> Choice:
        return resolve(self._settings, name, self._environ, list_ollama=self._list_ollama)

    def _candidate(self, choice: Choice) -> Candidate:
        return Candidate(choice.name, choice.settings, self._driver(choice.settings), self._cost(choice))

    def _cost(self, choice: Choice) -> Callable[[Usage], float] | None:
        rates = configured_rates(self._settings.prices, choice.name, choice.settings.model)
        if rates is not None:
            return rates.cost_usd
        if choice.settings.driver == "scripted" or is_local(choice.settings.api_base):
            return lambda usage: 0.0
        card = card_of(choice.settings.model)
        return None if card is None else card.cost_usd

    def _driver(self, model: ModelSettings) -> LLM:
        key = (model.driver, model.model, model.api_base, model.api_key_env)
        if key not in self._drivers:
            self._drivers[key] = self._made(model)
        return self._drivers[key]

    def _made(self, model: ModelSettings) -> LLM:
        api_key = self._environ.get(model.api_key_env, "")
        if model.driver == "scripted":
            return ScriptedLLM()
        if model.driver == "litellm":
            return LiteLLM(model.model, api_base=model.api_base, api_key=api_key)
        usual = {"anthropic": ANTHROPIC_URL, "openai": OPENAI_URL}.get(provider_of(model.model), "")
        base_url = model.api_base or usual
        if not base_url:
            raise ConfigError(f"the direct driver needs api_base for {model.model}")
        target = Target(wire_name(model.model), base_url, api_key, proxy_of(base_url, self._environ))
        return DirectLLM(_wire(model), target)


def _wire(model: ModelSettings) -> Wire:
    if provider_of(model.model) == "anthropic":
        return AnthropicWire()
    return ResponsesWire() if needs_responses(model.model, model.api_base) else OpenAiWire()


def build_llm(settings: LlmSettings, *, environ: Mapping[str, str]) -> Models:
    """The models of a process. Opens nothing: connections are made at the first call."""
    return Models(settings, environ)
