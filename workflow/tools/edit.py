"""file_edit and multi_edit: text replaced in one file, all of it or nothing.

An edit is idempotent: when the file is no longer as the log knows it, but undoing the edit would make it so, the
edit has already been done (by a worker that died before it could say so) and is reported, not repeated.
"""

from collections.abc import Sequence

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, FileChanged
from workflow.sandboxes.base import FileStat, Sandbox
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.diffs import EVENT_CHARS, shortened, unified
from workflow.tools.encoding import Decoded, decode
from workflow.tools.matching import Applied, Edit, apply_all, no_change
from workflow.tools.offloop import off_loop
from workflow.tools.paths import digest, missing, normal, remember, resolve
from workflow.tools.repeats import check_unread, text_before

MAX_FILE_BYTES = 10_000_000
MAX_EDITS = 100
_SHOWN_DIFF_CHARS = 3000


class EditArgs(ToolArgs):
    path: str
    old: str = Field(description="text to replace, exactly as in the file, without line numbers")
    new: str
    replace_all: bool = Field(False, description="replace every occurrence")


class OneEdit(ToolArgs):
    old: str
    new: str
    replace_all: bool = False


class MultiEditArgs(ToolArgs):
    path: str
    edits: tuple[OneEdit, ...] = Field(
        min_length=1, max_length=MAX_EDITS, description="done in order, each on the result of the one before"
    )


class FileEdit(Tool[EditArgs]):
    name = "file_edit"
    effect = Effect.IDEMPOTENT
    description = (
        "Replaces one piece of text in a file. `old` must occur exactly once: add surrounding lines until it does. "
        "Everything else in the file stays as it is, byte for byte. Read the file first. For several changes in one "
        "file use multi_edit, for new files files_creation."
    )

    def resources(self, args: EditArgs) -> frozenset[str]:
        return frozenset({f"file:{args.path}"})

    async def run(self, args: EditArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `file_missing`, `is_directory`, `not_regular`, `outside_workspace`, `bad_path`, `binary`,
        `too_large`, `encoding`, `stale`, `not_read`, `empty_old`, `no_change`, `omission_placeholder`, `not_found`,
        `ambiguous`."""
        return await edit_file(args.path, [Edit(args.old, args.new, args.replace_all)], context)


class MultiEdit(Tool[MultiEditArgs]):
    name = "multi_edit"
    effect = Effect.IDEMPOTENT
    description = (
        "Makes several replacements in one file, in order, all or none. Each works like file_edit. An empty `old` as "
        "first edit creates a missing file."
    )

    def resources(self, args: MultiEditArgs) -> frozenset[str]:
        return frozenset({f"file:{args.path}"})

    async def run(self, args: MultiEditArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `file_missing`, `is_directory`, `not_regular`, `outside_workspace`, `bad_path`, `binary`,
        `too_large`, `encoding`, `stale`, `not_read`, `empty_old`, `no_change`, `omission_placeholder`, `not_found`,
        `ambiguous`. The detail `index` says which edit failed."""
        return await edit_file(
            args.path, [Edit(e.old, e.new, e.replace_all) for e in args.edits], context, may_create=True
        )


async def edit_file(path: str, edits: Sequence[Edit], context: ToolContext, *, may_create: bool = False) -> ToolOutput:
    """Applies `edits` in order and writes the file once.

    may_create: an empty first `old` stands for a file that is not there yet.
    Raises: ToolError as the tools say. Nothing is written after an error.
    """
    real, _ = await resolve(path, context.sandbox)
    creates = may_create and not edits[0].old
    async with context.lock(real):
        stat = await context.sandbox.stat(real)  # again: another call may have made it while this one waited
        if stat is None:
            if creates:
                return await _create(real, edits, context)
            raise await missing(normal(path, context.sandbox), context.sandbox)
        raw, decoded = await _read(path, real, stat, context.sandbox)
        if creates and _is_made_by(edits, raw):
            return _output(real, "", decoded.text, raw, [], context, repeated=True)
        fact = context.state.facts.get(real)
        if fact is not None and fact != digest(raw):
            before = await off_loop(len(raw), lambda: text_before(decoded, edits, fact))
            if before is None:
                raise _stale(path)
            return _output(real, before, decoded.text, raw, [], context, repeated=True)
        applied = await off_loop(len(raw), lambda: apply_all(decoded.text, edits))
        if applied[-1].text == decoded.text:
            raise no_change()
        if fact is None:
            await off_loop(len(raw), lambda: check_unread(applied, edits, path))
        content = decoded.bom + decoded.encode(applied[-1].text)
        if await context.sandbox.read(real) != raw:
            raise _stale(path)
        await context.sandbox.write(real, content)
        return _output(real, decoded.text, applied[-1].text, content, applied, context)


async def _read(path: str, real: str, stat: FileStat, sandbox: Sandbox) -> tuple[bytes, Decoded]:
    if stat.kind != "file":
        what, kind = ("a folder", "is_directory") if stat.kind == "dir" else ("not a regular file", "not_regular")
        raise ToolError(f"{path} is {what}. Give the path of a file; ls shows what is there.", kind=kind)
    if stat.size > MAX_FILE_BYTES:
        raise ToolError(
            f"{path} has {stat.size:,} bytes; edits work up to {MAX_FILE_BYTES:,}. Change it with a script in bash.",
            kind="too_large",
        )
    raw = await sandbox.read(real)
    decoded = await off_loop(len(raw), lambda: decode(raw))
    if decoded is None:
        raise ToolError(f"{path} is binary. Change it with a program through bash.", kind="binary")
    return raw, decoded


async def _create(path: str, edits: Sequence[Edit], context: ToolContext) -> ToolOutput:
    content, applied = _created(edits)
    await context.sandbox.write(path, content)
    return _output(path, "", applied[-1].text, content, applied, context, created=True)


def _is_made_by(edits: Sequence[Edit], raw: bytes) -> bool:
    """True if the file is what `edits` would create."""
    try:
        return bool(raw) and raw == _created(edits)[0]
    except ToolError:
        return False


def _created(edits: Sequence[Edit]) -> tuple[bytes, list[Applied]]:
    """A new file from the first edit's text and the other edits."""
    applied = [Applied(edits[0].new, 1, 1)]
    if len(edits) > 1:
        applied += apply_all(edits[0].new, edits[1:])
    return applied[-1].text.encode(), applied


def _output(
    path: str,
    before: str,
    after: str,
    content: bytes,
    applied: list[Applied],
    context: ToolContext,
    *,
    created: bool = False,
    repeated: bool = False,
) -> ToolOutput:
    diff = unified(before, after, path)
    sha256, places = digest(content), sum(step.count for step in applied)
    event = context.event(
        FileChanged,
        path=path,
        change="created" if created else "modified",
        size=len(content),
        sha256=sha256,
        diff=shortened(diff, EVENT_CHARS),
    )
    if repeated:
        head = f"{path} already has this edit: it was made just before the worker was replaced."
    elif created:
        head = f"Created {path}."
    else:
        head = f"Edited {path}: {places} {'place' if places == 1 else 'places'}, first at line {applied[0].line}."
    notes = [f"[Edit {i + 1} matched {step.how}.]" for i, step in enumerate(applied) if step.how]
    shown = shortened(diff, _SHOWN_DIFF_CHARS) or "(only line ends changed)"
    return ToolOutput(
        text="\n".join([head, *notes, shown]),
        data={"path": path, "places": places, "size": len(content), "sha256": sha256, "repeated": repeated},
        events=(event,),
        facts=remember(context, path, sha256),
    )


def _stale(path: str) -> ToolError:
    return ToolError(
        f"{path} changed since you last saw it (by a command, another call or a person); nothing was written. Read it "
        "again with file_read, then make the edit on what it holds now.",
        kind="stale",
        path=path,
    )
