"""Settings from config.toml, secrets.toml and the environment, each value with where it came from.

Weakest first: defaults, config.toml, secrets.toml, `REDIS_URL` and `ENV`, `DIALTONE_<SECTION>__<KEY>`.
Everything wrong is reported at once, with file, line, key and what would be right.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from workflow.core import config_keys
from workflow.core.config import Settings
from workflow.core.config_keys import PREFIX, Key, dotted, variable
from workflow.core.config_layers import Layers, leaves
from workflow.core.config_toml import read_toml
from workflow.core.errors import ConfigError
from workflow.core.redact import KEY_SHAPE

CONFIG_VARIABLE = "DIALTONE_CONFIG"
SECRETS_VARIABLE = "DIALTONE_SECRETS_FILE"
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, SECRETS_VARIABLE, "DIALTONE_URL", "DIALTONE_KEY"})
"""`DIALTONE_*` names that are not keys: where the files are, and the terminal client's gateway and key."""

_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that hold, and how they came about."""

    settings: Settings
    sources: dict[str, str]
    """For every key its source: `default`, `config.toml:12`, `secrets.toml:3` or `environment REDIS_URL`."""
    warnings: tuple[str, ...] = ()
    path: Path | None = None
    """The config.toml that was read."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """Variables of `[environment]` in secrets.toml, for processes that call models; the real environment wins."""


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """The effective settings; `data_dir` comes back absolute.

    path: a config.toml; None takes `DIALTONE_CONFIG`, else the one in the project folder, else only defaults.
    Raises: ConfigError naming everything that is wrong, one line each (`problems=` holds the lines).
    """
    environ = os.environ if environ is None else environ
    layers = Layers()
    file = _config_path(path, environ)
    if file is None:
        layers.warnings.append(f"no config.toml in {_PROJECT}; every key has its default")
    else:
        _add_config_file(layers, file)
    folder = _PROJECT if file is None else file.parent
    environment = _add_secrets_file(layers, folder, environ)
    _add_environment(layers, environ)
    settings = layers.settings()
    data_dir = str((folder / Path(settings.data_dir).expanduser()).resolve())
    settings = settings.model_copy(update={"data_dir": data_dir})
    return Loaded(settings, layers.sources(), tuple(layers.warnings), file, environment)


_WHERE: dict[str, Any] = {"data_dir": True, "redis": {"url"}, "gateway": {"host", "port"}, "log": True}
"""Where things are and how they are logged: `./run.sh` settles that for its parts, and no run goes otherwise for it."""


def config_hash(settings: Settings) -> str:
    """Twelve hex digits that change with any setting but those of `_WHERE`; secrets count as set or unset."""
    values = settings.model_dump(mode="json", exclude=_WHERE)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _config_path(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"{named}: no such file; give the path of a config.toml")
        return named.resolve()
    usual = _PROJECT / "config.toml"
    return usual if usual.is_file() else None


def _add_config_file(layers: Layers, file: Path) -> None:
    read = read_toml(file)
    for path, value in leaves(read.values):
        where = f"{file.name}:{read.lines.get(path, 1)}: {dotted(path)}: "
        key = config_keys.find(path)
        advice = f"set {variable(path)}, or write it to secrets.toml beside config.toml (chmod 600)"
        if key is not None and key.is_secret:
            layers.problems.append(f"{where}a secret does not belong in {file.name}; {advice}")
        elif isinstance(value, str) and KEY_SHAPE.search(value):
            layers.problems.append(f"{where}holds what looks like a key; name the variable that holds it instead")
        elif isinstance(value, str) and "://" in value and urlsplit(value).password:
            layers.problems.append(f"{where}a URL with a password does not belong in {file.name}; {advice}")
    layers.merge(read.values, file.name, read.lines)


def _add_secrets_file(layers: Layers, folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    named = environ.get(SECRETS_VARIABLE)
    file = Path(named) if named else folder / "secrets.toml"
    if not file.exists():
        if named:
            raise ConfigError(f"{file}: no such file; {SECRETS_VARIABLE} must name one")
        return {}
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(f"{file}: others may read or write it (mode {mode:04o}); run: chmod 600 {file}")
    read = read_toml(file)
    environment = read.values.pop("environment", {})
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise ConfigError(f'{file.name}: [environment] must hold strings, e.g. ANTHROPIC_API_KEY = "…"')
    for path, _ in leaves(read.values):
        key = config_keys.find(path)
        if key is not None and not key.is_secret and path != ("redis", "url"):
            layers.problems.append(f"{file.name}:{read.lines.get(path, 1)}: {dotted(path)}: belongs in config.toml")
    lines = {path: line for path, line in read.lines.items() if path[0] != "environment"}
    layers.merge(read.values, file.name, lines)
    return environment


def _add_environment(layers: Layers, environ: Mapping[str, str]) -> None:
    if environ.get("REDIS_URL"):
        layers.put(("redis", "url"), environ["REDIS_URL"], "environment REDIS_URL")
    if environ.get("ENV"):
        # A POSIX shell keeps the path of its start-up file in ENV; that is no mistake of the operator's.
        if "/" in environ["ENV"] or "$" in environ["ENV"]:
            layers.warnings.append(f"ENV={environ['ENV']} names a shell's start-up file, not an environment; ignored")
        else:
            layers.put(("env",), environ["ENV"], "environment ENV")
    names = sorted(name for name in environ if name.startswith(PREFIX) and name not in OTHER_VARIABLES)
    for name in sorted(names, key=lambda name: name.count("__")):
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        key = config_keys.find(path)
        if key is None:
            layers.problems.append(f"environment {name}: {_unknown_variable(path)}")
            continue
        try:
            layers.put(path, _read_variable(key, environ[name]), f"environment {name}")
        except ValueError as exc:
            layers.problems.append(f"environment {name}: {dotted(path)}: {exc}")


def _unknown_variable(path: config_keys.Path) -> str:
    names = [variable(key.path) for key in config_keys.every_key()]
    below = [name for name in names if name.startswith(f"{variable(path)}__")]
    if below:
        return f"names a section; set one of its keys, e.g. {below[0]}"
    near = config_keys.nearest(variable(path), names)
    return f"no such setting; did you mean {near}?" if near else "no such setting; see docs/configuration.md"


def _read_variable(key: Key, text: str) -> Any:
    """The JSON value that `text` stands for. Raises: ValueError saying what would be right."""
    if key.is_container:
        example = '["a", "b"]' if key.default is None or isinstance(key.default, list) else '{"name": …}'
        try:
            value = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ValueError(f"must be JSON, e.g. {example}") from exc
        if not isinstance(value, list | dict):
            raise ValueError(f"must be JSON, e.g. {example}")
        return value
    return config_keys.from_text(key, text)


def masked(value: Any) -> Any:
    """`value` as it may be shown: secrets and passwords in URLs hidden."""
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, str) and "://" in value and (secret := urlsplit(value).password):
        return value.replace(f":{secret}@", ":********@", 1)
    return value
