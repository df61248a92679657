"""files_creation: many files written, all or none."""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, EventBase, FileChanged
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.diffs import EVENT_CHARS, shortened, unified
from workflow.tools.encoding import decode
from workflow.tools.omission import placeholder_in
from workflow.tools.paths import digest, remember, resolve
from workflow.tools.writing import NewFile, check_folders, locked, write_all

MAX_FILES = 200
MAX_BYTES = 5_000_000


class FileArgs(ToolArgs):
    path: str
    content: str
    executable: bool = False


class CreateArgs(ToolArgs):
    files: tuple[FileArgs, ...] = Field(min_length=1, max_length=MAX_FILES)
    overwrite: bool = Field(False, description="replace files that exist; read them first")


class FilesCreation(Tool[CreateArgs]):
    name = "files_creation"
    effect = Effect.IDEMPOTENT
    description = (
        "Writes one or many whole files, all or none; makes missing folders. Content is written as given. Refuses "
        "to replace existing files unless overwrite=true; to change a part of one use file_edit. At most "
        f"{MAX_FILES} files and {MAX_BYTES // 1_000_000} MB a call; write a very long file in parts."
    )

    def resources(self, args: CreateArgs) -> frozenset[str]:
        return frozenset(f"file:{file.path}" for file in args.files)

    async def run(self, args: CreateArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `exists`, `stale`, `not_read`, `too_large`, `duplicate_path`, `is_directory`,
        `not_a_directory`, `not_regular`, `file_missing`, `outside_workspace`, `bad_path`, `omission_placeholder`,
        `encoding`, `write_failed`. Nothing is left behind after an error."""
        size = sum(len(file.content.encode()) for file in args.files)
        if size > MAX_BYTES:
            raise ToolError(
                f"The files have {size:,} bytes together; a call takes {MAX_BYTES:,}. Split them over several calls.",
                kind="too_large",
            )
        paths = [(await resolve(file.path, context.sandbox))[0] for file in args.files]
        async with locked(paths, context):
            missing_folders = await check_folders(paths, context.sandbox)
            files = [
                await _prepared(file, path, args.overwrite, context)
                for file, path in zip(args.files, paths, strict=True)
            ]
            changed = [file for file in files if file.before != file.content or file.mode is not None]
            await write_all(changed, missing_folders, context.sandbox)
        return _output(files, context)


async def _prepared(file: FileArgs, path: str, overwrite: bool, context: ToolContext) -> NewFile:
    """What to write to `path`. Raises: ToolError if it must not be replaced."""
    mode = 0o755 if file.executable else None
    stat = await context.sandbox.stat(path)
    if stat is None:
        return NewFile(path, file.content.encode(), mode)
    if stat.kind != "file":
        what, kind = ("a folder", "is_directory") if stat.kind == "dir" else ("not a regular file", "not_regular")
        raise ToolError(f"{path} is {what}. Choose another path; nothing was written.", kind=kind, path=path)
    before = await context.sandbox.read(path)
    content = _like(before, file.content)
    if content == before:
        return NewFile(path, content, None if stat.mode & 0o100 else mode, before)
    if not overwrite:
        raise ToolError(
            f"{path} exists already; nothing was written. Change it with file_edit, choose another path, or set "
            "overwrite=true to replace it.",
            kind="exists",
            path=path,
        )
    _check_known(path, before, context)
    known = decode(before)
    line = placeholder_in(file.content, known.text if known else "")
    if line:
        raise ToolError(
            f"The content for {path} has the line {line!r}, which stands for code instead of being it; nothing was "
            "written. Give the whole content, or change parts with file_edit.",
            kind="omission_placeholder",
            path=path,
        )
    return NewFile(path, content, mode, before)


def _check_known(path: str, before: bytes, context: ToolContext) -> None:
    fact = context.state.facts.get(path)
    if fact == digest(before):
        return
    if fact is None:
        raise ToolError(
            f"{path} exists and was not read in this thread; nothing was written. Read it with file_read, then decide.",
            kind="not_read",
            path=path,
        )
    raise ToolError(
        f"{path} changed since you last saw it; nothing was written. Read it again with file_read, then decide.",
        kind="stale",
        path=path,
    )


def _like(before: bytes, content: str) -> bytes:
    """`content` with the encoding, byte order mark and line ends of the file that it replaces."""
    old = decode(before)
    if old is None:
        return content.encode()
    if "\r" not in content and old.text.count("\n") and old.text.count("\r\n") == old.text.count("\n"):
        content = content.replace("\n", "\r\n")
    return old.bom + old.encode(content)


def _output(files: list[NewFile], context: ToolContext) -> ToolOutput:
    lines: list[str] = []
    events: list[EventBase] = []
    facts: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    for file in files:
        sha256 = digest(file.content)
        same = "unchanged" if file.mode is None else "made executable"
        change = "created" if file.before is None else same if file.before == file.content else "overwritten"
        count = file.content.count(b"\n") + (not file.content.endswith(b"\n") and bool(file.content))
        lines.append(f"{change} {file.path} ({count} lines, {len(file.content):,} bytes)")
        rows.append({"path": file.path, "change": change, "size": len(file.content), "sha256": sha256})
        facts |= remember(context, file.path, sha256)
        if change != "unchanged" or file.path not in context.state.files:
            # A repeat after a lost worker finds its own files unchanged; the log still has to hear of them.
            events.append(_event(file, sha256, context))
    return ToolOutput(text="\n".join(lines), data={"files": rows}, events=tuple(events), facts=facts)


def _event(file: NewFile, sha256: str, context: ToolContext) -> EventBase:
    old, new = decode(file.before or b""), decode(file.content)
    diff = unified(old.text, new.text, file.path) if old is not None and new is not None else ""
    return context.event(
        FileChanged,
        path=file.path,
        change="created" if file.before is None else "modified",
        size=len(file.content),
        sha256=sha256,
        diff=shortened(diff, EVENT_CHARS),
    )
