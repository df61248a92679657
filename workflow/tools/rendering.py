"""Project templates: what one is, where they are, and its files with their markers filled in.

A template is a folder with `template.toml` and `files/`. A marker is `{{ name }}` in a file's text or path; every
marker must be a declared variable and every given variable must be declared. Values are put in once and never
looked at again, so a value that looks like a marker stays as it is. Anything else in double braces is left alone.
A file name may end with `.tmpl`, which is dropped.
"""

import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow.core.errors import ToolError

_MARKER = re.compile(r"\{\{ ?([a-z][a-z0-9_]*) ?\}\}")
_SUFFIX = ".tmpl"


class Variable(BaseModel):
    """One thing to fill in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    default: str | None = None
    pattern: str = Field(r"[^\x00-\x1f]{1,200}", description="regular expression that the whole value matches")


class Manifest(BaseModel):
    """`template.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    description: str
    stack: str = ""
    commands: tuple[str, ...] = Field((), description="what to run next, in order; may hold markers")
    port: int | None = None
    variables: dict[str, Variable] = {}


@dataclass(frozen=True)
class Template:
    """A template on disk."""

    name: str
    root: Traversable

    @cached_property
    def manifest(self) -> Manifest:
        """Raises: ToolError with kind `bad_template`."""
        try:
            return Manifest.model_validate(tomllib.loads(self.root.joinpath("template.toml").read_text("utf-8")))
        except (OSError, ValueError) as error:
            reason = f"{error.error_count()} mistakes" if isinstance(error, ValidationError) else str(error)
            raise ToolError(
                f"The template {self.name} is broken ({reason}). Choose another one.", kind="bad_template"
            ) from error

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Every variable's value. Raises: ToolError with kind `bad_variables`, naming all that is wrong."""
        variables = self.manifest.variables
        problems = [f"{name} is not a variable of this template" for name in given if name not in variables]
        values: dict[str, str] = {}
        for name, variable in variables.items():
            value = given.get(name, variable.default)
            if value is None:
                problems.append(f"{name} is needed ({variable.description})")
            elif not re.fullmatch(variable.pattern, value):
                problems.append(f"{name} must match {variable.pattern}")
            else:
                values[name] = value
        if problems:
            raise ToolError(
                f"The variables for {self.name} do not fit: {'; '.join(problems)}. Nothing was written.",
                kind="bad_variables",
            )
        return values

    def rendered(self, values: Mapping[str, str]) -> dict[str, tuple[bytes, bool]]:
        """Path → (content, is executable) of every file.

        Raises: ToolError with kind `bad_template` or `duplicate_path`.
        """
        found: dict[str, tuple[bytes, bool]] = {}
        for path, entry in _walk(self.root.joinpath("files"), ""):
            raw = entry.read_bytes()
            target = posixpath.normpath(self.fill(path.removesuffix(_SUFFIX), values))
            content = raw if b"\0" in raw else self.fill(raw.decode("utf-8"), values).encode()
            if target in found:
                raise ToolError(
                    f"With these values two files of {self.name} would be {target}. Give them different names.",
                    kind="duplicate_path",
                    path=target,
                )
            found[target] = (content, raw.startswith(b"#!"))
        if not found:
            raise ToolError(f"The template {self.name} has no files. Choose another one.", kind="bad_template")
        return found

    def fill(self, text: str, values: Mapping[str, str]) -> str:
        """`text` with its markers replaced, in one pass."""

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise ToolError(
                    f"The template {self.name} uses {match[1]}, which it does not declare. Choose another one.",
                    kind="bad_template",
                )
            return values[match[1]]

        return _MARKER.sub(value, text)


def templates(folder: str = "") -> dict[str, Template]:
    """The shipped templates and those in `folder`, which win; by name."""
    roots: list[Traversable] = [files("workflow.tools").joinpath("templates")]
    if folder:
        roots.append(Path(folder).expanduser())
    found: dict[str, Template] = {}
    for root in roots:
        if root.is_dir():
            for entry in root.iterdir():
                if entry.is_dir() and entry.joinpath("template.toml").is_file():
                    found[entry.name] = Template(entry.name, entry)
    return dict(sorted(found.items()))


def describe(template: Template) -> dict[str, Any]:
    """What a person or model needs to choose it and fill it in."""
    manifest = template.manifest
    return {
        "name": template.name,
        "version": manifest.version,
        "description": manifest.description,
        "stack": manifest.stack,
        "variables": {name: v.model_dump(exclude_none=True) for name, v in manifest.variables.items()},
    }


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    if not folder.is_dir():
        return []
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name in ("__pycache__", ".DS_Store"):
            continue
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        else:
            found.append((f"{prefix}{entry.name}", entry))
    return found
