"""Searches files where there is no ripgrep: runs by itself inside the sandbox, with nothing but Python 3.8.

Reads one JSON request from standard input and prints what `rg --null` would: `path NUL` for files,
`path NUL count` for counts, `path NUL number:text` for matches and `path NUL number-text` for lines around.
Status as ripgrep's: 0 found, 1 nothing found, 2 a bad pattern or a path that is not there.
"""
# Plain strings and os.path keep it quick over many thousand files.
# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH118, PTH119, PTH123, SIM115

from __future__ import annotations

import fnmatch
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

MAX_COLUMNS = 500
TYPES = {
    "c": "*.c *.h", "cpp": "*.cpp *.cc *.cxx *.hpp *.hh *.h", "css": "*.css *.scss", "go": "*.go",
    "html": "*.html *.htm", "java": "*.java", "js": "*.js *.jsx *.mjs *.cjs *.vue", "json": "*.json",
    "md": "*.md *.markdown", "php": "*.php", "py": "*.py *.pyi", "ruby": "*.rb", "rust": "*.rs", "sh": "*.sh *.bash",
    "sql": "*.sql", "toml": "*.toml", "ts": "*.ts *.tsx *.mts *.cts", "txt": "*.txt", "xml": "*.xml",
    "yaml": "*.yaml *.yml",
}  # fmt: skip


class Ignored:
    """The rules of .gitignore, .ignore and .agentignore files, as far as they are commonly used."""

    def __init__(self, in_git: bool) -> None:
        self.names = (".gitignore", ".ignore", ".agentignore") if in_git else (".ignore", ".agentignore")
        self.rules: list[tuple[str, bool, bool, re.Pattern[str]]] = []

    def enter(self, folder: str) -> None:
        """Takes in the rules of `folder`."""
        for name in self.names:
            if name == ".agentignore" and folder != ".":
                continue
            try:
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                    lines = file.read().splitlines()
            except OSError:
                continue
            for line in lines:
                rule = line.rstrip()
                if rule and not rule.startswith("#"):
                    self.rules.append((folder, *self.parse(rule)))

    @staticmethod
    def parse(rule: str) -> tuple[bool, bool, re.Pattern[str]]:
        keep = rule.startswith("!")
        rule = rule[1:] if keep else rule
        only_folders = rule.endswith("/")
        rule = rule.rstrip("/")
        anchored = "/" in rule
        body = re.escape(rule.lstrip("/")).replace(r"\*\*/", "(?:.*/)?").replace(r"/\*\*", "/.*")
        body = body.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        return keep, only_folders, re.compile(body if anchored else "(?:.*/)?" + body)

    def has(self, path: str, is_folder: bool) -> bool:
        ignored = False
        for folder, keep, only_folders, regex in self.rules:
            inside = path if folder == "." else path[len(folder) + 1 :] if path.startswith(folder + "/") else None
            if inside is not None and (is_folder or not only_folders) and regex.fullmatch(inside):
                ignored = not keep
        return ignored


def walk(request: dict[str, Any]) -> Iterator[str]:
    """The files to look at, in order."""
    start = os.path.normpath(request["path"])
    if os.path.isfile(start):
        yield start
        return
    ignored = Ignored(os.path.isdir(".git"))
    above = "."
    ignored.enter(above)
    for part in [] if start == "." else start.split("/")[:-1]:
        above = part if above == "." else above + "/" + part
        ignored.enter(above)
    for folder, folders, files in os.walk(start):
        folder = os.path.normpath(folder)
        if folder != ".":
            ignored.enter(folder)

        def keeps(name: str, is_folder: bool, folder: str = folder) -> bool:
            path = name if folder == "." else folder + "/" + name
            return bool(request["include_ignored"]) or not ignored.has(path, is_folder)

        folders[:] = sorted(n for n in folders if n not in (".git", ".dialtone") and keeps(n, True))
        for name in sorted(files):
            path = name if folder == "." else folder + "/" + name
            if keeps(name, False) and os.path.isfile(path) and not os.path.islink(path):
                yield path


def wanted(path: str, request: dict[str, Any]) -> bool:
    name = os.path.basename(path)
    patterns = request["names"] or (TYPES[request["type"]].split() if request["type"] else [])
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def matching_lines(text: str, regex: re.Pattern[str], multiline: bool) -> list[int]:
    """The 0-based numbers of the lines that match."""
    if not multiline:
        return [i for i, line in enumerate(text.split("\n")) if regex.search(line.rstrip("\r"))]
    found: set[int] = set()
    for match in regex.finditer(text):
        first = text.count("\n", 0, match.start())
        found.update(range(first, first + match.group().rstrip("\n").count("\n") + 1))
    return sorted(found)


def report(path: str, lines: list[str], hits: list[int], request: dict[str, Any], write: Callable[[str], Any]) -> None:
    if request["mode"] == "files":
        write(path + "\0")
    elif request["mode"] == "counts":
        write(f"{path}\0{len(hits)}\n")
    else:
        around = {n for h in hits for n in range(h - request["before"], h + request["after"] + 1)}
        is_hit = set(hits)
        for number in sorted(n for n in around if 0 <= n < len(lines)):
            line = lines[number].rstrip("\r")
            if len(line) > MAX_COLUMNS:
                line = line[:MAX_COLUMNS] + " [... omitted end of long line]"
            sign = ":" if number in is_hit else "-"
            write(f"{path}\0{number + 1}{sign}{line}\n")


def main() -> int:
    request = json.load(sys.stdin)
    write = sys.stdout.write
    if not os.path.exists(request["path"]):
        sys.exit(request["path"] + ": No such file or directory")
    if request["type"] and request["type"] not in TYPES:
        sys.exit("unrecognized file type: " + request["type"])
    if request["mode"] == "list":
        found = False
        for path in walk(request):
            if wanted(path, request):
                write(path + "\0")
                found = True
        return 0 if found else 1
    flags = (re.IGNORECASE if request["ignore_case"] else 0) | (re.DOTALL | re.MULTILINE if request["multiline"] else 0)
    try:
        regex = re.compile(re.escape(request["pattern"]) if request["fixed"] else request["pattern"], flags)
    except re.error as error:
        sys.exit(f"regex parse error: {error}")
    found = False
    for path in walk(request):
        if not wanted(path, request):
            continue
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            sys.stderr.write(f"{path}: {error.strerror}\n")
            continue
        if b"\0" in raw and path != os.path.normpath(request["path"]):
            continue
        text = raw.decode("utf-8", "replace")
        lines = text[:-1].split("\n") if text.endswith("\n") else text.split("\n")
        hits = [n for n in matching_lines(text, regex, request["multiline"]) if n < len(lines)]
        if hits and b"\0" in raw and request["mode"] == "content":
            found = True
            write(f"Binary file {path} matches\n")
        elif hits:
            found = True
            report(path, lines, hits, request, write)
    return 0 if found else 1


if __name__ == "__main__":
    # sys.exit with a text gives status 1; ripgrep's status for an error is 2.
    try:
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.exit(main())
    except SystemExit as end:
        sys.stdout.flush()
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
            sys.exit(2)
        raise
