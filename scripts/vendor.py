"""Makes the console's libraries in gateway/console/vendor/ from npm packages, or checks that they are what they claim.

    python scripts/vendor.py            rebuild (needs Node, npm and their registry)
    python scripts/vendor.py --check    rebuild beside and compare; exit status 1 if anything differs
    python scripts/vendor.py --offline  compare the files with the hashes of vendor.json only; needs nothing
    python scripts/vendor.py --lint     check form (Prettier) and types (TypeScript, from JSDoc) of our own modules

Versions and their integrity hashes are pinned in scripts/vendor_js/package-lock.json; what each file is bundled from
stands in scripts/vendor_js/entries/. People who run Dialtone need none of this: the files are committed.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "scripts" / "vendor_js"
CONSOLE = ROOT / "gateway" / "console" / "vendor"
TESTS = ROOT / "tests" / "console" / "vendor"
MANIFEST = "vendor.json"
LICENSES = "LICENSES.txt"

BUNDLES = {
    "preact.js": ("preact", "@preact/signals", "@preact/signals-core", "htm"),
    "markdown.js": ("marked", "dompurify"),
    "highlight.js": ("highlight.js",),
}
"""File → the packages that are in it."""

COPIES = {"axe.min.js": ("axe-core", "axe.min.js")}
"""Files of the tests → package and path in it."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Vendor the console's libraries.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="rebuild beside and compare")
    mode.add_argument("--offline", action="store_true", help="only compare the files with their hashes")
    mode.add_argument("--lint", action="store_true", help="check the console's own modules")
    arguments = parser.parse_args()
    if arguments.offline:
        return report(changed_files())
    if arguments.lint:
        return lint()
    with tempfile.TemporaryDirectory(prefix="dialtone-vendor-") as folder:
        made = build(Path(folder))
        if arguments.check:
            return report([name for name, (target, content) in made.items() if not is_same(target / name, content)])
        for name, (target, content) in made.items():
            target.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
            print(f"{name}: {len(content):,} bytes")
    return 0


def lint() -> int:
    """The worst exit status of Prettier and TypeScript on the console, with the libraries' declarations beside it."""
    if not (RECIPE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--silent"], cwd=RECIPE, check=True)
    with tempfile.TemporaryDirectory(prefix="dialtone-lint-") as name:
        folder = Path(name)
        shutil.copytree(CONSOLE.parent, folder / "console", ignore=shutil.ignore_patterns("vendor"))
        for file in ("tsconfig.json", ".prettierrc.json"):
            shutil.copy(RECIPE / file, folder)
        (folder / "node_modules").symlink_to(RECIPE / "node_modules")
        form = subprocess.run(["node_modules/.bin/prettier", "--check", "console"], cwd=folder, check=False)
        shutil.copytree(RECIPE / "types" / "vendor", folder / "console" / "vendor")
        types = subprocess.run(["node_modules/.bin/tsc", "-p", "tsconfig.json"], cwd=folder, check=False)
        return max(form.returncode, types.returncode)


def build(folder: Path) -> dict[str, tuple[Path, bytes]]:
    """Every vendored file: where it belongs, and its content as the pinned packages give it."""
    shutil.copytree(RECIPE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True)
    made: dict[str, tuple[Path, bytes]] = {}
    for name in BUNDLES:
        subprocess.run(
            [
                *("node_modules/.bin/esbuild", f"entries/{name}", f"--outfile=out/{name}", "--bundle", "--format=esm"),
                *("--minify", "--legal-comments=none", "--target=es2022", "--charset=utf8", "--log-level=warning"),
            ],
            cwd=folder,
            check=True,
        )
        made[name] = (CONSOLE, (folder / "out" / name).read_bytes())
    packages = {package for bundled in BUNDLES.values() for package in bundled}
    made[LICENSES] = (CONSOLE, license_texts(folder, sorted(packages)))
    made[MANIFEST] = (CONSOLE, manifest(folder, {name: content for name, (_, content) in made.items()}))
    for name, (package, path) in COPIES.items():
        made[name] = (TESTS, (folder / "node_modules" / package / path).read_bytes())
    return made


def manifest(folder: Path, files: dict[str, bytes]) -> bytes:
    """What is in each file: packages with version and licence, size and hash."""
    entries: dict[str, Any] = {}
    for name, content in files.items():
        entries[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if name in BUNDLES:
            entries[name]["packages"] = {package: about(folder, package) for package in BUNDLES[name]}
    return (json.dumps(entries, indent=2) + "\n").encode()


def about(folder: Path, package: str) -> dict[str, str]:
    fields = json.loads((folder / "node_modules" / package / "package.json").read_text(encoding="utf-8"))
    return {"version": fields["version"], "license": fields["license"]}


def license_texts(folder: Path, packages: list[str]) -> bytes:
    """The licence of every package, word for word."""
    parts = []
    for package in packages:
        facts = about(folder, package)
        (file, *_) = sorted((folder / "node_modules" / package).glob("LICENSE*"))
        text = file.read_text(encoding="utf-8").strip()
        parts.append(f"{package} {facts['version']} ({facts['license']})\n\n{text}\n")
    return ("\n" + "=" * 100 + "\n\n").join(parts).encode()


def changed_files() -> list[str]:
    """The files that are not what the manifest says."""
    entries = json.loads((CONSOLE / MANIFEST).read_text(encoding="utf-8"))
    present = {path.name for path in CONSOLE.iterdir()} - {MANIFEST}
    wrong = [
        name
        for name, entry in entries.items()
        if name not in present or hashlib.sha256((CONSOLE / name).read_bytes()).hexdigest() != entry["sha256"]
    ]
    return sorted({*wrong, *(present - set(entries))})


def is_same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def report(different: list[str]) -> int:
    """Prints the outcome of a check; its exit status."""
    for name in different:
        print(f"differs: {name}", file=sys.stderr)
    if not different:
        print("the vendored files are what they claim to be")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
