"""What the console is made of: pinned libraries, nothing from outside, sizes that stay small."""

import json
import re

from scripts.vendor import BUNDLES, CONSOLE, LICENSES, MANIFEST, changed_files

ROOT = CONSOLE.parent
VENDORED = [CONSOLE / "preact.js", CONSOLE / "markdown.js"]
OWN = [path for path in ROOT.rglob("*") if path.suffix in {".js", ".html", ".css"} and path.parent != CONSOLE]


def test_the_vendored_files_are_what_their_manifest_says() -> None:
    assert changed_files() == []


def test_every_library_has_its_version_and_its_licence() -> None:
    manifest = json.loads((CONSOLE / MANIFEST).read_text(encoding="utf-8"))
    texts = (CONSOLE / LICENSES).read_text(encoding="utf-8")
    for name, packages in BUNDLES.items():
        for package in packages:
            facts = manifest[name]["packages"][package]
            assert f"{package} {facts['version']} ({facts['license']})" in texts


def test_no_module_loads_anything_from_another_host() -> None:
    for path in OWN:
        text = path.read_text(encoding="utf-8")
        for url in re.findall(r"(?:from|import|src|href|url)\s*[=(]?\s*[\"'(](https?:)?//[^\"')]+", text):
            raise AssertionError(f"{path.name}: {url}")


def test_modules_stay_readable_and_what_a_page_loads_stays_small() -> None:
    for path in OWN:
        if path.suffix == ".js":
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= 600, path
            assert max(map(len, lines)) <= 150, path  # of markup; everything else is formatted to 120
    loaded = [*(path for path in OWN if "desk" not in str(path.relative_to(ROOT))), *VENDORED]
    assert sum(path.stat().st_size for path in loaded) < 340_000
