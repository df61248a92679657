"""Changes of config.toml while a process runs: live keys take effect, the others are named as needing a restart."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

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


async def changes(loaded: Loaded, *, every_s: float = 1.0) -> AsyncGenerator[Change, None]:
    """Every change of the file that `loaded` came from, for ever; a file that does not hold is logged and ignored.

    Asks for the file's state instead of watching it: that sees a file replaced by an editor or a ConfigMap, or
    changed on a network disk, and what changed between `load` and the first look.
    """
    seen: tuple[int, ...] = ()
    while loaded.path is not None:
        state = await asyncio.to_thread(_state, loaded.path)
        if state and state != seen:
            seen = state
            change = await _reload(loaded)
            if change is not None and (change.live or change.need_restart):
                loaded = change.loaded
                yield change
        await asyncio.sleep(every_s)


async def _reload(loaded: Loaded) -> Change | None:
    try:
        return compare(loaded, await asyncio.to_thread(load, loaded.path))
    except ConfigError as exc:
        log.error("config.toml does not hold, so the old settings stay: %s", exc.message)
        return None


def _state(path: FilePath) -> tuple[int, ...]:
    """What differs when the file does; empty while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


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
