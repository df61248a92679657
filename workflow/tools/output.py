"""What commands print, made readable; what is too long, kept in a file of the workspace."""

import hashlib
import re
from dataclasses import dataclass, replace

from workflow.core.errors import SandboxError, ToolError
from workflow.tools.base import ToolContext
from workflow.tools.truncate import head_and_tail

OUTPUT_FOLDER = ".dialtone/outputs"
PRIVATE_FOLDER = ".dialtone"
_MAX_KEPT_BYTES = 20_000_000
_SNIFFED_BYTES = 4096
_SCREEN_CHARS = 20_000

# CSI, OSC (titles, links), single-character escapes, and shift/charset controls.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{6,64}")


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as the model gets it."""

    text: str
    note: str = ""
    """Stands apart from the text, so that nobody takes it for data."""
    file: str = ""
    """Where the whole text is, when it was cut."""

    def with_text(self, text: str) -> "Shown":
        """The same with its text in another dress, e.g. fenced."""
        return replace(self, text=text)

    def with_note(self, *notes: str) -> str:
        """The text, and below it all notes in brackets."""
        lines = [f"[{note}]" for note in (*notes, self.note) if note]
        return "\n".join([self.text, "", *lines] if lines else [self.text])


def readable(raw: bytes) -> str:
    """Terminal output as plain text: UTF-8 with replacements, no escape codes, progress lines in their last state."""
    if is_binary(raw):
        return f"(binary output, {len(raw):,} bytes; look at it with file, xxd or strings)"
    text = _ANSI.sub("", raw.decode("utf-8", errors="replace"))
    if "\b" in text:
        text = _without_overstrikes(text)
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(_last_state(line) for line in text.split("\n"))
    return _CONTROL.sub(lambda match: "␀" if match[0] == "\0" else "", text)


def colours(raw: bytes) -> str:
    """The end of an output that has colours, with their codes and no others, for people; empty when it has none."""
    if b"\x1b[" not in raw or is_binary(raw):
        return ""
    text = _ANSI.sub(lambda code: code[0] if _COLOUR.fullmatch(code[0]) else "", raw.decode("utf-8", errors="replace"))
    kept = text if len(text) <= _SCREEN_CHARS else text[-_SCREEN_CHARS:].partition("\n")[2]
    return kept if _COLOUR.search(kept) else ""


def _without_overstrikes(text: str) -> str:
    """Each backspace takes the character before it away, as a terminal would show it."""
    kept: list[str] = []
    for char in text:
        if char != "\b":
            kept.append(char)
        elif kept and kept[-1] != "\n":
            kept.pop()
    return "".join(kept)


def _last_state(line: str) -> str:
    """What a terminal shows after `line`, a progress bar that returns to its start again and again."""
    states = [state for state in line.split("\r") if state.strip()]
    return states[-1] if states else ""


def is_binary(raw: bytes) -> bool:
    """True if the first 4 KB are mostly not text; a NUL alone does not make them so (`find -print0`)."""
    start = raw[:_SNIFFED_BYTES]
    if not start:
        return False
    text = start.decode("utf-8", errors="replace")
    odd = sum(char == "\ufffd" or (char < " " and char not in "\0\a\t\n\r\f\b\x1b") for char in text)
    return odd > len(text) * 0.1


async def show(context: ToolContext, text: str, *, limit: int = 0) -> Shown:
    """`text` within `limit` characters (0: the configured size); the whole of a longer one goes to a file."""
    limit = limit or context.settings.output_chars
    cut = head_and_tail(text, limit)
    if cut is None:
        return Shown(text)
    try:
        path = await keep(context, text.encode("utf-8", errors="replace")[:_MAX_KEPT_BYTES])
    except (SandboxError, ToolError) as error:
        return Shown(cut.text, f"cut to {limit:,} characters; the rest could not be kept: {error}")
    lines = text.count("\n") + 1
    note = (
        f'Cut to {limit:,} characters. All {lines:,} lines are in {path}: search it with grep(pattern="…", '
        f'path="{path}", output_mode="content") or page through it with file_read(path="{path}", offset=…)'
    )
    return Shown(cut.text, note, path)


async def keep(context: ToolContext, content: bytes) -> str:
    """Writes `content` to the workspace; the path it has there. Raises: SandboxError, ToolError."""
    path = f"{OUTPUT_FOLDER}/{file_name(context)}.txt"
    await context.sandbox.write(path, content)
    ignore = f"{PRIVATE_FOLDER}/.gitignore"
    if await context.sandbox.stat(ignore) is None:
        await context.sandbox.write(ignore, b"*\n")
    return path


def file_name(context: ToolContext) -> str:
    """The call's id as a file name. Ids that providers number anew every turn get the turn's hash."""
    call_id = str(context.call_id)
    if _SAFE_NAME.fullmatch(call_id) and not re.fullmatch(r"[a-z]*_?\d{1,4}", call_id):
        return call_id
    digest = hashlib.sha256(context.effect_key.encode()).hexdigest()[:10]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', call_id)[:40].strip('_') or 'call'}-{digest}"
