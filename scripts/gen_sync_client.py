"""Writes dialtone/sync.py from dialtone/client.py: `python -m scripts.gen_sync_client` (`--check` only compares)."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, FILE = ROOT / "dialtone" / "client.py", ROOT / "dialtone" / "sync.py"
RULES = (
    (
        r'^"""The asynchronous client\.',
        '"""The synchronous client, for scripts and notebooks. Made by `scripts/gen_sync_client.py` from `client.py`.',
    ),
    (r"between tasks of one event loop", "between threads"),
    (r"(\n +)(?:async )?for (\w+) in ([^\n]+):\n +yield \2\n", r"\1yield from \3\n"),
    (r"AsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"AsyncGenerator", "Generator"),
    (r"httpx\.Async(\w+)", r"httpx.\1"),
    (r"AsyncClient", "Client"),
    (r"\bimport asyncio\b", "import time"),
    (r"asyncio\.sleep", "time.sleep"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\.a(close|read|iter_bytes)\(", r".\1("),
    (r"\((await [^()]+\([^()]+\([^()]*\)\))\)\[", r"\1["),
    (r"\((await [^()]+\([^()]*\))\)\.", r"\1."),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
)
"""What differs between the two, in the order in which it is replaced."""


def main(argv: list[str] | None = None) -> int:
    """Writes or compares; 1 when the file is out of date."""
    text = render()
    if "--check" in (sys.argv[1:] if argv is None else argv):
        is_current = FILE.exists() and FILE.read_text(encoding="utf-8") == text
        if not is_current:
            print(f"{FILE} is out of date: python -m scripts.gen_sync_client", file=sys.stderr)
        return 0 if is_current else 1
    FILE.write_text(text, encoding="utf-8")
    return 0


def render() -> str:
    """The whole module, formatted and its imports sorted."""
    text = SOURCE.read_text(encoding="utf-8")
    for pattern, instead in RULES:
        text = re.sub(pattern, instead, text)
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(FILE), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


if __name__ == "__main__":
    sys.exit(main())
