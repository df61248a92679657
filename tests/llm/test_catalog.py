"""Which model a name stands for, by which driver, with which key, at which price."""

import asyncio
import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.llm.asking import ask, completed
from tests.servers.answers import Answer
from tests.servers.openai_server import OpenAiServer
from workflow.core.config import LlmSettings, ModelSettings, PriceSettings
from workflow.core.errors import ConfigError, ModelRefused
from workflow.core.events import Usage
from workflow.llm.catalog import Choice, driver_of, needs_responses, proxy_of, resolve
from workflow.llm.models import Models, build_llm
from workflow.llm.ollama import ollama_models, ollama_url
from workflow.llm.prices import CARDS, card_of

ANTHROPIC = {"ANTHROPIC_API_KEY": "a"}
OPENAI = {"OPENAI_API_KEY": "o"}
LOCAL = ModelSettings(model="openai/qwen3-coder", api_base="http://127.0.0.1:8000/v1")
FAST = ModelSettings(model="anthropic/claude-haiku-5-5")


def chosen(settings: LlmSettings, name: str | None, environ: Mapping[str, str]) -> Choice:
    return resolve(settings, name, environ, list_ollama=lambda url: ("qwen3:8b",))


@pytest.mark.parametrize(
    ("models", "environ", "model"),
    [
        ({}, {}, "scripted"),
        ({}, ANTHROPIC, "anthropic/claude-sonnet-5-5"),
        ({}, OPENAI, "openai/gpt-5.6"),
        ({}, ANTHROPIC | OPENAI, "anthropic/claude-sonnet-5-5"),
        ({"fast": FAST}, {}, "scripted"),
        ({"fast": FAST}, ANTHROPIC, "anthropic/claude-haiku-5-5"),
        ({"fast": FAST, "local": LOCAL}, {}, "openai/qwen3-coder"),
        ({"local": LOCAL}, ANTHROPIC, "openai/qwen3-coder"),
        ({}, {"ANTHROPIC_API_KEY": ""}, "scripted"),
    ],
)
def test_auto_takes_the_first_model_that_has_its_key_or_server(
    models: dict[str, ModelSettings], environ: dict[str, str], model: str
) -> None:
    assert chosen(LlmSettings(models=models), None, environ).settings.model == model


def test_a_name_given_to_a_run_comes_before_the_default() -> None:
    settings = LlmSettings(default="fast", models={"fast": FAST, "local": LOCAL})
    assert chosen(settings, None, ANTHROPIC).settings.model == FAST.model
    assert chosen(settings, "local", ANTHROPIC).settings.model == LOCAL.model
    assert chosen(settings, "scripted", ANTHROPIC).settings.model == "scripted"
    assert chosen(settings, "openai/gpt-5.6", OPENAI).settings.model == "openai/gpt-5.6"


def test_a_caller_cannot_name_a_model_whose_price_nobody_knows() -> None:
    with pytest.raises(ModelRefused, match="there is no model 'openai/secret-model'; known here: local, scripted"):
        chosen(LlmSettings(models={"local": LOCAL}), "openai/secret-model", OPENAI)
    settings = LlmSettings(default="openai/secret-model")
    assert chosen(settings, None, OPENAI).settings.model == "openai/secret-model"  # an operator can


def test_a_model_without_its_key_says_which_variable_to_set() -> None:
    with pytest.raises(ModelRefused, match="set ANTHROPIC_API_KEY in the environment"):
        chosen(LlmSettings(default="fast", models={"fast": FAST}), None, {})
    own = FAST.model_copy(update={"api_key_env": "MY_KEY"})
    with pytest.raises(ModelRefused, match="set MY_KEY"):
        chosen(LlmSettings(default="fast", models={"fast": own}), None, ANTHROPIC)


@pytest.mark.parametrize(
    ("model", "api_base", "driver"),
    [
        ("scripted", "", "scripted"),
        ("anthropic/claude-sonnet-5-5", "", "direct"),
        ("anthropic/claude-sonnet-5-5", "http://proxy/", "direct"),
        ("openai/gpt-5", "", "direct"),
        ("openai/gpt-5.6", "", "direct"),
        ("openai/qwen3-coder", "http://127.0.0.1:9000/v1", "direct"),
        ("hosted_vllm/qwen3", "http://127.0.0.1:9000/v1", "direct"),
        ("qwen3", "http://127.0.0.1:9000/v1", "direct"),
        ("gemini/gemini-3.8-flash", "", "litellm"),
        ("bedrock/anthropic.claude-sonnet-5", "", "litellm"),
        ("openrouter/anthropic/claude-opus-5", "", "litellm"),
    ],
)
def test_auto_picks_the_direct_driver_where_the_wire_is_ours(model: str, api_base: str, driver: str) -> None:
    assert driver_of(model, api_base) == driver


@pytest.mark.parametrize(
    ("model", "api_base", "expected"),
    [
        ("openai/gpt-5.6", "", True),
        ("openai/gpt-5.4-mini", "", True),
        ("openai/gpt-6-sol", "https://eu.api.openai.com/v1", True),
        ("openai/gpt-5.2", "", False),
        ("openai/gpt-4.1", "", False),
        ("openai/gpt-5.6", "http://127.0.0.1:9000/v1", False),
        ("openai/responses/my-model", "http://127.0.0.1:9000/v1", True),
        ("hosted_vllm/gpt-5.6", "http://127.0.0.1:9000/v1", False),
    ],
)
def test_models_that_take_tools_on_the_responses_api_only_are_asked_there(
    model: str, api_base: str, expected: bool
) -> None:
    assert needs_responses(model, api_base) is expected


def test_limits_come_from_the_table_unless_the_operator_set_them() -> None:
    model = chosen(LlmSettings(), None, ANTHROPIC).settings
    assert (model.context_tokens, model.driver, model.api_key_env) == (1_000_000, "direct", "ANTHROPIC_API_KEY")
    own = ModelSettings(model="anthropic/claude-haiku-4-5", context_tokens=50_000, max_output_tokens=500_000)
    filled = chosen(LlmSettings(default="own", models={"own": own}), None, ANTHROPIC).settings
    assert (filled.context_tokens, filled.max_output_tokens) == (50_000, 64_000)


def test_a_base_url_in_the_environment_is_used() -> None:
    environ = OPENAI | {"OPENAI_BASE_URL": "http://127.0.0.1:9000/v1"}
    model = chosen(LlmSettings(), None, environ).settings
    assert (model.api_base, model.driver) == ("http://127.0.0.1:9000/v1", "direct")


def test_ollama_is_used_when_asked_for_and_only_offered_otherwise() -> None:
    model = chosen(LlmSettings(default="ollama"), None, {}).settings
    assert (model.model, model.api_base) == ("openai/qwen3:8b", "http://127.0.0.1:11434/v1")
    models = Models(LlmSettings(), {}, list_ollama=lambda url: ("qwen3:8b",))
    assert models.get().model == "scripted"
    assert models.describe() == (
        "the scripted demo model, which plays a fixed job (no key and no model server is configured); "
        'Ollama with qwen3:8b answers at http://127.0.0.1:11434: set llm.default = "ollama" to use it'
    )
    with pytest.raises(ModelRefused, match="no Ollama server"):
        resolve(LlmSettings(default="ollama"), None, {}, list_ollama=lambda url: ())


async def test_ollama_is_found_by_its_list_of_models() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"models": [{"name": "qwen3:8b"}, {"name": "llama3"}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        url = ollama_url({"OLLAMA_HOST": f"0.0.0.0:{port}"})
        assert await asyncio.to_thread(ollama_models, url) == ("qwen3:8b", "llama3")
    assert await asyncio.to_thread(ollama_models, url) == ()


def test_the_banner_names_the_model_the_driver_and_the_reason() -> None:
    line = Models(LlmSettings(), ANTHROPIC).describe()
    assert line == "anthropic/claude-sonnet-5-5 by the direct driver (ANTHROPIC_API_KEY is set)"
    broken = Models(LlmSettings(default="fast", models={"fast": FAST}), {})
    assert broken.describe().startswith("no model: the model 'fast' has no key")


async def test_fallbacks_are_resolved_and_one_without_its_key_is_left_out_with_a_note() -> None:
    settings = LlmSettings(
        default="fast",
        models={
            "fast": FAST.model_copy(update={"fallbacks": ("local", "big")}),
            "local": LOCAL,
            "big": ModelSettings(model="openai/gpt-5"),
        },
    )
    models = build_llm(settings, environ=ANTHROPIC)
    model = models.get()
    assert [candidate.name for candidate in model.llm.candidates] == ["fast", "local"]
    assert model.notes == (
        "fallback big is left out: the model 'big' has no key: set OPENAI_API_KEY in the environment",
    )
    assert models.get("fast").llm.candidates[1].llm is models.get("local").llm.candidates[0].llm
    await models.close()


def test_the_direct_driver_without_an_address_is_a_mistake_in_the_configuration() -> None:
    settings = LlmSettings(default="x", models={"x": ModelSettings(model="groq/llama", driver="direct")})
    with pytest.raises(ConfigError, match="needs api_base"):
        build_llm(settings, environ={"GROQ_API_KEY": "g"}).get()


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://api.openai.com/v1", ""),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "https://api.openai.com/v1", "http://a:1"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://models.example/v1", ""),
        ({"ALL_PROXY": "http://proxy:3128"}, "http://models.example/v1", "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128"}, "http://127.0.0.1:8000/v1", ""),
        ({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": ".example"}, "http://models.example/v1", ""),
        ({"ALL_PROXY": "socks5://proxy:1080"}, "http://models.example/v1", ""),
    ],
)
def test_the_environment_s_proxy_is_used_for_what_is_not_local(environ: dict[str, str], url: str, proxy: str) -> None:
    assert proxy_of(url, environ) == proxy


async def test_a_proxy_is_asked_in_place_of_the_provider() -> None:
    async with OpenAiServer([Answer(text="by proxy")]) as server:
        proxy = server.base_url.removesuffix("/v1")
        environ = {"HTTP_PROXY": proxy}
        far = ModelSettings(model="openai/m", api_base="http://models.invalid/v1")
        models = build_llm(LlmSettings(default="far", models={"far": far}), environ=environ)
        answer = await completed(models.get().llm.stream(ask("x")))
        await models.close()
    assert answer.text == "by proxy"
    assert server.requests[0].headers["host"] == "models.invalid"


USAGE = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=2_000_000, cache_write_tokens=400_000)


def test_all_four_classes_of_tokens_have_their_price() -> None:
    card = card_of("anthropic/claude-sonnet-5-5")
    assert card is not None
    assert card.cost_usd(USAGE) == pytest.approx(2 + 1 + 0.2 + 1)


def test_a_long_prompt_costs_its_higher_price_as_a_whole() -> None:
    card = card_of("openai/gpt-5.6")
    assert card is not None
    assert card.cost_usd(Usage(input_tokens=272_000)) == pytest.approx(0.272 * 4)
    assert card.cost_usd(Usage(input_tokens=200_000, cache_read_tokens=72_001)) == pytest.approx(
        0.2 * 8 + 0.072001 * 0.8
    )


def test_a_dated_name_has_the_price_of_its_model() -> None:
    assert card_of("claude-haiku-4-5-20251001") is CARDS["claude-haiku-4-5"]
    assert card_of("openai/gpt-5.4-2026-03-05") is CARDS["gpt-5.4"]
    assert card_of("openai/qwen3-coder") is None


def test_the_operator_s_price_comes_first_and_an_unknown_one_is_said() -> None:
    far = ModelSettings(model="openai/qwen3-coder", api_base="https://models.example/v1")
    prices = {"openai/qwen3-coder": PriceSettings(input=1, output=2)}
    priced = Models(LlmSettings(default="far", models={"far": far}, prices=prices), {}).get()
    cost_usd = priced.llm.candidates[0].cost_usd
    assert cost_usd is not None
    assert cost_usd(Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == 3
    unknown = Models(LlmSettings(default="far", models={"far": far}), {}).get()
    assert unknown.llm.candidates[0].cost_usd is None
    assert unknown.notes == ("the price of openai/qwen3-coder is not known and counts as 0",)
    local = Models(LlmSettings(default="local", models={"local": LOCAL}), {}).get()
    assert local.notes == ()


def test_building_the_models_and_asking_the_scripted_one_never_loads_litellm() -> None:
    program = """
import sys
from workflow.core.config import LlmSettings
from workflow.llm.models import build_llm
build_llm(LlmSettings(), environ={"OPENAI_API_KEY": "x"}).get()
assert "litellm" not in sys.modules and "openai" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_only_known_files_run_at_every_start_of_the_interpreter() -> None:
    """A compromised LiteLLM once came with a `.pth` file of its own."""
    folder = Path(sysconfig.get_path("purelib"))
    assert {path.name for path in folder.glob("*.pth")} <= {
        "dialtone.pth",
        "_virtualenv.pth",
        "distutils-precedence.pth",
    }
