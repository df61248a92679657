"""The system prompt, assembled from named parts in an order that keeps its beginning the same for a whole run."""

import sys
from importlib.resources import files
from pathlib import Path

from workflow.core.config import AgentSettings
from workflow.core.errors import ConfigError, ToolError
from workflow.sandboxes.base import Sandbox, SandboxInfo

MAX_INSTRUCTIONS = 32_768
"""Bytes of project instructions that are read; more would crowd out the task."""

_NETWORK = {
    "off": "There is no network.",
    "allowlist": "The network reaches a short list of hosts (package registries at most); other hosts are refused.",
    "open": "The network is open.",
}


def shipped(name: str) -> str:
    """A text of `workflow/agent/prompts/`."""
    return (files("workflow.agent") / "prompts" / f"{name}.md").read_text().strip()


def system_prompt(settings: AgentSettings, sandbox: SandboxInfo, instructions: str) -> str:
    """Role, environment and project instructions. Nothing in it changes from turn to turn.

    Runs that wait for their model hold it all that time; equal ones are one object.
    Raises: ConfigError if `agent.prompt_file` cannot be read.
    """
    parts = [_role(settings.prompt_file), environment(sandbox)]
    if instructions:
        parts.append(f"# Project instructions ({settings.instructions_file})\n{instructions}")
    return sys.intern("\n\n".join(parts))


def _role(prompt_file: str) -> str:
    if not prompt_file:
        return shipped("role")
    try:
        return Path(prompt_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"agent.prompt_file {prompt_file}: cannot be read: {error}") from error


def environment(sandbox: SandboxInfo) -> str:
    """Where the agent is."""
    return (
        "# Environment\n"
        f"- Workspace: {sandbox.workdir}; paths are relative to it. It stays for the next task of this thread.\n"
        f"- Commands run by bash on Linux, sandbox {sandbox.label}. {_NETWORK[sandbox.network]}"
    )


async def project_instructions(settings: AgentSettings, sandbox: Sandbox) -> str:
    """The workspace's own instructions; empty when there are none."""
    if not settings.instructions_file:
        return ""
    try:
        raw = await sandbox.read(settings.instructions_file, limit=MAX_INSTRUCTIONS + 1)
    except ToolError:
        return ""
    text = raw[:MAX_INSTRUCTIONS].decode(errors="replace").strip()
    return text + ("\n(cut here: longer than 32 KiB)" if len(raw) > MAX_INSTRUCTIONS else "")
