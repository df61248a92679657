"""A repository whose tests fail is repaired through the real tools, and nothing else in it changes."""

import difflib
from collections.abc import Iterator
from typing import Any

from dialtone.client import AsyncClient
from tests.e2e.ledger import EXPECTED_DIFF, FILES
from tests.line import script
from workflow.core.events import FileChanged, RunFinished, ToolResulted

TEST = {"name": "bash", "arguments": {"command": "python3 -m unittest -q"}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def plan(*statuses: str) -> dict[str, Any]:
    titles = ("See what fails", "Repair it", "Run the tests again")
    steps = [{"id": str(n), "title": t, "status": s} for n, (t, s) in enumerate(zip(titles, statuses, strict=True), 1)]
    return call("job_plan", steps=steps)


TRAJECTORY = script(
    {"text": "First the plan.", "tool_calls": [plan("in_progress", "pending", "pending"), call("ls", path=".")]},
    {"text": "What fails?", "tool_calls": [TEST]},
    {
        "text": "Where is that?",
        "tool_calls": [
            plan("done", "in_progress", "pending"),
            call("grep", pattern=r"def (parse|share|total)", path="ledger", output_mode="content"),
            call("file_read", path="ledger/money.py"),
            call("file_read", path="ledger/report.py"),
        ],
    },
    {
        "text": "The sign misses the cents, the rest is lost, and the first line is skipped.",
        "tool_calls": [
            call(
                "multi_edit",
                path="ledger/money.py",
                edits=[
                    {
                        "old": 'sign * int(whole) * 100 + int(cents.ljust(2, "0") or 0)',
                        "new": 'sign * (int(whole) * 100 + int(cents.ljust(2, "0") or 0))',
                    },
                    {
                        "old": "    each = cents // among\n    return [each] * among\n",
                        "new": "    each, rest = divmod(cents, among)\n"
                        "    return [each + (place < rest) for place in range(among)]\n",
                    },
                ],
            ),
            call(
                "file_edit",
                path="ledger/report.py",
                old="\tamount = 0\n\tfor line in lines[1:]:\n",
                new="\tamount = 0\n\tfor line in lines:\n",
            ),
        ],
    },
    {"text": "Is that all?", "tool_calls": [plan("done", "done", "in_progress"), TEST]},
    {"text": "It is.", "tool_calls": [plan("done", "done", "done")]},
    {"text": "Three mistakes repaired; all four tests pass."},
    task="The tests fail. Repair the code.",
)


async def test_failing_tests_are_repaired_and_the_diff_is_the_expected_one(client: AsyncClient) -> None:
    thread_id = await client.initiate()
    for path, content in FILES.items():
        await client.put_file(thread_id, path, content=content)
    run = await client.execute(thread_id, TRAJECTORY)
    items = [item async for item in client.stream(thread_id, run_id=run.run_id)]

    assert isinstance(items[-1], RunFinished), items[-1]
    results = [item for item in items if isinstance(item, ToolResulted)]
    first, last = (result for result in results if result.tool == "bash")
    assert "FAILED (failures=3)" in first.output
    assert (last.ok, "OK" in last.output) == (True, True), last.output
    assert [r.output for r in results if not r.ok and r is not first] == []
    now = {path: await client.get_file(thread_id, path) for path in FILES}
    assert "".join(unified(FILES, now)) == EXPECTED_DIFF
    assert now["ledger/report.py"] == FILES["ledger/report.py"].replace(b"lines[1:]", b"lines"), "its line ends stay"
    changed = {item.path for item in items if isinstance(item, FileChanged)}
    assert changed == {"ledger/money.py", "ledger/report.py"}


def unified(then: dict[str, bytes], now: dict[str, bytes]) -> Iterator[str]:
    """The changes as a unified diff that shows no difference in line ends."""
    for path in then:
        before, after = (files[path].decode().replace("\r\n", "\n").splitlines(True) for files in (then, now))
        yield from difflib.unified_diff(before, after, path, path)
