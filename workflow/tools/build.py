"""The registry of a worker process: the shipped tools, plugins, and what the settings switch off."""

import os
from collections.abc import Mapping
from typing import Any

from workflow.core.config import ToolSettings
from workflow.tools import plugins
from workflow.tools.ask import AskPerson
from workflow.tools.base import Tool
from workflow.tools.bash import Bash
from workflow.tools.edit import FileEdit, MultiEdit
from workflow.tools.expose import UrlExpose
from workflow.tools.file_read import FileRead
from workflow.tools.files_creation import FilesCreation
from workflow.tools.globbing import Glob
from workflow.tools.jobs import BashKill, BashOutput
from workflow.tools.ls import Ls
from workflow.tools.plan import JobPlan
from workflow.tools.registry import Registry
from workflow.tools.search import Grep
from workflow.tools.search_providers import provider
from workflow.tools.suggest import SuggestNextSteps
from workflow.tools.template import UseTemplate
from workflow.tools.todo import TodoRead, TodoWrite
from workflow.tools.web import WebFetch, WebSearch


def shipped(
    settings: ToolSettings, *, network: str = "off", environ: Mapping[str, str] = os.environ
) -> list[Tool[Any]]:
    """Every tool that comes with the product."""
    return [
        AskPerson(),
        Bash(timeout_s=settings.bash_timeout_s, max_timeout_s=settings.bash_max_timeout_s, network=network),
        BashKill(),
        BashOutput(),
        FileEdit(),
        FileRead(),
        FilesCreation(),
        Glob(),
        Grep(),
        JobPlan(),
        Ls(),
        MultiEdit(),
        SuggestNextSteps(),
        TodoRead(),
        TodoWrite(),
        UrlExpose(),
        UseTemplate(settings.template_folder),
        WebFetch(settings),
        WebSearch(provider(settings, environ)),
    ]


def build_registry(
    settings: ToolSettings, *, network: str = "off", environ: Mapping[str, str] = os.environ
) -> tuple[Registry, tuple[str, ...]]:
    """The registry, and in words each plugin or setting that could not be honoured.

    network: of the sandbox (`off`, `allowlist`, `open`); decides the effect class of shell commands.
    environ: where the keys of search providers are looked up.
    """
    problems: list[str] = []
    if settings.search_provider and provider(settings, environ) is None:
        problems.append(f"[tools] search_provider: {settings.search_provider} has no key (or address) here")
    tools = {tool.name: tool for tool in shipped(settings, network=network, environ=environ)}
    foreign, troubles = plugins.installed()
    problems += troubles
    if settings.plugin_folder:
        more, troubles = plugins.from_folder(settings.plugin_folder)
        foreign, problems = foreign + more, problems + troubles
    for tool in foreign:
        if tool.name in tools:
            problems.append(f"plugin tool {tool.name}: there is already a tool of that name")
        else:
            tools[tool.name] = tool
    problems += [f"[tools] disabled: there is no tool {name!r}" for name in settings.disabled if name not in tools]
    kept = [tool for name, tool in tools.items() if name not in settings.disabled]
    return Registry(kept), tuple(problems)
