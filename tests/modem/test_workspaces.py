"""Files of threads that are deleted or never came to be: what a request, a fork, a worker that dies leave on disk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modem import keys
from modem.files import Answer, Files, FileServer
from modem.tasks.workspace import answer_file_request
from modem.versions import Versions
from modem.workspaces import Removals, is_wanted
from tests.modem.conftest import ALICE, Line
from workflow.core.config import SandboxSettings
from workflow.core.errors import NotFound, Unavailable
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import TierReport
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox


class Slow(LocalProvider):
    """A provider of local workspaces in which a test lets things take long; no command runs in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(SandboxSettings(), data_dir=folder, report=TierReport("local", "T2"))
        self.opens_at_once = False
        self.opening, self.let_open = asyncio.Event(), asyncio.Event()
        self.forked, self.let_answer = asyncio.Event(), asyncio.Event()
        self.let_open.set()
        self.let_answer.set()

    async def open(self, thread_id: ThreadId) -> LocalSandbox:
        opened = await super().open(thread_id) if self.opens_at_once else None
        self.opening.set()
        await self.let_open.wait()
        return opened or await super().open(thread_id)

    async def fork(self, source: ThreadId, snapshot_id: str, target: ThreadId) -> str:
        made = await super().fork(source, snapshot_id, target)
        self.forked.set()
        await self.let_answer.wait()
        return made


@dataclass
class Bench:
    """One worker's files and removals, each at the test's word, and the gateway's side."""

    line: Line
    folder: Path
    sandboxes: Slow
    files: Files
    removals: Removals
    removed: list[ThreadId] = field(default_factory=list)

    @property
    def versions(self) -> Versions:
        return Versions(self.line.connections, self.line.threads, self.files)

    async def answer(self, thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        wanted = partial(is_wanted, self.line.connections)
        return await answer_file_request(self.sandboxes, wanted, thread_id, request, body)

    async def sweep(self) -> None:
        """Deletes all that is due now."""
        while await self.removals.once():
            pass

    async def let_pass(self, *gone: str) -> None:
        """Time goes by: all that waits for a later sweep is due, and these keys have expired."""
        redis = self.line.connections.commands
        for entry in await redis.zrange(keys.GIVEN_UP, 0, -1):
            await redis.zadd(keys.GIVEN_UP, {entry: 0})
        if gone:
            await redis.delete(*gone)

    def on_disk(self) -> set[str]:
        return {path.name for part in ("workspaces", "sandboxes") for path in (self.folder / part).iterdir()}


@pytest.fixture
async def bench(line: Line, folder: Path) -> AsyncIterator[Bench]:
    async with Slow(folder) as sandboxes:
        files = Files(line.connections, line.threads, silence_s=1.0)
        bench = Bench(line, folder, sandboxes, files, Removals(line.connections, sandboxes.remove))
        server = FileServer(line.connections, bench.answer, sign_s=60)
        serving = asyncio.create_task(server.serve())
        yield bench
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await server.close()
        await files.close()


async def test_a_worker_that_lost_a_run_makes_no_workspace_for_its_deleted_thread(bench: Bench) -> None:
    thread = await bench.line.thread()
    await bench.files.write(ALICE, thread, "f", b"x")
    await bench.line.threads.delete(ALICE, thread)
    await bench.sweep()
    await bench.sandboxes.stop(thread)
    assert bench.on_disk() == set()


@pytest.mark.parametrize("op", ["list", "stat", "read", "write", "remove", "archive", "diff", "snapshot", "restore"])
async def test_a_request_that_comes_to_a_worker_after_the_deletion_makes_nothing(bench: Bench, op: str) -> None:
    thread = await bench.line.thread()
    await bench.line.threads.delete(ALICE, thread)
    await bench.sweep()
    with pytest.raises(NotFound, match=f"no thread {thread}"):
        await bench.answer(thread, {"op": op, "path": "f"}, b"late")
    assert bench.on_disk() == set()


@pytest.mark.parametrize("opens_at_once", [False, True], ids=["before it opened", "when it had opened"])
async def test_a_write_that_a_deletion_overtakes_leaves_nothing_and_finds_no_thread(
    bench: Bench, opens_at_once: bool
) -> None:
    thread = await bench.line.thread()
    bench.sandboxes.opens_at_once = opens_at_once
    bench.sandboxes.let_open.clear()
    writing = asyncio.create_task(bench.files.write(ALICE, thread, "f", b"late"))
    await asyncio.wait_for(bench.sandboxes.opening.wait(), 5)
    await bench.line.threads.delete(ALICE, thread)
    await bench.sweep()
    bench.sandboxes.let_open.set()
    with pytest.raises(NotFound, match=f"no thread {thread}"):
        await writing
    assert bench.on_disk() == set()


async def test_what_a_worker_wrote_late_and_died_over_goes_with_the_next_sweep(bench: Bench) -> None:
    thread, other = await bench.line.thread(), await bench.line.thread()
    await bench.files.write(ALICE, other, "kept", b"x")
    await bench.line.threads.delete(ALICE, thread)
    await bench.sweep()
    await (await bench.sandboxes.open(thread)).write("f", b"late")  # and no word of it to anybody
    assert thread in bench.on_disk()
    await bench.let_pass()
    await bench.sweep()
    assert bench.on_disk() == {other}
    assert await bench.line.connections.commands.zcard(keys.GIVEN_UP) == 0


async def test_a_deletion_that_failed_is_tried_again(bench: Bench) -> None:
    thread = await bench.line.thread()
    await bench.files.write(ALICE, thread, "f", b"x")
    await bench.line.threads.delete(ALICE, thread)
    failing = Removals(bench.line.connections, broken)
    assert await failing.once() and not await failing.once()
    assert thread in bench.on_disk()
    await bench.let_pass()
    await bench.sweep()
    assert bench.on_disk() == set()


async def broken(thread_id: ThreadId) -> None:
    raise OSError("the disk is away")


async def fork(bench: Bench) -> asyncio.Task[Any]:
    """A fork whose files are made already, whose worker has not answered yet."""
    thread = await bench.line.thread()
    await bench.files.write(ALICE, thread, "f", b"x")
    await bench.line.execute(thread)
    event = (await bench.line.log.events(thread))[-1].id
    bench.sandboxes.let_answer.clear()
    forking = asyncio.create_task(bench.versions.fork(ALICE, thread, event, title=""))
    await asyncio.wait_for(bench.sandboxes.forked.wait(), 5)
    assert len(bench.on_disk()) == 2
    return forking


async def test_the_files_of_a_fork_that_lasts_are_safe_from_sweeps_until_it_is_there(bench: Bench) -> None:
    forking = await fork(bench)
    await bench.let_pass()
    await bench.sweep()
    bench.sandboxes.let_answer.set()
    target = (await forking).thread_id
    assert target in bench.on_disk()
    await bench.let_pass()
    await bench.sweep()
    assert await bench.line.connections.commands.zcard(keys.GIVEN_UP) == 0
    _, chunks = await bench.files.read(ALICE, target, "f")
    assert b"".join([chunk async for chunk in chunks]) == b"x"


async def test_a_fork_whose_worker_fell_silent_leaves_no_workspace(bench: Bench) -> None:
    forking = await fork(bench)
    with pytest.raises(Unavailable):
        await forking
    await bench.sweep()
    assert len(bench.on_disk()) == 1

    bench.sandboxes.let_answer.set()  # the worker was only slow
    await (await bench.sandboxes.open(ThreadId("made-late"))).write("f", b"x")
    with pytest.raises(NotFound):
        await bench.answer(await bench.line.thread(), {"op": "fork", "snapshot": "", "target": "made-late"}, b"")
    assert "made-late" not in bench.on_disk()


async def test_a_fork_whose_gateway_died_leaves_no_workspace(bench: Bench) -> None:
    forking = await fork(bench)
    forking.cancel()
    await asyncio.gather(forking, return_exceptions=True)
    bench.sandboxes.let_answer.set()
    target = (await bench.line.connections.commands.zrange(keys.GIVEN_UP, 0, -1))[0].decode()
    await bench.let_pass()
    await bench.sweep()
    assert target in bench.on_disk(), "nobody knows yet that it is over"
    await bench.let_pass(keys.expected(ThreadId(target)))
    await bench.sweep()
    assert target not in bench.on_disk() and len(bench.on_disk()) == 1


async def test_a_fork_that_nobody_expects_any_more_makes_no_thread(bench: Bench) -> None:
    forking = await fork(bench)
    target = ThreadId((await bench.line.connections.commands.zrange(keys.GIVEN_UP, 0, -1))[0].decode())
    bench.sandboxes.let_answer.set()
    await bench.let_pass(keys.expected(target))
    await bench.sweep()
    with pytest.raises((NotFound, Unavailable)):
        await forking
    assert target not in bench.on_disk()
    with pytest.raises(NotFound):
        await bench.line.threads.get(ALICE, target)
