"""What ignore files exclude from a listing: git's rules, read with patterns that no file can make slow (with those of
pathspec a hostile file held a worker up for minutes, measured)."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.base import FileStat, Sandbox
from workflow.tools.patterns import plain_matcher

_NAMES = (".gitignore", ".ignore", ".agentignore")
"""Later ones win."""
_MAX_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class _Rule:
    """A line of an ignore file. `repository`: the one it counts in; None: everywhere below `folder`."""

    folder: str
    repository: str | None
    keeps: bool
    only_folders: bool
    regex: re.Pattern[str]


async def ignored(entries: Sequence[FileStat], root: str, sandbox: Sandbox) -> set[str]:
    """The paths of `entries` that are excluded, and of everything below them.

    entries: what is in `root`, sorted so that a folder comes before what is in it.
    """
    parts = [] if root == "." else root.split("/")
    above = ["/".join(parts[:i]) for i in range(len(parts) + 1)]
    repositories = {posixpath.dirname(e.path) for e in entries if posixpath.basename(e.path) == ".git"}
    repositories |= {f for f in above if await sandbox.stat(posixpath.join(f, ".git")) is not None}
    folders = {posixpath.dirname(e.path) for e in entries if posixpath.basename(e.path) in _NAMES}
    rules: list[_Rule] = []
    for folder in sorted({*above, *folders}):
        repository = _repository(folder, repositories)
        for name in _NAMES:
            if (name == ".gitignore" and repository is None) or (name == ".agentignore" and folder):
                continue
            scope = repository if name == ".gitignore" else None
            rules += [rule for line in await _lines(folder, name, sandbox) if (rule := _rule(line, folder, scope))]
    found: set[str] = set()
    for entry in entries:
        above_it = posixpath.dirname(entry.path)
        if above_it in found or _is_excluded(entry, _repository(above_it, repositories), rules):
            found.add(entry.path)
    return found


def _repository(folder: str, repositories: set[str]) -> str | None:
    """The innermost repository that `folder` is in."""
    return max((one for one in repositories if _is_in(folder, one)), key=len, default=None)


def _is_in(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


async def _lines(folder: str, name: str, sandbox: Sandbox) -> list[str]:
    try:
        raw = await sandbox.read(posixpath.join(folder, name), limit=_MAX_BYTES)
    except (ToolError, SandboxError):
        return []  # there is none, or it cannot be read
    return raw.decode("utf-8", "replace").removeprefix("\ufeff").splitlines()


def _rule(line: str, folder: str, repository: str | None) -> _Rule | None:
    line = re.sub(r"(?<!\\)\s+$", "", line)
    keeps = line.startswith("!")
    body = line.removeprefix("!")
    if not body.strip("/") or line.startswith("#"):
        return None
    try:
        regex = plain_matcher(body.rstrip("/"))
    except ValueError:
        return None
    return _Rule(folder, repository, keeps, body.endswith("/"), regex)


def _is_excluded(entry: FileStat, repository: str | None, rules: list[_Rule]) -> bool:
    """The verdict of the last rule that says something."""
    for rule in reversed(rules):
        prefix = f"{rule.folder}/" if rule.folder else ""
        if not entry.path.startswith(prefix) or rule.repository not in (None, repository):
            continue
        inside = entry.path.removeprefix(prefix)
        if (entry.kind == "dir" or not rule.only_folders) and rule.regex.fullmatch(inside):
            return not rule.keeps
    return False
