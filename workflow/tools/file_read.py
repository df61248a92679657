"""file_read: a file as the model should see it: numbered lines, a picture, or the cells of a notebook."""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect
from workflow.sandboxes.base import FileStat, Sandbox
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.encoding import decode
from workflow.tools.lines import View
from workflow.tools.notebooks import cells
from workflow.tools.offloop import off_loop
from workflow.tools.paths import digest, missing, normal, remember, resolve
from workflow.tools.pictures import picture
from workflow.tools.truncate import clip_line

MAX_LINES = 2000
MAX_LINE_CHARS = 2000
MAX_CHARS = 50_000
MAX_WHOLE_BYTES = 10_000_000
_CHUNK_BYTES = 1_000_000


class ReadArgs(ToolArgs):
    path: str
    offset: int = Field(1, description="first line, from 1; negative counts from the end")
    limit: int = Field(MAX_LINES, ge=1, description="lines")


class FileRead(Tool[ReadArgs]):
    name = "file_read"
    effect = Effect.PURE
    description = (
        "Reads a text file (lines numbered `12<tab>text`), an image, or a notebook as cells. Shows at most "
        f"{MAX_LINES} lines and {MAX_CHARS} characters at a time; the last line says how to go on."
    )

    async def run(self, args: ReadArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `file_missing`, `is_directory`, `not_regular`, `outside_workspace`, `binary`,
        `too_large`, `past_end`, `bad_path`."""
        real, stat = await resolve(args.path, context.sandbox)
        if stat is None:
            raise await missing(normal(args.path, context.sandbox), context.sandbox)
        if stat.kind == "dir":
            raise ToolError(f"{args.path} is a folder. See what is in it with ls.", kind="is_directory")
        if stat.kind != "file":
            raise ToolError(
                f"{args.path} is a device, pipe or socket; reading it could hang. Use a regular file.",
                kind="not_regular",
            )
        if stat.size > MAX_WHOLE_BYTES:
            return await _read_part(args, real, stat, context.sandbox)
        raw = await context.sandbox.read(real)
        facts = remember(context, real, await off_loop(len(raw), lambda: digest(raw)))
        image = picture(raw, real)
        if image is not None:
            text = f"{real}: {image.media_type}, {len(raw):,} bytes. The picture follows."
            return ToolOutput(text=text, data={"path": real, "media_type": image.media_type}, images=(image,))
        lines, note = await off_loop(len(raw), lambda: _lines(raw, real))
        if not lines:
            return ToolOutput(text=f"{real} is an empty file.", data={"path": real, "lines": 0}, facts=facts)
        return _page(args, real, lines, note=note, facts=facts)


def _lines(raw: bytes, path: str) -> tuple[list[str], str]:
    """The lines to show, none for an empty file, and a note about them."""
    text, note = _as_text(raw, path)
    lines = View(text).lines
    return (lines[:-1] if lines[-1] == "" else lines), note


def _as_text(raw: bytes, path: str) -> tuple[str, str]:
    """The text to show and a note about it."""
    decoded = decode(raw)
    if decoded is None:
        hint = "Extract its text with pdftotext in bash." if raw[:5] == b"%PDF-" else "Look at it with file or xxd."
        raise ToolError(f"{path} is binary ({len(raw):,} bytes). {hint}", kind="binary")
    if path.endswith(".ipynb"):
        shown = cells(decoded.text)
        if shown is not None:
            return shown, "notebook shown as cells; edit its JSON source with file_edit"
    note = f"encoding {decoded.label}" if decoded.label else ""
    return decoded.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), note


def _page(
    args: ReadArgs, path: str, lines: list[str], *, note: str = "", facts: dict[str, str] | None = None
) -> ToolOutput:
    total = len(lines)
    first = args.offset if args.offset > 0 else max(1, total + args.offset + 1) if args.offset else 1
    if first > total:
        raise ToolError(
            f"{path} has {total} lines; there is no line {first}. Use an offset from 1 to {total}.",
            kind="past_end",
            lines=total,
        )
    shown: list[str] = []
    used = 0
    for line in lines[first - 1 : first - 1 + min(args.limit, MAX_LINES)]:
        clipped = f"{first + len(shown)}\t{clip_line(line, MAX_LINE_CHARS)}"
        used += len(clipped) + 1
        if used > MAX_CHARS and shown:
            break
        shown.append(clipped)
    last = first + len(shown) - 1
    if last < total:
        where = f'Lines {first}–{last} of {total}. Go on with file_read(path="{path}", offset={last + 1}).'
    elif first > 1:
        where = f"Lines {first}–{last} of {total}: the end of the file."
    else:
        where = ""
    long = any(len(line) > MAX_LINE_CHARS for line in lines[first - 1 : last])
    cut = f"Cut lines in full: sed -n '<line>p' {path} | cut -c<from>-<to>" if long else ""
    notes = [f"[{text}]" for text in (note, cut, where) if text]
    return ToolOutput(
        text="\n".join([*shown, *(["", *notes] if notes else [])]),
        data={"path": path, "first": first, "last": last, "lines": total},
        facts=facts or {},
    )


async def _read_part(args: ReadArgs, path: str, stat: FileStat, sandbox: Sandbox) -> ToolOutput:
    """Some lines of a file too large to hold; found by reading it in chunks."""
    if args.offset < 1 or (args.offset == 1 and args.limit >= MAX_LINES):
        raise ToolError(
            f"{path} has {stat.size:,} bytes, too many to read as a whole. Find the place with grep, then give offset "
            "(from 1) and a limit below 2000; or use head, tail or sed in bash.",
            kind="too_large",
        )
    wanted_end = args.offset - 1 + min(args.limit, MAX_LINES)
    number, position, kept, rest = 0, 0, [], b""
    while number < wanted_end and position < stat.size:
        chunk = await sandbox.read(path, offset=position, limit=_CHUNK_BYTES)
        if not chunk:
            break
        position += len(chunk)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            if args.offset <= number <= wanted_end:
                kept.append(line[: 4 * MAX_LINE_CHARS].rstrip(b"\r").decode("utf-8", "replace"))
        rest = rest[: 8 * MAX_LINE_CHARS]  # only its start can be shown
    is_end = position >= stat.size and (not rest or number < wanted_end)
    if rest and is_end:
        number += 1
        if number >= args.offset:
            kept.append(rest.decode("utf-8", "replace"))
    if not kept:
        raise ToolError(f"{path} has {number} lines; there is no line {args.offset}.", kind="past_end", lines=number)
    shown = [f"{args.offset + i}\t{clip_line(line, MAX_LINE_CHARS)}" for i, line in enumerate(kept)]
    while len(shown) > 1 and sum(map(len, shown)) > MAX_CHARS:
        shown.pop()
    last = args.offset + len(shown) - 1
    more = "This is its end." if is_end and last == number else f"Go on with offset={last + 1}."
    note = f"[Lines {args.offset}–{last} of a file of {stat.size:,} bytes. {more}]"
    return ToolOutput(text="\n".join([*shown, "", note]), data={"path": path, "first": args.offset, "last": last})
