"""Searches inside the sandbox: ripgrep where it is installed, a Python script of the same contract where not.

Never on the host: a workspace may hold planted configuration, and a search may cost what it likes in there.
"""

import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.base import ExecResult, Sandbox
from workflow.tools.offloop import off_loop
from workflow.tools.output import PRIVATE_FOLDER

TIMEOUT_S = 20.0
MAX_COLUMNS = 500
_MAX_OUTPUT = 4_000_000
_MISSING = 127
_BINARY = re.compile(r"Binary file (.+) matches\b|(.+): binary file matches\b")
_ROW = re.compile(r"(\d+)([:-])(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for. `path` is normal; `names` are globs of which a file's name has to match one."""

    path: str
    mode: Literal["list", "files", "counts", "content"]
    pattern: str = ""
    names: tuple[str, ...] = ()
    type: str = ""
    ignore_case: bool = False
    fixed: bool = False
    multiline: bool = False
    before: int = 0
    after: int = 0
    include_ignored: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A file, a count in a file, or a line of a file."""

    path: str
    number: int = 0
    text: str = ""
    is_match: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    rows: list[Row]
    """Sorted by path, then as they stand in the file."""
    note: str = ""
    """Why there may be more, or what could not be read."""


async def search(query: Query, sandbox: Sandbox) -> Found:
    """Everything that matches. Raises: ToolError with kind `bad_pattern`, `file_missing` or `search_failed`."""
    result = await _ripgrep(query, sandbox)
    if result is None:
        result = await _fallback(query, sandbox)
    stderr = result.stderr.decode("utf-8", "replace").strip()
    if result.exit_code not in (0, 1) and not result.timed_out and not result.stdout:
        raise _failed(stderr, query)
    notes: list[str] = []
    if result.timed_out:
        notes.append(f"The search was stopped after {TIMEOUT_S:g} s, so there may be more: narrow path, glob or type")
    if result.dropped_bytes:
        notes.append("There was too much to take in, so some is missing: narrow the pattern, path, glob or type")
    if stderr and result.exit_code == 2:
        notes.append(f"Some files could not be searched: {stderr[:300]}")
    rows = await off_loop(len(result.stdout), lambda: _rows(result.stdout, query.mode))
    return Found(rows, ". ".join(notes))


async def _ripgrep(query: Query, sandbox: Sandbox) -> ExecResult | None:
    """None if there is no ripgrep."""
    ignore_file = await sandbox.stat(".agentignore") if not query.include_ignored else None
    arguments = _arguments(query) if ignore_file is None else ["--ignore-file", ".agentignore", *_arguments(query)]
    for extra in ([], ["-j1"]):
        try:
            result = await sandbox.exec(["rg", *extra, *arguments], timeout_s=TIMEOUT_S, max_output=_MAX_OUTPUT)
        except SandboxError:
            return None
        if result.exit_code == _MISSING:
            return None
        if b"os error 11" not in result.stderr:
            break  # else the process limit of the sandbox kept ripgrep from starting its threads: use one
    return result


async def _fallback(query: Query, sandbox: Sandbox) -> ExecResult:
    command = ["python3", "-I", "-c", _script()]
    request = json.dumps(asdict(query)).encode()
    result = await sandbox.exec(command, stdin=request, timeout_s=TIMEOUT_S, max_output=_MAX_OUTPUT)
    if result.exit_code == _MISSING:
        raise ToolError(
            "The sandbox has neither rg nor python3, so it cannot be searched. Use grep or find in bash.",
            kind="search_failed",
        )
    return result


@cache
def _script() -> str:
    return files("workflow.tools").joinpath("search_fallback.py").read_text(encoding="utf-8")


def _arguments(query: Query) -> list[str]:
    found = ["--no-config", "--color=never", "--null", "--hidden", "--glob=!.git", f"--glob=!{PRIVATE_FOLDER}"]
    if query.include_ignored:
        found.append("--no-ignore")
    elif query.path == ".":
        found.append("--no-ignore-parent")  # what lies above the workspace is seen on the plain tier only
    if query.names:
        # A file type, not --glob: that would overrule the ignore files.
        found += [f"--type-add=wanted:{name}" for name in query.names] + ["--type=wanted"]
    elif query.type:
        found.append(f"--type={query.type}")
    if query.mode == "list":
        return [*found, "--files", "--", query.path]
    found += {
        "files": ["--files-with-matches"],
        "counts": ["--count"],
        "content": ["--line-number", "--no-heading", f"--max-columns={MAX_COLUMNS}", "--max-columns-preview"],
    }[query.mode]
    flags = {
        "--ignore-case": query.ignore_case,
        "--fixed-strings": query.fixed,
        "--multiline": query.multiline,
        "--multiline-dotall": query.multiline,
        f"--before-context={query.before}": bool(query.before),
        f"--after-context={query.after}": bool(query.after),
    }
    found += [flag for flag, wanted in flags.items() if wanted]
    return [*found, "--with-filename", "--crlf", "-e", query.pattern, "--", query.path]


def _rows(stdout: bytes, mode: str) -> list[Row]:
    """Sorted by path; the lines of a file stay in their order."""
    text = stdout.decode("utf-8", "surrogateescape")
    if mode in ("list", "files"):
        return [Row(path) for path in sorted(_clean(path) for path in text.split("\0")[:-1])]
    rows: list[Row] = []
    # A name may hold line ends, a line may not: the name is all from the end of the line before to the NUL.
    name, *rest = text[: text.rfind("\n") + 1].split("\0")  # the last line may be cut
    for chunk in rest:
        path = _clean(_without_remarks(name, rows))
        line, _, name = chunk.partition("\n")
        if mode == "counts":
            rows.append(Row(path, int(line)))
        elif match := _ROW.fullmatch(line):
            rows.append(Row(path, int(match[1]), match[3].rstrip("\r"), match[2] == ":"))
    _without_remarks(name, rows)
    return sorted(rows, key=lambda row: row.path)


def _without_remarks(name: str, rows: list[Row]) -> str:
    """`name` without the lines before it that are no names: a gap in a file, or a binary file, which gets its row."""
    while "\n" in name:
        line, _, after = name.partition("\n")
        binary = _BINARY.match(line)
        if binary:
            rows.append(Row(_clean(binary[1] or binary[2]), text="(binary file matches)"))
        elif line.rstrip("\r") != "--":
            break
        name = after
    return name


def _clean(path: str) -> str:
    return path.removeprefix("./")


def _failed(stderr: str, query: Query) -> ToolError:
    if "No such file or directory" in stderr:
        return ToolError(f"{query.path} does not exist. Look with ls or glob.", kind="file_missing", path=query.path)
    if "unrecognized file type" in stderr:
        return ToolError(
            f'There is no file type {query.type!r}. Use glob instead, e.g. glob="*.{query.type}".', kind="bad_pattern"
        )
    if "regex" in stderr or "glob" in stderr or "escape sequence" in stderr:
        return ToolError(
            f"The pattern cannot be used: {stderr[:600]}\nCorrect it, or set fixed=true to search for it literally.",
            kind="bad_pattern",
        )
    return ToolError(f"The search failed: {stderr[:600] or 'no reason was given'}", kind="search_failed")
