"""Tools from outside: Python entry points, and files in a folder. A broken one is reported and left out."""

import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs
from workflow.tools.schemas import parameters

ENTRY_POINT_GROUP = "dialtone.tools"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_log = logging.getLogger(__name__)


def installed() -> tuple[list[Tool[Any]], list[str]]:
    """The tools of installed packages, and what was left out and why.

    An entry point names a Tool class, a Tool instance, or a list of either.
    """
    tools: list[Tool[Any]] = []
    problems: list[str] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        _collect(f"entry point {point.name}", point, tools, problems)
    return tools, problems


def from_folder(folder: str) -> tuple[list[Tool[Any]], list[str]]:
    """The Tool classes of every `*.py` in `folder` (those with a leading `_` aside), and what was left out."""
    tools: list[Tool[Any]] = []
    problems: list[str] = []
    root = Path(folder).expanduser()
    if not root.is_dir():
        return [], [f"plugin folder {folder}: is not a folder"]
    for file in sorted(root.glob("*.py")):
        if not file.name.startswith("_"):
            _collect(f"plugin {file}", file, tools, problems)
    return tools, problems


def _collect(label: str, source: EntryPoint | Path, tools: list[Tool[Any]], problems: list[str]) -> None:
    try:
        found = list(_instances(_import(source) if isinstance(source, Path) else source.load()))
        if not found:
            raise TypeError("holds no Tool class")
        for tool in found:
            _check(tool)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever foreign code raises must not stop the worker
        _log.warning("%s left out", label, exc_info=True)
        problems.append(f"{label}: {type(error).__name__}: {error}")
    else:
        tools.extend(found)


def _import(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"dialtone_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and postponed annotations look their module up
    spec.loader.exec_module(module)
    return module


def _instances(found: object) -> Iterator[Tool[Any]]:
    if isinstance(found, Tool):
        yield found
    elif inspect.isclass(found) and issubclass(found, Tool):
        yield found()
    elif isinstance(found, list | tuple):
        for item in found:
            yield from _instances(item)
    elif isinstance(found, ModuleType):
        own = [item for item in vars(found).values() if inspect.isclass(item) and item.__module__ == found.__name__]
        yield from (item() for item in own if issubclass(item, Tool) and not inspect.isabstract(item))
    else:
        raise TypeError(f"{found!r} is no Tool")


def _check(tool: Tool[Any]) -> None:
    """Raises: TypeError if `tool` lacks something every tool has."""
    name = getattr(tool, "name", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TypeError(f"name {name!r} must match {_NAME.pattern}")
    if not getattr(tool, "description", ""):
        raise TypeError(f"{name} has no description")
    if not isinstance(getattr(tool, "effect", None), Effect):
        raise TypeError(f"{name} declares no effect")
    args_type = getattr(tool, "args_type", None)
    if not (inspect.isclass(args_type) and issubclass(args_type, ToolArgs)):
        raise TypeError(f"{name} must be declared as Tool[<its ToolArgs class>]")
    if not inspect.iscoroutinefunction(tool.run):
        raise TypeError(f"{name}.run must be an async function")
    parameters(args_type)
