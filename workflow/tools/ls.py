"""ls: what is in a folder, as a tree."""

import math
import posixpath

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect
from workflow.sandboxes.base import FileStat
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.ignoring import ignored
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
        left_out = set() if args.include_ignored else await ignored(entries, path, sandbox)
        shown = sorted((e for e in entries if e.path not in left_out), key=lambda e: e.path.split("/"))
        if not shown:
            text = "The folder is empty." if not left_out else "Everything in it is ignored: include_ignored=true."
            return ToolOutput(text=text, data={"path": path, "total": 0})
        if args.offset >= len(shown):
            raise ToolError(
                f"There are {len(shown)} entries; none after {args.offset}. Use a smaller offset.", kind="past_end"
            )
        page = shown[args.offset : args.offset + args.limit]
        lines = [f"{path}/" if path != "." else "./", *(_line(entry, path) for entry in page)]
        notes = _notes(args, len(page), len(shown), len(left_out), is_full=len(listed) >= _MAX_LISTED)
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
