"""grep: text in files."""

import posixpath
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.output import show
from workflow.tools.paths import missing, resolve
from workflow.tools.patterns import alternatives, matcher
from workflow.tools.ripgrep import Found, Query, Row, search

_MODES: dict[str, Literal["files", "counts", "content"]] = {
    "files_with_matches": "files",
    "content": "content",
    "count_matches": "counts",
}


class GrepArgs(ToolArgs):
    pattern: str = Field(min_length=1, max_length=10_000, description="regular expression (ripgrep)")
    path: str = Field(".", description="folder or file")
    glob: str = Field("", description='e.g. "*.py" (any depth) or "src/**/*.{ts,tsx}" (from path)')
    type: str = Field("", description="ripgrep file type, e.g. py, js")
    output_mode: Literal["files_with_matches", "content", "count_matches"] = "files_with_matches"
    before: int = Field(0, ge=0, le=100, description="lines shown before each match")
    after: int = Field(0, ge=0, le=100)
    context: int = Field(0, ge=0, le=100, description="lines before and after")
    ignore_case: bool = False
    fixed: bool = Field(False, description="pattern is plain text")
    multiline: bool = Field(False, description="let the pattern span lines")
    include_ignored: bool = Field(False, description="also search what ignore files exclude")
    limit: int = Field(250, ge=1, le=5000, description="entries shown")
    offset: int = Field(0, ge=0, description="entries skipped")


class Grep(Tool[GrepArgs]):
    name = "grep"
    effect = Effect.PURE
    description = (
        "Searches file contents. Respects ignore files, skips binaries, looks into dot folders except .git. Sorted by "
        "path; says how many there are in all. output_mode=content shows the matching lines with their numbers."
    )

    async def run(self, args: GrepArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `bad_pattern`, `file_missing`, `outside_workspace`, `bad_path`, `past_end`,
        `search_failed`."""
        path, stat = await resolve(args.path, context.sandbox)
        if stat is None:
            raise await missing(path, context.sandbox)
        try:
            keeps, query = _filter(args, path, is_file=stat.kind == "file"), _query(args, path)
        except ValueError as error:
            raise ToolError(f"The glob cannot be used: {error}. Simplify it.", kind="bad_pattern") from error
        found = await search(query, context.sandbox)
        rows = [row for row in found.rows if keeps(row.path)]
        return await _output(args, Found(rows, found.note), context)


def _query(args: GrepArgs, path: str) -> Query:
    # The name part of a glob narrows the search already; its folders are checked afterwards.
    name = posixpath.basename(args.glob)
    narrow = bool(name) and not args.type and name != "**" and not args.glob.startswith("!") and "/" not in _brace(args)
    names = alternatives(name) if narrow else ()
    return Query(
        path=path,
        mode=_MODES[args.output_mode],
        pattern=args.pattern,
        names=tuple(names),
        type=args.type,
        ignore_case=args.ignore_case,
        fixed=args.fixed,
        multiline=args.multiline,
        before=args.before or args.context,
        after=args.after or args.context,
        include_ignored=args.include_ignored,
    )


def _brace(args: GrepArgs) -> str:
    """What stands between the outermost braces of the glob."""
    return args.glob[args.glob.find("{") : args.glob.rfind("}") + 1] if "{" in args.glob else ""


def _filter(args: GrepArgs, path: str, *, is_file: bool) -> Callable[[str], bool]:
    """Whether a found path matches the glob, which is anchored at the folder that is searched."""
    if not args.glob or is_file:
        return lambda found: True
    negated = args.glob.startswith("!")
    regex = matcher(args.glob.removeprefix("!"), dots=True)
    prefix = "" if path == "." else f"{path}/"
    return lambda found: bool(regex.fullmatch(found.removeprefix(prefix))) != negated


async def _output(args: GrepArgs, found: Found, context: ToolContext) -> ToolOutput:
    rows = found.rows
    matches = sum(row.number for row in rows) if args.output_mode == "count_matches" else sum(r.is_match for r in rows)
    files = len({row.path for row in rows})
    data = {"files": files, "matches": matches, "total": len(rows)}
    if not rows:
        note = f" [{found.note}.]" if found.note else ""
        return ToolOutput(text=f"No matches found.{_advice(args)}{note}", data=data)
    if args.offset >= len(rows):
        raise ToolError(
            f"There are {len(rows)} entries; none after {args.offset}. Use a smaller offset.", kind="past_end"
        )
    page = rows[args.offset : args.offset + args.limit]
    shown = await show(context, "\n".join(_lines(page, args.output_mode)).encode("utf-8", "replace").decode())
    count = f"{files} file{'s' * (files != 1)}"
    if args.output_mode != "files_with_matches":
        count = f"{matches} match{'es' * (matches != 1)} in {count}"
    notes = [count]
    if len(page) < len(rows):
        notes[0] += f"; entries {args.offset + 1}–{args.offset + len(page)} of {len(rows)}"
        if args.offset + len(page) < len(rows):
            notes[0] += f", go on with offset={args.offset + len(page)}"
    return ToolOutput(text=shown.with_note(*notes, found.note), data=data)


def _lines(rows: list[Row], mode: str) -> list[str]:
    if mode == "files_with_matches":
        return [row.path for row in rows]
    if mode == "count_matches":
        return [f"{row.path}:{row.number}" for row in rows]
    lines: list[str] = []
    has_context = any(not row.is_match for row in rows)
    before: Row | None = None
    for row in rows:
        if has_context and before and (before.path, before.number + 1) != (row.path, row.number):
            lines.append("--")
        sign = ":" if row.is_match else "-"
        lines.append(f"{row.path}{sign}{row.number}{sign}{row.text}" if row.number else f"{row.path}: {row.text}")
        before = row
    return lines


def _advice(args: GrepArgs) -> str:
    """What might help after a search that found nothing."""
    if args.fixed and any(sign in args.pattern for sign in ("\\", ".*", "|", "^", "$")):
        return " The pattern looks like a regular expression: try fixed=false."
    hints = [] if args.ignore_case else ["ignore_case=true"]
    hints += [] if args.include_ignored else ["include_ignored=true"]
    hints += ["another glob or path"] if args.glob or args.type or args.path != "." else []
    return f" Try {', '.join(hints)}, or a simpler pattern." if hints else " Try a simpler pattern."
