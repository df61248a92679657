"""The shipped config.toml shows every key with its default, and nothing else."""

from pathlib import Path

from workflow.core.config import Settings
from workflow.core.config_keys import Key, every_key, variable
from workflow.core.config_load import load
from workflow.core.config_toml import read_toml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "config.toml"


def lookup(values: object, key: Key) -> object:
    for part in key.path:
        assert isinstance(values, dict)
        values = values[part]
    return values


def test_every_setting_stands_in_config_toml_with_its_default() -> None:
    values = read_toml(FILE).values
    for key in every_key():
        if not key.is_secret:
            assert lookup(values, key) == key.default, key.path


def test_config_toml_holds_nothing_that_settings_do_not_know() -> None:
    assert load(FILE, {}).settings == Settings(data_dir=str(ROOT / "var"))


def test_secrets_are_only_mentioned_with_the_variable_that_sets_them() -> None:
    text = FILE.read_text(encoding="utf-8")
    for key in every_key():
        if key.is_secret:
            assert f"# {key.path[-1]} (secret, {variable(key.path)})" in text


def test_every_key_is_explained() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    for path, line in read_toml(FILE).lines.items():
        assert "#" in lines[line - 1] or lines[line - 2].startswith("#"), path
    assert all(key.field.description for key in every_key())
