"""The keys that config.toml may hold, read off the settings: their paths, variables and nearest neighbours."""

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

import tomli
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from workflow.core.config import Section, Settings

PREFIX = "DIALTONE_"
Path = tuple[str, ...]


def dotted(path: Path) -> str:
    """`path` as TOML writes it: parts joined by dots, quoted where they must be."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"' for part in path)


def parse(name: str) -> Path:
    """The path that `dotted` made `name` of. A name that is no TOML key is one part."""
    try:
        here: Any = tomli.loads(f"{name} = 0")
    except tomli.TOMLDecodeError:
        return (name,)
    path: Path = ()
    while isinstance(here, dict):
        part, here = next(iter(here.items()))
        path += (part,)
    return path


def variable(path: Path) -> str:
    """The environment variable that overrides the key at `path`."""
    return PREFIX + "__".join(path).upper()


@dataclass(frozen=True, slots=True)
class Key:
    """One key: a scalar, a list, or a table whose names the operator chooses."""

    path: Path
    annotation: Any
    field: FieldInfo

    @property
    def is_secret(self) -> bool:
        return SecretStr in _members(self.annotation)

    @property
    def is_container(self) -> bool:
        """Whether its environment variable holds JSON."""
        return get_origin(self.annotation) in (tuple, dict)

    @property
    def default(self) -> Any:
        """The default as TOML can hold it; None when there is none."""
        if self.field.is_required():
            return None
        value = self.field.get_default(call_default_factory=True)
        return list(value) if isinstance(value, tuple) else value

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words of a closed set, else empty."""
        return tuple(
            str(word)
            for member in _members(self.annotation)
            if get_origin(member) is Literal
            for word in get_args(member)
        )


def every_key(section: type[Section] = Settings, prefix: Path = ()) -> Iterator[Key]:
    """All keys in the order of the settings, sections opened."""
    for name, field in section.model_fields.items():
        if _is_section(field.annotation):
            yield from every_key(field.annotation, (*prefix, name))
        else:
            yield Key((*prefix, name), field.annotation, field)


def find(path: Path) -> Key | None:
    """The key at `path`, also inside a table with chosen names; None if there is none (or it is a section)."""
    here: Any = Settings
    field: FieldInfo | None = None
    for part in path:
        if _is_section(here):
            field = here.model_fields.get(part)
            if field is None:
                return None
            here = field.annotation
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            return None
    return None if field is None or _is_section(here) else Key(path, here, field)


def from_text(key: Key, text: str) -> Any:
    """The scalar that the variable of `key` stands for, checked no further. Raises: ValueError saying what is right."""
    members = _members(key.annotation)
    if type(None) in members and text.lower() in ("", "none", "null"):
        return None
    for kind, wanted in ((bool, "true or false"), (int, "a whole number"), (float, "a number")):
        if kind in members:
            try:
                return TypeAdapter(kind).validate_python(text)
            except ValidationError as exc:
                raise ValueError(f"must be {wanted}, not {text!r}") from exc
    return text


def nearest(word: str, words: Iterable[str]) -> str:
    """The one of `words` that `word` was most likely meant to be; empty when none is near."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=0.75)), "")


def suggestion(path: Path) -> str:
    """What a person who wrote the unknown `path` may have meant, as a sentence."""
    every = [dotted(key.path) for key in every_key()]
    parent = _section_at(path[:-1])
    siblings = [] if parent is None else [dotted((*path[:-1], name)) for name in parent.model_fields]
    elsewhere = [name for name in every if name.rpartition(".")[2] == path[-1]]
    near = nearest(dotted(path), siblings) or next(iter(elsewhere), "") or nearest(dotted(path), every)
    if near or parent is None:
        return f"did you mean {near}?" if near else "see docs/configuration.md"
    where = f"[{dotted(path[:-1])}]" if len(path) > 1 else "the file"
    return f"{where} knows {', '.join(parent.model_fields)}"


def limits(key: Key) -> str:
    """The numbers that `key` may hold, e.g. `> 0, <= 60`; empty when any will do."""
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    return ", ".join(
        f"{sign} {getattr(limit, name):,}".replace(",", "_")
        for limit in key.field.metadata
        for name, sign in signs
        if hasattr(limit, name)
    )


def _section_at(path: Path) -> type[Section] | None:
    here: Any = Settings
    for part in path:
        if _is_section(here) and part in here.model_fields:
            here = here.model_fields[part].annotation
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            return None
    return here if _is_section(here) else None


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _members(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)
