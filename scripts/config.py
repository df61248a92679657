"""`./run.sh config print|check|explain KEY`: what is configured, why, and what a key means."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from workflow.core import config_keys
from workflow.core.config_keys import Key, dotted
from workflow.core.config_load import Loaded, config_hash, load, masked
from workflow.core.config_reload import effect
from workflow.core.errors import ConfigError

EX_CONFIG = 78  # sysexits.h


def main(argv: list[str] | None = None) -> int:
    """Runs one command; its exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh config", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    shown = commands.add_parser("print", help="every key with its value and where it comes from (default)")
    shown.add_argument("--json", action="store_true", help="as JSON")
    shown.add_argument("--changed", action="store_true", help="only what differs from the defaults")
    commands.add_parser("check", help="say what is wrong, or nothing")
    commands.add_parser("explain", help="all about one key").add_argument("key", metavar="KEY")
    parser.set_defaults(command="print", json=False, changed=False)
    arguments = parser.parse_args(argv)
    if arguments.command == "explain" and _unknown(arguments.key):
        return 2
    try:
        loaded = load()
    except ConfigError as exc:
        print(exc.message, file=sys.stderr)
        return EX_CONFIG
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.command == "check":
        print(f"{loaded.path or 'defaults'}: in order (hash {config_hash(loaded.settings)})")
    elif arguments.command == "explain":
        print("\n".join(_explain(loaded, config_keys.parse(arguments.key))))
    else:
        _print(loaded, as_json=arguments.json, only_changed=arguments.changed)
    return 0


def _print(loaded: Loaded, *, as_json: bool, only_changed: bool) -> None:
    rows = [row for row in _rows(loaded) if row["source"] != "default"] if only_changed else list(_rows(loaded))
    if as_json:
        print(json.dumps({"hash": config_hash(loaded.settings), "keys": rows}, indent=2, ensure_ascii=False))
        return
    width = max((len(row["key"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['key']:<{width}}  {_shown(row['value']):<28}  {row['source']}")
    print(f"# hash {config_hash(loaded.settings)}")


def _rows(loaded: Loaded) -> Iterator[dict[str, Any]]:
    """Every key in the order of the settings, then those inside tables with chosen names."""
    for name, source in loaded.sources.items():
        path = config_keys.parse(name)
        yield {"key": name, "value": _value(loaded, path), "source": source}


def _value(loaded: Loaded, path: config_keys.Path) -> Any:
    here: Any = loaded.settings
    for part in path:
        here = here[part] if isinstance(here, dict) else getattr(here, part)
    if isinstance(here, dict):
        return {name: _plain(value) for name, value in here.items()}
    return _plain(here)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(item) for name, item in value.model_dump(mode="json", exclude_unset=True).items()}
    return list(map(masked, value)) if isinstance(value, tuple) else masked(value)


def _shown(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)


def _explain(loaded: Loaded, path: config_keys.Path) -> list[str]:
    key = config_keys.find(path)
    assert key is not None
    name = dotted(path)
    lines = [f"{name}: {key.field.description or 'no description'}"]
    if key.choices:
        lines.append(f"  allowed   {' | '.join(map(_shown, key.choices))}")
    elif limits := config_keys.limits(key):
        lines.append(f"  allowed   {limits}")
    lines.append(f"  default   {'none' if key.is_secret or key.default is None else _shown(key.default)}")
    if name in loaded.sources:
        lines.append(f"  now       {_shown(_value(loaded, path))}  ({loaded.sources[name]})")
    lines.append(f"  variable  {config_keys.variable(path)}{_form(key)}")
    if key.is_secret:
        lines.append("  secret    only from the environment or secrets.toml (chmod 600), never from config.toml")
    when = effect(path)
    lines.append(f"  a change  {f'takes effect {when}' if when else 'needs a restart'}")
    return lines


def _form(key: Key) -> str:
    return " (as JSON)" if key.is_container else ""


def _unknown(name: str) -> bool:
    """Says so when there is no such key."""
    path = config_keys.parse(name)
    if config_keys.find(path) is not None:
        return False
    below = [dotted(key.path) for key in config_keys.every_key() if key.path[: len(path)] == path]
    hint = f"its keys: {', '.join(below)}" if below else config_keys.suggestion(path)
    print(f"{name} is {'a section' if below else 'no key'}; {hint}", file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())
