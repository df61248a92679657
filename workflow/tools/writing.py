"""Several files written so that either all of them are there afterwards or none."""

import posixpath
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.base import Sandbox
from workflow.tools.base import ToolContext


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write. `path` is resolved."""

    path: str
    content: bytes
    mode: int | None = None
    before: bytes | None = None
    """What is there now, to be put back if another file fails; None if nothing is."""


@asynccontextmanager
async def locked(paths: Sequence[str], context: ToolContext) -> AsyncIterator[None]:
    """Holds the locks of all `paths`, taken in one order so that two calls cannot wait for each other."""
    async with AsyncExitStack() as stack:
        for path in sorted(set(paths)):
            await stack.enter_async_context(context.lock(path))
        yield


async def check_folders(paths: Sequence[str], sandbox: Sandbox) -> list[str]:
    """The missing folders above `paths`, outermost first.

    Raises: ToolError with kind `duplicate_path` or `not_a_directory`.
    """
    twice = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if twice is not None:
        raise ToolError(f"{twice} is given twice. Give each file once.", kind="duplicate_path", path=twice)
    wanted = {folder for path in paths for folder in _parents(path)}
    clash = next((path for path in paths if path in wanted), None)
    if clash is not None:
        raise ToolError(
            f"{clash} is given as a file, and other files are to be inside of it. Rename one.", kind="not_a_directory"
        )
    missing: list[str] = []
    for folder in sorted(wanted):
        if any(folder.startswith(f"{outer}/") for outer in missing):
            missing.append(folder)
            continue
        stat = await sandbox.stat(folder)
        if stat is None:
            missing.append(folder)
        elif stat.kind not in ("dir", "symlink"):
            raise ToolError(
                f"{folder} is a file, so nothing can be written inside of it. Choose another folder.",
                kind="not_a_directory",
                path=folder,
            )
    return missing


async def write_all(files: Sequence[NewFile], missing_folders: Sequence[str], sandbox: Sandbox) -> None:
    """Writes `files` in order; if one fails, takes back those before.

    missing_folders: from `check_folders`; removed again after a failure.
    Raises: ToolError with kind `write_failed`.
    """
    done: list[NewFile] = []
    try:
        for file in files:
            done.append(file)
            await sandbox.write(file.path, file.content, mode=file.mode)
    except (ToolError, SandboxError) as error:
        left = await _take_back(done, missing_folders, sandbox)
        state = f"these could not be taken back: {', '.join(left)}" if left else "all of them were taken back"
        raise ToolError(
            f"{done[-1].path} could not be written ({error}); {state}. Check the path and the free space, then repeat "
            "the whole call.",
            kind="write_failed",
            path=done[-1].path,
        ) from error


async def _take_back(done: Sequence[NewFile], missing_folders: Sequence[str], sandbox: Sandbox) -> list[str]:
    left: list[str] = []
    for file in reversed(done):
        try:
            if file.before is None:
                await sandbox.remove(file.path)
            else:
                await sandbox.write(file.path, file.before)
        except (ToolError, SandboxError):
            left.append(file.path)
    outermost = [f for f in missing_folders if not any(f.startswith(f"{o}/") for o in missing_folders)]
    for folder in outermost:
        try:
            await sandbox.remove(folder)
        except (ToolError, SandboxError):
            left.append(folder)
    return left


def _parents(path: str) -> list[str]:
    found, folder = [], posixpath.dirname(path)
    while folder:
        found.append(folder)
        folder = posixpath.dirname(folder)
    return found
