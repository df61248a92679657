"""From a name to a model that can be called: which settings, which driver, which key, and why.

A name is one of `[llm.models]`, `scripted`, `ollama`, or the LiteLLM name of a model whose price is known and
whose key is there. `auto` is the first of `[llm.models]` that has its key or server, then Anthropic's and
OpenAI's by their keys, then `scripted`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from workflow.core.config import LlmSettings, ModelSettings
from workflow.core.errors import ModelRefused
from workflow.llm.messages import provider_of
from workflow.llm.ollama import ollama_models, ollama_url
from workflow.llm.prices import card_of
from workflow.llm.responses_wire import PREFIX as RESPONSES_PREFIX

SCRIPTED = "scripted"
OLLAMA = "ollama"
ANTHROPIC_DEFAULT = "anthropic/claude-sonnet-5-5"
OPENAI_DEFAULT = "openai/gpt-5.6"

DriverName = Literal["litellm", "direct", "scripted"]

_OPENAI_SPEAKERS = frozenset({"openai", "hosted_vllm", "lm_studio", "llamafile"})
# Providers that refuse a call without the variable `<PROVIDER>_API_KEY`; others have keys of other kinds, or none.
_KEYED = frozenset({"anthropic", "openai", "gemini", "openrouter", "groq", "mistral", "deepseek", "xai", "cohere"})
_BASE_VARIABLES = {
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
}
# OpenAI serves these with tools on its Responses API only (openai-openapi issue 541).
_RESPONSES_ONLY = re.compile(r"gpt-(?:5\.[4-9]|5\.\d\d|[6-9])")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that can be called."""

    name: str
    settings: ModelSettings
    """With `driver`, `api_base`, `api_key_env` and limits filled in."""
    why: str
    """The reason for the banner, e.g. `ANTHROPIC_API_KEY is set`."""


def resolve(
    settings: LlmSettings,
    name: str | None,
    environ: Mapping[str, str],
    *,
    list_ollama: Callable[[str], tuple[str, ...]] = ollama_models,
) -> Choice:
    """The model that `name` stands for; None or `auto` is the configured default.

    Raises: ModelRefused for a name that is unknown, or a model without its key; the message says what to set.
    """
    wanted = name if name and name != "auto" else settings.default
    if wanted == "auto":
        return _automatic(settings, environ)
    if wanted in settings.models:
        return _ready(wanted, settings.models[wanted], environ, "named in the configuration")
    if wanted == SCRIPTED:
        return _scripted("asked for by name")
    if wanted == OLLAMA:
        return _ollama(environ, list_ollama)
    if "/" in wanted and (wanted == settings.default or card_of(wanted) is not None):
        return _ready(wanted, ModelSettings(model=wanted), environ, "named in full")
    known = ", ".join([*settings.models, SCRIPTED])
    raise ModelRefused(f"there is no model {wanted!r}; known here: {known}")


def has_key(model: ModelSettings, environ: Mapping[str, str]) -> bool:
    """True unless the model's provider would refuse a call for want of a key."""
    provider = provider_of(model.model)
    needs = bool(model.api_key_env) or (provider in _KEYED and not model.api_base)
    return not needs or bool(environ.get(_key_variable(model)))


def driver_of(model: str, api_base: str) -> DriverName:
    """The driver that `auto` stands for: direct where the wire is one of ours, LiteLLM for everything else."""
    if model == SCRIPTED:
        return "scripted"
    provider = provider_of(model)
    if provider == "anthropic":
        return "direct"
    return "litellm" if provider not in _OPENAI_SPEAKERS and "/" in model else "direct"


def needs_responses(model: str, api_base: str) -> bool:
    """True for a model that is asked on OpenAI's Responses API: by its name, or because it takes tools only there."""
    name = wire_name(model)
    if name.startswith(RESPONSES_PREFIX):
        return True
    own = not api_base or (urlsplit(api_base).hostname or "").endswith("openai.com")
    return provider_of(model) == "openai" and own and _RESPONSES_ONLY.match(name) is not None


def wire_name(model: str) -> str:
    """The name a server knows a model by: without the provider in front."""
    return model.partition("/")[2] or model


def is_local(api_base: str) -> bool:
    """True for a server on this machine: it costs nothing by the token."""
    return (urlsplit(api_base).hostname or "") in ("127.0.0.1", "localhost", "::1")


def proxy_of(url: str, environ: Mapping[str, str]) -> str:
    """The http proxy that the environment wants for `url`; empty for none, or one of another kind."""
    parts = urlsplit(url)
    names = (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    proxy = next((environ[name] for name in names if environ.get(name)), "")
    spared = [name.strip().lstrip(".") for name in (environ.get("no_proxy") or environ.get("NO_PROXY", "")).split(",")]
    host = parts.hostname or ""
    if not proxy.startswith(("http://", "https://")) or is_local(url):
        return ""
    if any(name and (name in ("*", host) or host.endswith(f".{name}")) for name in spared):
        return ""
    return proxy


def _automatic(settings: LlmSettings, environ: Mapping[str, str]) -> Choice:
    for name, model in settings.models.items():
        if has_key(model, environ):
            return _ready(name, model, environ, "the first configured model that has its key or server")
    for full_name, variable in ((ANTHROPIC_DEFAULT, "ANTHROPIC_API_KEY"), (OPENAI_DEFAULT, "OPENAI_API_KEY")):
        if environ.get(variable):
            return _ready(full_name, ModelSettings(model=full_name), environ, f"{variable} is set")
    return _scripted("no key and no model server is configured")


def _ready(name: str, model: ModelSettings, environ: Mapping[str, str], why: str) -> Choice:
    """The model with everything filled in that its settings leave open."""
    if model.model == SCRIPTED:
        return Choice(name, model.model_copy(update={"driver": "scripted", "vision": False}), why)
    if not has_key(model, environ):
        raise ModelRefused(f"the model {name!r} has no key: set {_key_variable(model)} in the environment")
    base = model.api_base or next(
        (environ[v] for v in _BASE_VARIABLES.get(provider_of(model.model), ()) if environ.get(v)), ""
    )
    filled: dict[str, object] = {
        "api_base": base,
        "api_key_env": _key_variable(model),
        "driver": driver_of(model.model, base) if model.driver == "auto" else model.driver,
    }
    card = card_of(model.model)
    if card is not None:
        given = model.model_fields_set
        filled["max_output_tokens"] = min(model.max_output_tokens, card.max_output_tokens)
        filled |= {} if "context_tokens" in given else {"context_tokens": card.context_tokens}
        filled |= {} if "vision" in given else {"vision": card.vision}
    return Choice(name, model.model_copy(update=filled), why)


def _scripted(why: str) -> Choice:
    return Choice(SCRIPTED, ModelSettings(model=SCRIPTED, driver="scripted", vision=False), why)


def _ollama(environ: Mapping[str, str], list_ollama: Callable[[str], tuple[str, ...]]) -> Choice:
    url = ollama_url(environ)
    models = list_ollama(url)
    if not models:
        raise ModelRefused(f"no Ollama server with a model answers at {url}: start it, then `ollama pull` a model")
    asked = environ.get("OLLAMA_MODEL", "")
    model = ModelSettings(
        model=f"openai/{asked or models[0]}", api_base=f"{url}/v1", driver="direct", context_tokens=32_000, vision=False
    )
    return Choice(OLLAMA, model, f"an Ollama server answers at {url}")


def _key_variable(model: ModelSettings) -> str:
    return model.api_key_env or f"{provider_of(model.model).upper()}_API_KEY"
