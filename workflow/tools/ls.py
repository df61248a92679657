"""ls: what is in a folder, as a tree."""

import math
import posixpath

from pathspec import GitIgnoreSpec
from pydantic import Field

from workflow.core.errors import SandboxError, ToolError
from workflow.core.events import Effect
from workflow.sandboxes.base import FileStat, Sandbox
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.output import PRIVATE_FOLDER
from workflow.tools.paths import missing, normal, resolve

_MAX_LISTED = 10_000
_CLOSED = (".git", PRIVATE_FOLDER)


class LsArgs(ToolArgs):
    path: str = "."
    depth: int = Field(2, ge=1, le=10)
    include_ignored: bool = Field(False, description="also show what ignore files exclude")
    limit: int = Field(500, ge=1, le=5000)
    offset: int = Field(0, ge=0)


class Ls(Tool[LsArgs]):
    name = "ls"
    effect = Effect.PURE
    description = "Shows a folder as a tree with sizes, dot files included; folders end with /. Respects ignore files."

    async def run(self, args: LsArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `file_missing`, `not_a_directory`, `outside_workspace`, `bad_path`, `past_end`."""
        sandbox = context.sandbox
        path, stat = await resolve(args.path, sandbox)
        if stat is None:
            raise await missing(normal(args.path, sandbox), sandbox)
        if stat.kind != "dir":
            raise ToolError(f"{args.path} is a file. Read it with file_read.", kind="not_a_directory")
        listed = await sandbox.list(path, depth=args.depth, limit=_MAX_LISTED)
        entries = [entry for entry in listed if not _is_closed(entry.path, path)]
        ignored: set[str] = set()
        if not args.include_ignored:
            ignored = await _ignored(entries, path, sandbox)
        shown = sorted((e for e in entries if e.path not in ignored), key=lambda e: e.path.split("/"))
        if not shown:
            text = "The folder is empty." if not ignored else "Everything in it is ignored: include_ignored=true."
            return ToolOutput(text=text, data={"path": path, "total": 0})
        if args.offset >= len(shown):
            raise ToolError(
                f"There are {len(shown)} entries; none after {args.offset}. Use a smaller offset.", kind="past_end"
            )
        page = shown[args.offset : args.offset + args.limit]
        lines = [f"{path}/" if path != "." else "./", *(_line(entry, path) for entry in page)]
        notes = _notes(args, len(page), len(shown), len(ignored), is_full=len(listed) >= _MAX_LISTED)
        text = "\n".join([*lines, *(["", *notes] if notes else [])]).encode("utf-8", "replace").decode()
        return ToolOutput(text=text, data={"path": path, "total": len(shown)})


def _line(entry: FileStat, root: str) -> str:
    inside = entry.path if root == "." else entry.path.removeprefix(f"{root}/")
    indent, name = "  " * (inside.count("/") + 1), posixpath.basename(inside)
    if entry.kind == "dir":
        return f"{indent}{name}/"
    if entry.kind == "symlink":
        return f"{indent}{name} (symbolic link)"
    return f"{indent}{name}  {_size(entry.size)}" if entry.kind == "file" else f"{indent}{name} (not a regular file)"


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    unit = min(int(math.log10(size)) // 3, 3)
    return f"{size / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB')[unit]}"


def _notes(args: LsArgs, page: int, total: int, ignored: int, *, is_full: bool) -> list[str]:
    notes: list[str] = []
    if page < total:
        more = f", go on with offset={args.offset + page}" if args.offset + page < total else ""
        notes.append(f"[entries {args.offset + 1}–{args.offset + page} of {total}{more}]")
    if ignored:
        notes.append(f"[{ignored} ignored entries not shown; include_ignored=true shows them]")
    if is_full:
        notes.append(f"[more than {_MAX_LISTED:,} entries: list a folder further down or use glob]")
    return notes


def _is_closed(path: str, root: str) -> bool:
    """True for our own folder, and for what is inside of .git, unless that is what was asked for."""
    parts = path.removeprefix("" if root == "." else f"{root}/").split("/")
    return (parts[0] == PRIVATE_FOLDER and root == ".") or any(part in _CLOSED for part in parts[:-1])


async def _ignored(entries: list[FileStat], root: str, sandbox: Sandbox) -> set[str]:
    """The entries that ignore files exclude, and everything below them."""
    names = [".ignore", ".agentignore"]
    if await sandbox.stat(".git") is not None:
        names.append(".gitignore")
    parts = [] if root == "." else root.split("/")
    folders = {"/".join(parts[:i]) for i in range(len(parts) + 1)}
    folders |= {posixpath.dirname(e.path) for e in entries if posixpath.basename(e.path) in names}
    specs = [(folder, spec) for folder in sorted(folders) if (spec := await _spec(folder, names, sandbox)) is not None]
    ignored: set[str] = set()
    for entry in entries:  # sorted: a folder comes before what is in it
        is_below = posixpath.dirname(entry.path) in ignored
        if is_below or (specs and _matches(entry, specs)):
            ignored.add(entry.path)
    return ignored


async def _spec(folder: str, names: list[str], sandbox: Sandbox) -> GitIgnoreSpec | None:
    lines: list[str] = []
    for name in names:
        try:
            lines += (await sandbox.read(posixpath.join(folder, name))).decode("utf-8", "replace").splitlines()
        except (ToolError, SandboxError):
            continue  # there is none, or it cannot be read
    return GitIgnoreSpec.from_lines(lines) if lines else None


def _matches(entry: FileStat, specs: list[tuple[str, GitIgnoreSpec]]) -> bool:
    """The verdict of the innermost ignore file that says something."""
    name = f"{entry.path}/" if entry.kind == "dir" else entry.path
    for folder, spec in reversed(specs):
        if folder and not name.startswith(f"{folder}/"):
            continue
        verdict = spec.check_file(name.removeprefix(f"{folder}/") if folder else name).include
        if verdict is not None:
            return verdict
    return False
