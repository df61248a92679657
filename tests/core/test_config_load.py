"""What `config_load.load` promises to the operator."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.core.config import Settings
from workflow.core.config_keys import dotted, every_key, find, variable
from workflow.core.config_load import Loaded, config_hash, load, masked
from workflow.core.errors import ConfigError


def written(folder: Path, text: str = "", *, name: str = "config.toml", mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def problems(folder: Path, text: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environ)
    return caught.value.message.splitlines()


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = load(written(tmp_path), {})
    assert loaded.settings == Settings(data_dir=str(tmp_path / "var"))
    assert set(loaded.sources.values()) == {"default"}


def test_a_value_in_the_file_wins_over_the_default_and_says_its_line(tmp_path: Path) -> None:
    loaded = load(
        written(tmp_path, '# hello\n[gateway]\ncors_origins = [\n  "https://a.example",\n]\nport = 9000\n'), {}
    )
    assert loaded.settings.gateway.port == 9000
    assert loaded.settings.gateway.cors_origins == ("https://a.example",)
    assert loaded.sources["gateway.port"] == "config.toml:6"
    assert loaded.sources["gateway.cors_origins"] == "config.toml:3"


@pytest.mark.parametrize(
    "value", ["cpus = 0.001", "cpus = inf", "memory_bytes = 1", "disk_bytes = 1", "processes = 9_999_999"]
)
def test_a_limit_of_sandboxes_that_no_kernel_takes_is_a_mistake(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=f"sandbox.{value.split()[0]}"):
        load(written(tmp_path, f"[sandbox]\n{value}\n"), {})


def test_the_environment_wins_over_the_file_key_by_key(tmp_path: Path) -> None:
    path = written(tmp_path, '[gateway]\nport = 9000\nhost = "::1"\n')
    loaded = load(path, {"DIALTONE_GATEWAY__PORT": "9001"})
    assert (loaded.settings.gateway.port, loaded.settings.gateway.host) == (9001, "::1")
    assert loaded.sources["gateway.port"] == "environment DIALTONE_GATEWAY__PORT"
    assert loaded.sources["gateway.host"] == "config.toml:3"


def test_the_well_known_variables_are_read_and_lose_to_our_own(tmp_path: Path) -> None:
    path = written(tmp_path)
    environ = {"REDIS_URL": "redis://a:1/0", "ENV": "prod"}
    assert load(path, environ).settings.redis.url == "redis://a:1/0"
    assert load(path, environ).settings.env == "prod"
    assert load(path, {**environ, "DIALTONE_REDIS__URL": "redis://b:1/0"}).settings.redis.url == "redis://b:1/0"


def test_a_shell_start_up_file_in_env_is_ignored_with_a_warning(tmp_path: Path) -> None:
    loaded = load(written(tmp_path), {"ENV": "/root/.shrc"})
    assert loaded.settings.env == "local"
    assert "start-up file" in loaded.warnings[0]


SIGNING_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _other_value(name: str) -> tuple[str, object]:
    """A legal value of the key that is not its default, as the environment and as Python would write it."""
    key = next(key for key in every_key() if dotted(key.path) == name)
    if name == "webhooks.secret":
        return SIGNING_KEY, SIGNING_KEY
    if name == "gateway.preview_url":
        return "https://{id}.example.org", "https://{id}.example.org"
    if key.is_container:
        special: dict[str, object] = {"agent.approvals": {"bash": "ask"}, "webhooks.waits_s": [1.0, 2.0]}
        value = special.get(name, {} if isinstance(key.default, dict) else ["x"])
        return json.dumps(value), value
    if key.choices:
        word = key.choices[-1]
        return word, word
    if isinstance(key.default, bool):
        return str(not key.default).lower(), not key.default
    if isinstance(key.default, int | float):
        low = {"agent.compact_at": 0.5, "gateway.heartbeat_s": 7.0, "agent.keep_recent": 0.2, "sandbox.cpus": 1.0}
        low |= {"sandbox.tenant_cpus": 4.0, "sandbox.tenant_memory_bytes": 4_000_000_000}
        near = low.get(name, key.default - 1 if key.default > 2 else key.default + 1)
        return str(near), near
    return "another", "another"


@pytest.mark.parametrize("name", [dotted(key.path) for key in every_key()])
def test_every_key_can_be_overridden_by_its_variable(tmp_path: Path, name: str) -> None:
    key = next(key for key in every_key() if dotted(key.path) == name)
    text, value = _other_value(name)
    loaded = load(written(tmp_path), {variable(key.path): text})
    here: object = loaded.settings
    for part in key.path:
        here = getattr(here, part)
    shown = here.get_secret_value() if hasattr(here, "get_secret_value") else here
    shown = list(shown) if isinstance(shown, tuple) else shown
    assert shown == (str(tmp_path / "another") if name == "data_dir" else value)
    assert loaded.sources[name] == f"environment {variable(key.path)}"


def test_a_named_model_can_be_made_from_the_environment(tmp_path: Path) -> None:
    environ = {"DIALTONE_LLM__MODELS__LOCAL__MODEL": "openai/q", "DIALTONE_LLM__MODELS__LOCAL__TEMPERATURE": "0.5"}
    loaded = load(written(tmp_path), environ)
    assert loaded.settings.llm.models["local"].temperature == 0.5
    assert loaded.sources["llm.models.local.model"] == "environment DIALTONE_LLM__MODELS__LOCAL__MODEL"


def test_a_model_name_with_dots_keeps_its_name_and_its_line(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, '[llm.prices."openai/gpt-5.6"]\ninput = 1\n'), {})
    assert loaded.settings.llm.prices["openai/gpt-5.6"].input == 1.0
    assert loaded.sources['llm.prices."openai/gpt-5.6".input'] == "config.toml:2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gateway]\n\nprot = 1\n", "config.toml:3: gateway.prot: unknown key; did you mean gateway.port?"),
        ("[gatewy]\nport = 1\n", "config.toml:1: gatewy: unknown key; did you mean gateway?"),
        ("port = 1\n", "config.toml:1: port: unknown key; did you mean gateway.port?"),
        ("[log]\nxyzzy = 1\n", "config.toml:2: log.xyzzy: unknown key; [log] knows level, format"),
        ('env = "prd"\n', "config.toml:1: env: must be 'local', 'dev' or 'prod', not 'prd'"),
        ('[gateway]\nport = "8080"\n', "config.toml:2: gateway.port: must be a valid integer, not '8080'"),
        ("[telemetry]\nmetrics = 1\n", "config.toml:2: telemetry.metrics: must be a valid boolean, not 1"),
        ("[gateway]\nport = 70000\n", "config.toml:2: gateway.port: must be less than or equal to 65535, not 70000"),
        ('[llm.models.a]\napi_base = "x"\n', "config.toml:1: llm.models.a.model: is required here"),
        (
            '[sandbox]\nallow_hosts = ["*.fine.org", "https://pypi.org"]\n',
            "config.toml:2: sandbox.allow_hosts.1: must be a host name and nothing else, like api.example.org",
        ),
        ("gateway = 3\n", "config.toml:1: gateway: must be"),
        ("[[gateway]]\nport = 3\n", "config.toml:1: gateway: must be"),
        ("[gateway]\nport = 1979-05-27\n", "config.toml:2: gateway.port: must be a valid integer"),
    ],
)
def test_a_mistake_is_reported_with_file_line_key_and_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    assert problems(tmp_path, text)[0].startswith(said)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    said = problems(tmp_path, 'env = "x"\n[gateway]\nport = 0\n', DIALTONE_LOG__LEVEL="LOUD", DIALTONE_NO="1")
    assert len(said) == 4


def test_text_that_is_not_toml_is_reported_with_line_and_column(tmp_path: Path) -> None:
    assert problems(tmp_path, "env = 'local'\nport = \n")[0].startswith("config.toml:2:8: not valid TOML")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DIALTONE_GATEWAY__PRT", "1", "no such setting; did you mean DIALTONE_GATEWAY__PORT?"),
        ("DIALTONE_GATEWAY", "1", "names a section; set one of its keys, e.g. DIALTONE_GATEWAY__HOST"),
        ("DIALTONE_GATEWAY__PORT__X", "1", "no such setting; did you mean DIALTONE_GATEWAY__PORT?"),
        ("DIALTONE_", "1", "no such setting"),
        ("DIALTONE_GATEWAY__PORT", "many", "gateway.port: must be a whole number, not 'many'"),
        ("DIALTONE_TELEMETRY__METRICS", "perhaps", "telemetry.metrics: must be true or false, not 'perhaps'"),
        ("DIALTONE_GATEWAY__CORS_ORIGINS", "a,b", 'gateway.cors_origins: must be JSON, e.g. ["a", "b"]'),
        ("DIALTONE_LLM__MODELS", "3", 'llm.models: must be JSON, e.g. {"name": …}'),
    ],
)
def test_a_mistaken_variable_is_reported_by_its_name(tmp_path: Path, name: str, value: str, said: str) -> None:
    assert problems(tmp_path, "", **{name: value})[0].startswith(f"environment {name}: {said}")


@pytest.mark.parametrize(
    "text",
    [
        '[redis]\npassword = "hunter2hunter2"\n',
        '[redis]\nurl = "redis://u:hunter2hunter2@h/0"\n',
        '[llm.models.a]\nmodel = "x"\napi_key_env = "sk-ant-hunter2hunter2hunter2"\n',
    ],
)
def test_a_secret_in_config_toml_is_refused_with_advice_and_not_shown(tmp_path: Path, text: str) -> None:
    said = "\n".join(problems(tmp_path, text))
    assert "DIALTONE_" in said or "variable" in said
    assert "hunter2" not in said


def test_a_private_secrets_file_is_read_and_a_readable_one_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    secrets = written(tmp_path, '[auth]\njwt_secret = "hunter2"\n[environment]\nX_API_KEY = "k"\n', name="secrets.toml")
    loaded = load(path, {})
    assert loaded.settings.auth.jwt_secret is not None
    assert loaded.settings.auth.jwt_secret.get_secret_value() == "hunter2"
    assert loaded.sources["auth.jwt_secret"] == "secrets.toml:2"
    assert loaded.environment == {"X_API_KEY": "k"}
    assert "hunter2" not in repr(loaded)
    secrets.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(path, {})


def test_ordinary_settings_in_the_secrets_file_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "[gateway]\nport = 1\n", name="secrets.toml")
    assert problems(tmp_path) == ["secrets.toml:2: gateway.port: belongs in config.toml"]


def test_files_named_by_the_environment_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(None, {"DIALTONE_CONFIG": str(tmp_path / "none.toml")})
    with pytest.raises(ConfigError, match="DIALTONE_SECRETS_FILE"):
        load(written(tmp_path), {"DIALTONE_SECRETS_FILE": str(tmp_path / "none.toml")})


def test_the_hash_follows_every_setting_but_no_secret_value_and_no_place(tmp_path: Path) -> None:
    def hashed(**environ: str) -> str:
        return config_hash(load(written(tmp_path), environ).settings)

    assert hashed() == hashed() == hashed(DIALTONE_DATA_DIR="/elsewhere")
    assert hashed() == hashed(REDIS_URL="redis://h:1/0", DIALTONE_GATEWAY__PORT="9", DIALTONE_LOG__FORMAT="json")
    assert hashed(DIALTONE_AGENT__MAX_TURNS="7") != hashed()
    assert hashed(DIALTONE_AUTH__JWT_SECRET="a") == hashed(DIALTONE_AUTH__JWT_SECRET="b") != hashed()


def test_a_url_is_shown_without_its_password() -> None:
    assert masked("redis://me:hunter2@h:1/0") == "redis://me:********@h:1/0"


@given(st.text(max_size=60))
def test_no_text_makes_loading_fail_in_another_way_than_by_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    try:
        loaded = load(written(folder, text), {"DIALTONE_GATEWAY__PORT": "1"})
    except ConfigError:
        return
    assert isinstance(loaded, Loaded)


def test_keys_inside_chosen_names_are_found_and_sections_are_not_keys() -> None:
    assert find(("llm", "models", "any name", "vision")) is not None
    assert find(("llm", "models", "any name")) is None
    assert find(("llm",)) is None
    assert find(("llm", "default", "x")) is None


@pytest.mark.parametrize(
    "secret", ["hunter2", "whsec_", "whsec_c2hvcnQ=", f"{SIGNING_KEY} whsec_c2hvcnQ=", "whsec_ä" * 9]
)
def test_a_signing_key_that_is_too_weak_stops_the_start_and_is_not_shown(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ConfigError, match=r"webhooks\.secret: must be `whsec_` and 24 to 64") as raised:
        load(written(tmp_path), {"DIALTONE_WEBHOOKS__SECRET": secret})
    assert "hunter2" not in str(raised.value)


def test_two_signing_keys_are_accepted_while_one_replaces_the_other(tmp_path: Path) -> None:
    both = f"{SIGNING_KEY} whsec_{'A' * 43}"
    loaded = load(written(tmp_path), {"DIALTONE_WEBHOOKS__SECRET": both}).settings.webhooks.secret
    assert loaded is not None
    assert loaded.get_secret_value() == both
