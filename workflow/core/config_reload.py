"""Changes of config.toml while a process runs: live keys take effect, the others are named as needing a restart."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from workflow.core.config import Section, Settings
from workflow.core.config_keys import Path, dotted, parse
from workflow.core.config_load import Loaded, config_hash, load
from workflow.core.errors import ConfigError
from workflow.core.records import ConfigState

log = logging.getLogger(__name__)

LIVE: dict[Path, str] = {
    ("agent",): "from the next run on",
    ("llm",): "from the next run on",
    ("limits",): "at once",
    ("log", "level"): "at once",
}
"""What processes read again while they run, and from when on it counts; everything else is fixed at the start."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a new config.toml brought."""

    loaded: Loaded
    """The settings to go on with: the new values of live keys, the old ones of the others."""
    live: tuple[str, ...]
    need_restart: tuple[str, ...]

    def report(self) -> None:
        """Says in the log what changed, and from when on it counts."""
        for when in dict.fromkeys(LIVE.values()):
            if names := [name for name in self.live if effect(parse(name)) == when]:
                log.info("config.toml changed, %s: %s", when, ", ".join(names))
        if self.need_restart:
            log.warning("config.toml changed, but these need a restart: %s", ", ".join(self.need_restart))


def effect(path: Path) -> str:
    """From when on a change of the key at `path` counts; empty when that needs a restart."""
    return next((words for live, words in LIVE.items() if path[: len(live)] == live), "")


def is_live(path: Path) -> bool:
    """Whether a change of the key at `path` takes effect without a restart."""
    return bool(effect(path))


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


class Follower:
    """Follows the config.toml of one process for as long as it runs.

    Asks for the file's state instead of watching it: that sees a file replaced by an editor or a ConfigMap, or
    changed on a network disk, and what changed between `load` and the first look.
    """

    def __init__(self, loaded: Loaded, *, every_s: float = 1.0) -> None:
        self.loaded = loaded
        self.need_restart: tuple[str, ...] = ()
        """Keys whose value in the file is another than the one in force."""
        self.problem = ""
        """What is wrong with the file; the settings in force are the last that held."""
        self.answered = 0
        """The newest number given to `ask` that was answered."""
        self._hash = config_hash(loaded.settings)
        self._asked = 0
        self._every_s = every_s
        self._wake = asyncio.Event()

    @property
    def state(self) -> ConfigState:
        """Which configuration this process works with, for its record."""
        return ConfigState(
            hash=self._hash, need_restart=self.need_restart, problem=self.problem, answered=self.answered
        )

    def ask(self, number: int) -> None:
        """Reads the files again soon, secrets.toml included, even if config.toml looks the same. Numbers only grow."""
        if number > self._asked:
            self._asked = number
            self._wake.set()

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Every change, for ever; a file that does not hold is logged, remembered in `problem`, and changes nothing."""
        seen: tuple[int, ...] = ()
        while True:
            asked = self._asked
            state = await asyncio.to_thread(_state, self.loaded.path)
            if (state and state != seen) or asked > self.answered:
                seen = state
                change = await self._read()
                if change is not None and (change.live or change.need_restart):
                    self.loaded = change.loaded
                    yield change
                    self._hash = config_hash(self.loaded.settings)
                self.answered = asked
            await self._rest()

    async def _read(self) -> Change | None:
        if self.loaded.path is None:
            return None
        try:
            change = compare(self.loaded, await asyncio.to_thread(load, self.loaded.path))
        except ConfigError as exc:
            self.problem = exc.message
            log.error("config.toml does not hold, so the old settings stay: %s", exc.message)
            return None
        self.problem, self.need_restart = "", change.need_restart
        return change

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._every_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()


def _state(path: FilePath | None) -> tuple[int, ...]:
    """What differs when the file does; empty while it is not there."""
    if path is None:
        return ()
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
