"""Raw settings gathered layer by layer, with where each was written and what is wrong with them."""

import json
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workflow.core import config_keys
from workflow.core.config import Settings
from workflow.core.config_keys import Path, dotted
from workflow.core.errors import ConfigError


class Layers:
    """Raw values gathered layer by layer, where each was written, and what is wrong with them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Path, str] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def put(self, path: Path, value: Any, origin: str) -> None:
        table = self.values
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = value
        self.origins = {known: where for known, where in self.origins.items() if known[: len(path)] != path}
        self.origins[path] = origin

    def merge(self, values: dict[str, Any], origin: str, lines: dict[Path, int]) -> None:
        """Adds every value of a file; tables are merged key by key."""
        for path, value in leaves(values):
            line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)
            self.put(path, value, f"{origin}:{line}")
        for path, line in lines.items():
            self.origins.setdefault(path, f"{origin}:{line}")

    def settings(self) -> Settings:
        """Raises: ConfigError with all problems, those of the values included."""
        settings = None
        try:
            # Strict JSON: lists become tuples and whole numbers floats, but "8080" is no port and 1 is not true.
            settings = Settings.model_validate_json(json.dumps(self.values, default=str), strict=True)
        except ValidationError as exc:
            self.problems += [self._explain(error) for error in exc.errors(include_url=False)]
        if self.problems or settings is None:
            raise ConfigError("\n".join(self.problems), problems=list(self.problems))
        return settings

    def sources(self) -> dict[str, str]:
        found = {dotted(key.path): "default" for key in config_keys.every_key()}
        for path, origin in self.origins.items():
            key = config_keys.find(path)
            if key is not None:
                found[dotted(path)] = origin
        return found

    def _explain(self, error: ErrorDetails) -> str:
        path = tuple(str(part) for part in error["loc"])
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.origins), path)
        prefix = f"{self.origins.get(known, 'config.toml')}: {dotted(path)}: "
        if error["type"] == "extra_forbidden":
            return prefix + f"unknown key; {config_keys.suggestion(path)}"
        if error["type"] == "missing":
            return prefix + "is required here"
        message = error["msg"].removeprefix("Input should be ")
        key = config_keys.find(path)
        shown = "" if key is None or key.is_secret else f", not {error['input']!r}"
        return prefix + f"must be {message}{shown}"


def leaves(values: dict[str, Any], prefix: Path = ()) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found += leaves(value, (*prefix, name))
        else:
            found.append(((*prefix, name), value))
    return found
