"""glob: files by name."""

import posixpath

from pydantic import Field

from workflow.core.errors import SandboxError, ToolError
from workflow.core.events import Effect
from workflow.sandboxes.base import Sandbox
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.paths import missing, normal, resolve
from workflow.tools.patterns import matcher
from workflow.tools.ripgrep import Query, search

_DATED = 5000


class GlobArgs(ToolArgs):
    pattern: str = Field(min_length=1, max_length=2000, description='e.g. "*.py" (any depth), "src/**/*.{ts,tsx}"')
    path: str = Field(".", description="folder the pattern starts from")
    include_ignored: bool = Field(False, description="also find what ignore files exclude")
    limit: int = Field(100, ge=1, le=5000)
    offset: int = Field(0, ge=0)


class Glob(Tool[GlobArgs]):
    name = "glob"
    effect = Effect.PURE
    description = (
        "Finds files by name, newest first. A pattern without a slash matches at any depth; names with a leading dot "
        "only if the pattern spells the dot. Respects ignore files."
    )

    async def run(self, args: GlobArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `bad_pattern`, `file_missing`, `not_a_directory`, `outside_workspace`, `bad_path`,
        `past_end`, `search_failed`."""
        sandbox = context.sandbox
        path, pattern = await _start(args, sandbox)
        paths, note = await _matching(args, path, pattern, sandbox)
        if not paths:
            hint = "" if args.include_ignored else " or include_ignored=true"
            return ToolOutput(
                text=f"No files match. Try a wider pattern (**/name*){hint}.{f' [{note}.]' if note else ''}",
                data={"total": 0, "paths": []},
            )
        if args.offset >= len(paths):
            raise ToolError(
                f"There are {len(paths)} files; none after {args.offset}. Use a smaller offset.", kind="past_end"
            )
        page = paths[args.offset : args.offset + args.limit]
        end = args.offset + len(page)
        notes = [f"files {args.offset + 1}–{end} of {len(paths)}"] if len(page) < len(paths) else []
        if end < len(paths):
            notes[0] += f", go on with offset={end}"
        tail = [f"[{text}]" for text in (*notes, note) if text]
        text = "\n".join([*page, *(["", *tail] if tail else [])]).encode("utf-8", "replace").decode()
        return ToolOutput(text=text, data={"total": len(paths), "paths": page[:200]})


async def _start(args: GlobArgs, sandbox: Sandbox) -> tuple[str, str]:
    """The folder to start from and the pattern inside of it; an absolute pattern brings its own folder."""
    path, pattern = args.path, args.pattern
    if pattern.startswith("/"):
        parts = pattern.split("/")
        plain = next((i for i, part in enumerate(parts) if any(sign in part for sign in "*?[{")), len(parts) - 1)
        path, pattern = "/".join(parts[:plain]) or "/", f"./{'/'.join(parts[plain:])}"
    elif pattern.startswith("../"):
        path, pattern = posixpath.join(path, ".."), pattern.removeprefix("../")
    real, stat = await resolve(path, sandbox)
    if stat is None:
        raise await missing(normal(path, sandbox), sandbox)
    if stat.kind != "dir":
        raise ToolError(f"{path} is not a folder. Give the folder to start from.", kind="not_a_directory")
    return real, pattern


async def _matching(args: GlobArgs, path: str, pattern: str, sandbox: Sandbox) -> tuple[list[str], str]:
    prefix = "" if path == "." else f"{path}/"
    literal = await sandbox.stat(posixpath.normpath(f"{prefix}{pattern}"))
    if literal is not None and literal.kind == "file":
        return [literal.path], ""  # a real name may hold brackets and braces, e.g. `[slug].tsx`
    try:
        regex = matcher(f"/{pattern[2:]}" if pattern.startswith("./") else pattern)
    except ValueError as error:
        raise ToolError(f"The pattern cannot be used: {error}. Simplify it.", kind="bad_pattern") from error
    found = await search(Query(path, "list", include_ignored=args.include_ignored), sandbox)
    paths = [row.path for row in found.rows if regex.fullmatch(row.path.removeprefix(prefix))]
    return await _newest_first(paths, sandbox), found.note


async def _newest_first(paths: list[str], sandbox: Sandbox) -> list[str]:
    """`paths` by time of change, latest first; by name if they are too many or their times cannot be had."""
    if not 1 < len(paths) <= _DATED:
        return paths
    names = "\0".join(paths).encode("utf-8", "surrogateescape")
    try:
        result = await sandbox.exec(
            ["xargs", "-0", "stat", "--printf=%.9Y\\n", "--"], stdin=names, timeout_s=20, max_output=1_000_000
        )
    except SandboxError:
        return paths
    times = result.stdout.split()
    if result.exit_code != 0 or len(times) != len(paths):
        return paths
    dated = sorted(zip(paths, map(float, times), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return [path for path, _ in dated]
