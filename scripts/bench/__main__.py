"""`python -m scripts.bench <name> [options]` runs the benchmark `scripts/bench/<name>.py`."""

import importlib
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\ndef main(" in path.read_text())
    names.remove("__main__")
    if not arguments or arguments[0] not in names:
        print(f"which one? {' | '.join(names)}", file=sys.stderr)
        return 2
    importlib.import_module(f"scripts.bench.{arguments[0]}").main(arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
