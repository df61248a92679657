"""Paths as tools use them: normal form, real target, and what to suggest when nothing is there."""

import hashlib
import posixpath
from difflib import get_close_matches

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.base import FileStat, Sandbox
from workflow.tools.base import ToolContext
from workflow.tools.output import PRIVATE_FOLDER

_SEARCH_DEPTH = 4
_SEARCH_LIMIT = 4000


def normal(path: str, sandbox: Sandbox) -> str:
    """`path` relative to the workspace root, `.` for the root itself; the text alone decides.

    Raises: ToolError with kind `outside_workspace` or `bad_path`.
    """
    if "\0" in path or not path.strip():
        raise ToolError("A path is needed, without NUL characters, e.g. `src/app.py`.", kind="bad_path")
    clean, workdir = posixpath.normpath(path), sandbox.info.workdir.rstrip("/")
    if clean.startswith("/"):
        clean = "/" + clean.lstrip("/")
        if clean != workdir and not clean.startswith(f"{workdir}/"):
            raise _outside(path, workdir)
        clean = posixpath.relpath(clean, workdir)
    if clean == ".." or clean.startswith("../"):
        raise _outside(path, workdir)
    return clean


async def resolve(path: str, sandbox: Sandbox) -> tuple[str, FileStat | None]:
    """The normal path of what `path` leads to, a last symlink followed, and its stat (None: nothing there)."""
    clean = normal(path, sandbox)
    stat = await sandbox.stat(clean)
    if stat is None or stat.kind != "symlink":
        return clean, stat
    try:
        found = await sandbox.exec(["readlink", "-f", "--", clean], timeout_s=10)
    except SandboxError:
        # A sandbox without readlink still opens the file through the link; only the lock is less exact.
        return clean, stat
    target = found.stdout.decode("utf-8", errors="surrogateescape").rstrip("\n")
    if found.exit_code != 0 or not target:
        raise ToolError(f"{clean} is a symbolic link that leads nowhere. Remove or repair it.", kind="file_missing")
    real = normal(target, sandbox)
    return real, await sandbox.stat(real)


async def missing(path: str, sandbox: Sandbox) -> ToolError:
    """The error for a path where nothing is, with up to three likely ones."""
    near = await _suggestions(path, sandbox)
    hint = f"Did you mean {', '.join(near)}?" if near else "Look with ls or glob for the right path."
    return ToolError(f"{path} does not exist. {hint}", kind="file_missing", path=path, suggestions=near)


async def _suggestions(path: str, sandbox: Sandbox) -> list[str]:
    folder, name = posixpath.split(path)
    try:
        beside = [stat.path for stat in await sandbox.list(folder or ".", depth=1)]
    except (ToolError, SandboxError):
        beside = []
    by_name = {posixpath.basename(found).lower(): found for found in beside}
    near = [by_name[match] for match in get_close_matches(name.lower(), by_name, n=3, cutoff=0.6)]
    if len(near) < 3:
        everywhere = await sandbox.list(".", depth=_SEARCH_DEPTH, limit=_SEARCH_LIMIT)
        same = (s.path for s in everywhere if posixpath.basename(s.path) == name and not is_private(s.path))
        near += [found for found in same if found not in near]
    return [found for found in near if found != path][:3]  # a link that leads nowhere is there


def is_private(path: str) -> bool:
    """True for our own bookkeeping in the workspace, which listings and searches leave out."""
    return path == PRIVATE_FOLDER or path.startswith(f"{PRIVATE_FOLDER}/") or f"/{PRIVATE_FOLDER}/" in f"/{path}/"


def digest(content: bytes) -> str:
    """The sha256 by which the log knows a file's content."""
    return hashlib.sha256(content).hexdigest()


def remember(context: ToolContext, path: str, sha256: str) -> dict[str, str]:
    """The fact that the model has seen `path` with this content, for `ToolOutput.facts`.

    Also put into the state at once: a second call of the same turn runs before this one's result is folded.
    """
    context.state.facts[path] = sha256
    return {path: sha256}


def _outside(path: str, workdir: str) -> ToolError:
    return ToolError(
        f"{path} is outside the workspace. Use a path inside {workdir}, e.g. `src/app.py`.",
        kind="outside_workspace",
        path=path,
    )
