"""Changes of config.toml while a process runs: live keys take effect, the others are named as needing a restart."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from watchfiles import awatch

from workflow.core.config import Section, Settings
from workflow.core.config_keys import Path, dotted
from workflow.core.config_load import Loaded, load
from workflow.core.errors import ConfigError

log = logging.getLogger(__name__)

LIVE: frozenset[Path] = frozenset({("agent",), ("llm",)})
"""What workers read again for every run; everything else is fixed at the start."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a new config.toml brought."""

    loaded: Loaded
    """The settings to go on with: the new values of live keys, the old ones of the others."""
    live: tuple[str, ...]
    need_restart: tuple[str, ...]


def is_live(path: Path) -> bool:
    """Whether a change of the key at `path` takes effect without a restart."""
    return any(path[: len(live)] == live for live in LIVE)


def compare(old: Loaded, new: Loaded) -> Change:
    """What is different in `new`."""
    paths = list(_differences(old.settings, new.settings))
    settings = old.settings
    for path in paths:
        if is_live(path):
            settings = _with(settings, path, _at(new.settings, path))
    return Change(
        replace(new, settings=settings),
        tuple(dotted(path) for path in paths if is_live(path)),
        tuple(dotted(path) for path in paths if not is_live(path)),
    )


async def changes(loaded: Loaded, *, stop: asyncio.Event | None = None) -> AsyncIterator[Change]:
    """Every change of the file that `loaded` came from, until `stop`; a file that does not hold is logged and ignored.

    Watches the folder, because editors and ConfigMaps replace the file: watching the file itself saw 1 of 3 (measured).
    """
    if loaded.path is None:
        return
    async for touched in awatch(loaded.path.parent, recursive=False, stop_event=stop, rust_timeout=1000):
        if not any(name.endswith((loaded.path.name, "..data")) for _, name in touched):
            continue
        try:
            new = await asyncio.to_thread(load, loaded.path)
        except ConfigError as exc:
            log.error("config.toml does not hold, so the old settings stay: %s", exc.message)
            continue
        change = compare(loaded, new)
        loaded = change.loaded
        if change.live or change.need_restart:
            yield change


def _differences(old: Section, new: Section, prefix: Path = ()) -> list[Path]:
    found: list[Path] = []
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Section) and isinstance(after, Section):
            found += _differences(before, after, (*prefix, name))
        elif before != after:
            found.append((*prefix, name))
    return found


def _at(settings: Section, path: Path) -> Any:
    value: Any = settings
    for part in path:
        value = getattr(value, part)
    return value


def _with(settings: Settings, path: Path, value: Any) -> Settings:
    """`settings` with another value at `path`; sections are frozen, so each on the way is copied."""
    if len(path) == 1:
        return settings.model_copy(update={path[0]: value})
    section = getattr(settings, path[0]).model_copy(update={path[1]: value})
    return settings.model_copy(update={path[0]: section})
