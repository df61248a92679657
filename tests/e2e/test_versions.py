"""Going back in time on the real line: what runs did to files is saved, compared, undone and gone on from."""

import asyncio
import gzip
import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest

from dialtone import Conflict, NotFound
from dialtone.client import AsyncClient
from tests.line import Line, bash, script
from tests.until import until
from workflow.core.events import RunFailed, ToolResulted, WorkspaceSaved


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """Two workers, so that the one that answers is not always the one that saved."""
    with Line() as line:
        yield line.start(workers=2)


async def play(client: AsyncClient, thread_id: str, *turns: dict[str, Any]) -> list[Any]:
    """Runs `turns` to their end; the thread's events."""
    run = await client.execute(thread_id, script(*turns))
    async with asyncio.timeout(60):
        last = [item async for item in client.stream(thread_id, run_id=run.run_id)][-1]
    assert last.type == "run.finished", last
    return [event async for event in client.events(thread_id)]


async def test_what_a_run_did_is_shown_undone_and_tried_another_way(client: AsyncClient) -> None:
    thread = await client.initiate(title="Poem")
    await client.put_file(thread, "poem.txt", content=b"roses\n")
    events = await play(
        client,
        thread,
        {"text": "Nothing yet.", "tool_calls": [{"name": "file_read", "arguments": {"path": "poem.txt"}}]},
        bash("echo violets >> poem.txt; mkdir deep; echo x > deep/file"),
        bash("rm -r deep; printf '\\0' > binary"),
        {"text": "Done."},
    )
    saves = [event for event in events if isinstance(event, WorkspaceSaved)]
    assert [(save.why, save.turn) for save in saves] == [("start", 2), ("turn", 2), ("turn", 3)]
    queued, middle = events[0].id, saves[1].id

    for _ in range(4):  # whichever worker is asked
        assert await client.get_file(thread, "poem.txt", at=queued) == b"roses\n"
        assert await client.get_file(thread, "deep/file", at=middle) == b"x\n"
    listed = await client.files(thread, depth=3, at=middle)
    assert [stat.path for stat in listed if not stat.path.startswith(".dialtone")] == ["deep", "deep/file", "poem.txt"]
    changed = await client.diff(thread, queued)
    assert [(item.path, item.change, item.binary) for item in changed.items] == [
        ("binary", "added", True),
        ("poem.txt", "modified", False),
    ]
    assert changed.items[1].diff.endswith("@@ -1 +1,2 @@\n roses\n+violets")
    assert [item.path for item in (await client.diff(thread, queued, new=middle)).items][:2] == ["deep", "deep/file"]

    restored = await client.restore(thread, middle)
    assert await client.get_file(thread, "deep/file") == b"x\n"
    with pytest.raises(NotFound):
        await client.get_file(thread, "binary")
    await client.restore(thread, restored.before)
    assert await client.get_file(thread, "binary") == b"\0"

    fork = await client.fork(thread, middle)
    assert fork.title == "Poem"
    later = await play(client, fork.thread_id, bash("cat deep/file poem.txt; echo more > deep/file"), {"text": "Yes."})
    result = [event for event in later if isinstance(event, ToolResulted)][-1]
    assert "x\nroses\nviolets" in result.output
    with pytest.raises(NotFound):
        await client.get_file(thread, "deep/file")


async def test_a_restore_waits_for_no_run_and_no_run_loses_its_files(client: AsyncClient, line: Line) -> None:
    thread = await client.initiate()
    events = await play(client, thread, bash("echo 1 > f"), {"text": "a"})
    run = await client.execute(thread, script(bash("echo 2 > f; sleep 1; cat f"), {"text": "b"}))
    with pytest.raises(Conflict):
        await client.restore(thread, events[0].id)
    results = [item async for item in client.stream(thread, run_id=run.run_id) if isinstance(item, ToolResulted)]
    assert "2" in results[0].output and results[0].ok


async def test_a_deleted_threads_files_are_deleted(client: AsyncClient, line: Line) -> None:
    thread = await client.initiate()
    await play(client, thread, bash("echo secret > f"), {"text": "a"})
    kept = [line.folder / "data" / part / thread for part in ("workspaces", "sandboxes")]
    assert all(folder.exists() for folder in kept)
    await client.delete_thread(thread)

    async def gone() -> bool:
        return not any(folder.exists() for folder in kept)

    await until(gone, timeout_s=20, what="the files to be deleted")


async def test_a_write_that_reaches_its_worker_after_the_deletion_finds_no_thread(
    client: AsyncClient, line: Line
) -> None:
    thread, workers = await client.initiate(), line.alive("worker")
    for worker in workers:
        worker.kill(signal.SIGSTOP)
    try:
        writing = asyncio.create_task(client.put_file(thread, "f", content=b"late"))

        async def asked() -> list[bytes]:
            with line.redis.client() as redis:
                return cast(list[bytes], redis.keys("dialtone:files:*:body"))

        await until(asked, what="the write to be on its way")
        await client.delete_thread(thread)
    finally:
        for worker in workers:
            worker.kill(signal.SIGCONT)
    with pytest.raises(NotFound, match="no thread"):
        await writing
    assert not any((line.folder / "data" / part / thread).exists() for part in ("workspaces", "sandboxes"))


async def test_files_whose_archive_is_damaged_are_refused_with_what_to_do_and_the_archive_is_kept(
    line: Line, client: AsyncClient
) -> None:
    thread = await client.initiate()
    archive = line.folder / "data" / "sandboxes" / thread / "workspace.tar.gz"
    archive.parent.mkdir(mode=0o711)
    archive.write_bytes(gzip.compress(b"x" * 10_000)[:-9])
    for attempt in (client.files(thread), client.put_file(thread, "new", content=b"")):
        with pytest.raises(
            Conflict, match=r'damaged .* kept for the operator, see "A damaged archive" in docs/sandbox\.md'
        ):
            await attempt
    run = await client.execute(thread, script(bash("ls"), {"text": "Done."}))
    *_, end = [item async for item in client.stream(thread, run_id=run.run_id)]
    assert isinstance(end, RunFailed) and end.reason == "workspace_damaged", end
    assert archive.exists()
    archive.rename(archive.with_suffix(".broken"))
    assert list(await client.files(thread)) == []
