"""One TOML file with the line of every key, so that a complaint can say where."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from workflow.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What a file holds."""

    path: Path
    values: dict[str, Any]
    lines: dict[tuple[str, ...], int]
    """The line (from 1) where each key and each table is written."""


def read_toml(path: Path) -> TomlFile:
    """The file at `path`. Raises: ConfigError with file, line and column if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        raise ConfigError(f"{path.name}:{exc.lineno}:{exc.colno}: not valid TOML: {exc.msg}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 text (byte {exc.start}); save the file as UTF-8") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    return TomlFile(path, values, _lines(text))


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Line of every key path of a valid document.

    A statement is the shortest run of lines that parses by itself, so the parser itself tells headers, dotted
    keys and values over several lines apart.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    pending: list[str] = []
    start = 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending:
            start = number
        pending.append(line)
        try:
            statement = tomli.loads("\n".join(pending))
        except tomli.TOMLDecodeError:
            continue
        is_header = re.match(r"\s*\[", pending[0]) is not None
        pending = []
        paths = list(_paths(statement))
        if is_header:
            table = paths[-1]
        for path in paths:
            found.setdefault(path if is_header else (*table, *path), start)
    return found


def _paths(values: dict[str, Any]) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    for name, value in values.items():
        paths.append((name,))
        if isinstance(value, dict):
            paths += [(name, *below) for below in _paths(value)]
    return paths
