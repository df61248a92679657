"""Makes the pictures of docs/console.md and docs/desk.md: `python -m tests.console.screenshots docs/images`."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from dialtone import Client
from tests.client.real_stack import call, real_stack, script
from tests.console.conftest import CHROMIUM

SOURCE = '''"""Word counts of a text."""

from collections import Counter


def top(text: str, count: int = 3) -> list[tuple[str, int]]:
    """The most frequent words, most frequent first."""
    return Counter(text.split()).most_common(count)
'''
TEST = """import unittest

from words import top


class TopTest(unittest.TestCase):
    def test_capitals_make_no_difference(self) -> None:
        self.assertEqual(top("Tea tea coffee")[0], ("tea", 2))
"""
FILES = [{"path": "words.py", "content": SOURCE}, {"path": "test_words.py", "content": TEST}]
CHECK = call("bash", command="python3 -B -m unittest -v test_words")
ASK = call("ask_person", question="Shall I **tag a release**, or leave that to you?", choices=["Tag it", "Leave it"])


def steps(*states: str) -> dict[str, object]:
    titles = ["Write `words.py` and a test", "Run the test", "Mend what fails", "Ask how to release it"]
    notes = ["two files", "capitals count twice", "the test passes", ""]
    items = [
        {"id": str(index), "title": title, "status": state, "note": notes[index] if state == "done" else ""}
        for index, (title, state) in enumerate(zip(titles, states, strict=True))
    ]
    return call("job_plan", steps=items)


TASK = script(
    {
        "reasoning": "Two files, then the test.",
        "text": "I'll write the module with a test, and let the test tell me whether it holds.",
        "tool_calls": [steps("in_progress", "pending", "pending", "pending")],
    },
    {"tool_calls": [call("files_creation", files=FILES)]},
    {"tool_calls": [CHECK]},
    {
        "text": "Capitals count as different words. I fold them first.",
        "tool_calls": [
            steps("done", "done", "in_progress", "pending"),
            call("file_edit", path="words.py", old="text.split()", new="text.casefold().split()"),
        ],
    },
    {"tool_calls": [CHECK, steps("done", "done", "done", "in_progress")]},
    {"text": "The test passes. One thing is yours to decide.", "tool_calls": [ASK]},
    {"text": "Done."},
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, real_stack(Path(data)) as url, sync_playwright() as playwright:
        with Client(url) as client:
            for title in ("Draft the release notes", "Why is the import slow?"):
                thread_id = client.initiate(title=title)
                run = client.execute(thread_id, script({"text": "Done."}))
                _ = list(client.stream(thread_id, run_id=run.run_id))
            thread_id = client.initiate(title="A module that counts words")
            client.execute(thread_id, f"Write a small module that counts words, with a test.\n\n{TASK}")
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for name, theme, size in (("console", "light", (1360, 860)), ("console-dark", "dark", (1360, 860))):
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)  # type: ignore[arg-type]
            shoot(page, f"{url}/#/t/{thread_id}", folder / f"{name}.png")
            page.close()
        small = browser.new_page(viewport={"width": 390, "height": 780}, device_scale_factor=1.5)
        shoot(small, f"{url}/#/t/{thread_id}", folder / "console-small.png")
        page = browser.new_page(viewport={"width": 1360, "height": 700})
        shoot(page, f"{url}/desk", folder / "desk.png", ready=".desk tbody tr")
        browser.close()


def shoot(page: Page, url: str, file: Path, *, ready: str = ".question") -> None:
    page.goto(url)
    page.wait_for_selector(ready)
    page.wait_for_timeout(800)
    page.screenshot(path=file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
