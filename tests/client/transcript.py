"""The terminal session of the README: `python -m tests.client.transcript --update` plays it and writes it there.

Commands are real ones on a real stack with the scripted model. Long outputs are shown in parts; `⋮` stands for lines
that are left out. What differs from run to run (ids, times, the machine's name and sandbox, the length of the prompt)
is made alike to compare.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.client.real_stack import real_stack

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"```console\n(\$ dialtone run .*?)```", re.DOTALL)
LEFT_OUT = "  ⋮"
WIDTH = 118
"""Longer lines are cut: the page has no room for them."""

_ALIKE = [
    (re.compile(r"[0-9a-f]{20}\.[0-9a-f]{8}"), "RUN"),
    (re.compile(r"[0-9a-f]{20}"), "THREAD"),
    (re.compile(r"\S+:\d+:[0-9a-f]{4}"), "WORKER"),
    (re.compile(r"configuration [0-9a-f]{12}"), "configuration HASH"),
    (re.compile(r"local/\w+"), "SANDBOX"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\dZ"), "WHEN"),
    (re.compile(r"\b(\d+ min )?\d+(\.\d+)? s\b"), "TIME"),
    (re.compile(r"[\d,]+ tokens"), "TOKENS"),
]


@dataclass(frozen=True)
class Step:
    """One command, and which parts of its output are shown: from a line to a line; without any, all of it."""

    command: str
    parts: tuple[tuple[str, str], ...] = ()


SESSION = (
    Step(
        'dialtone run "Print the first ten primes"',
        (
            (r"  run ", r"  started on"),
            (r"● bash python3 -B demo/primes\.py", r"  ✔ exit 0"),
            (r"● file_edit", r"  ✔"),
            (r"✔ finished", r"✔ finished"),
        ),
    ),
    Step("dialtone files ls {thread} demo"),
    Step("dialtone runs {thread}"),
    Step('dialtone run --budget-turns 2 "Once more"; echo "exit status $?"', ((r"✘ failed", r"exit status"),)),
)


def play(url: str) -> str:
    """The session as it happens now."""
    programs = Path(sys.executable).parent
    environ = {**os.environ, "DIALTONE_URL": url, "NO_COLOR": "1", "PATH": f"{programs}:{os.environ['PATH']}"}
    names: dict[str, str] = {}
    shown: list[str] = []
    for step in SESSION:
        command = step.command.format(**names)
        done = subprocess.run(
            ["bash", "-c", command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=True,
        )
        lines = [line for line in done.stdout.splitlines() if not line.startswith("  waiting ")]
        if found := re.match(r"  run (([0-9a-f]{20})\.[0-9a-f]{8})$", lines[0]):
            names = {"run": found[1], "thread": found[2], **names}
        shown += [f"$ {command}", *(line[:WIDTH].rstrip() for line in select(lines, step.parts))]
    return "\n".join(shown) + "\n"


def select(lines: list[str], parts: tuple[tuple[str, str], ...]) -> list[str]:
    """The wanted parts of `lines`, in order. Raises: AssertionError if one is not there."""
    if not parts:
        return lines
    chosen: list[str] = []
    at = 0
    for first, last in parts:
        begin = next((n for n in range(at, len(lines)) if re.match(first, lines[n])), None)
        assert begin is not None, f"no line begins with {first!r}:\n" + "\n".join(lines)
        end = next(n for n in range(begin, len(lines)) if re.match(last, lines[n]))
        chosen += [LEFT_OUT] if begin > at else []
        chosen += lines[begin : end + 1]
        at = end + 1
    return chosen


def alike(text: str) -> str:
    """`text` without what differs from run to run."""
    for pattern, name in _ALIKE:
        text = pattern.sub(name, text)
    return text


def main() -> int:
    """Plays the session; with `--update` it takes the place of the one in the README."""
    with tempfile.TemporaryDirectory() as folder, real_stack(Path(folder)) as url:
        text = play(url)
    if "--update" not in sys.argv[1:]:
        sys.stdout.write(text)
        return 0
    page = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda _: f"```console\n{text}```", page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
