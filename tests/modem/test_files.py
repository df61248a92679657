"""Requests for workspaces over a real Redis: what a worker that is slow, gone or broken means for who asks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modem.files import Answer, Files, FileServer, Handler
from tests.modem.conftest import ALICE, EVE, Line
from tests.until import until
from workflow.core.errors import DialtoneError, LimitExceeded, ToolError, Unavailable
from workflow.core.ids import ThreadId


async def nothing() -> AsyncIterator[bytes]:
    for chunk in tuple[bytes, ...]():
        yield chunk


@asynccontextmanager
async def serving(line: Line, handler: Handler) -> AsyncIterator[tuple[Files, asyncio.Task[None]]]:
    """The gateway's side and the running worker's."""
    files = Files(line.connections, line.threads, silence_s=1.0)
    server = FileServer(line.connections, handler, sign_s=0.1)
    task = asyncio.create_task(server.serve())
    try:
        yield files, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.close()
        await files.close()


async def test_an_answer_that_takes_long_is_waited_for_while_the_worker_is_at_it(line: Line) -> None:
    async def slow(thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2.5)
        return {"done": True}, nothing()

    async with serving(line, slow) as (files, _):
        header, _ = await files.ask(ALICE, await line.thread(), {"op": "restore", "path": "."}, wait_s=60)
    assert header == {"done": True}


async def test_a_worker_that_dies_over_a_request_is_not_waited_for(line: Line) -> None:
    started = asyncio.Event()

    async def hanging(thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never set")

    async with serving(line, hanging) as (files, worker):
        asking = asyncio.create_task(files.ask(ALICE, await line.thread(), {"op": "restore", "path": "."}, wait_s=600))
        await asyncio.wait_for(started.wait(), 5)
        worker.cancel()
        with pytest.raises(Unavailable, match="no worker answered"):
            await asyncio.wait_for(asking, 10)


async def test_a_bug_over_one_request_is_told_and_ends_no_other(line: Line) -> None:
    both, broke = asyncio.Barrier(2), asyncio.Event()

    async def broken(thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        await both.wait()
        if request["path"] == "bug":
            broke.set()
            raise ZeroDivisionError
        await broke.wait()
        return {"fine": True}, nothing()

    async with serving(line, broken) as (files, _):
        thread = await line.thread()
        told, (header, _) = await asyncio.gather(
            asyncio.create_task(refused(files, thread)), files.ask(ALICE, thread, {"op": "list", "path": "."})
        )
    assert (told.code, told.message) == ("internal", "a bug in the worker") and header == {"fine": True}


async def refused(files: Files, thread: ThreadId) -> DialtoneError:
    with pytest.raises(DialtoneError) as error:
        await files.ask(ALICE, thread, {"op": "list", "path": "bug"})
    return error.value


async def test_who_waited_long_enough_is_told_though_the_worker_is_still_at_it(line: Line) -> None:
    async def hanging(thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        await asyncio.Event().wait()
        raise AssertionError("never set")

    async with serving(line, hanging) as (files, _):
        with pytest.raises(Unavailable, match="did not answer within"):
            await files.ask(ALICE, await line.thread(), {"op": "list", "path": "."}, wait_s=0.3)


async def test_a_tenant_that_does_not_read_its_downloads_leaves_room_for_others(line: Line) -> None:
    async def answer(thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(int(request["chunks"])):
                yield b"x"

        return {}, chunks()

    async with serving(line, answer) as (files, _):
        thread, theirs = await line.thread(), await line.thread(EVE)
        asked = [files.ask(ALICE, thread, {"op": "archive", "chunks": 100}) for _ in range(8)]
        unread = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one for one in unread if isinstance(one, BaseException)]
        assert all(isinstance(one, LimitExceeded) and one.retry_after_s for one in refused) and len(refused) == 4

        for caller, thread_id in ((EVE, theirs), (ALICE, thread)):
            small = [files.ask(caller, thread_id, {"op": "list", "chunks": 3}) for _ in range(8)]
            for _, pieces in await asyncio.gather(*small):
                assert [piece async for piece in pieces] == [b"x"] * 3
        _, chunks = next(one for one in unread if not isinstance(one, BaseException))
        assert len([chunk async for chunk in chunks]) == 100

        async def has_room() -> bool:
            try:
                return bool(await files.ask(ALICE, thread, {"op": "archive", "chunks": 100}))
            except LimitExceeded:
                return False

        await until(has_room, what="the read one to make room")


@pytest.mark.parametrize(("good", "told"), [(0, "bad_input"), (100, "unavailable")])
async def test_an_answer_that_breaks_off_ends_no_other(line: Line, good: int, told: str) -> None:
    broke = asyncio.Event()

    async def answer(thread_id: ThreadId, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], Answer]:
        async def chunks() -> AsyncIterator[bytes]:
            if request["op"] == "list":
                await broke.wait()
                return
            for _ in range(good):
                yield b"x"
            broke.set()
            raise ToolError("the archive unpacks to too much", kind="bad_input")

        return {"fine": True}, chunks()

    async def read(files: Files, thread: ThreadId) -> int:
        _, chunks = await files.ask(ALICE, thread, {"op": "archive"})
        return len([chunk async for chunk in chunks])

    async with serving(line, answer) as (files, worker):
        thread = await line.thread()
        broken, other = await asyncio.gather(
            read(files, thread), files.ask(ALICE, thread, {"op": "list"}), return_exceptions=True
        )
        assert isinstance(broken, DialtoneError) and broken.code == told
        assert not isinstance(other, BaseException) and other[0] == {"fine": True} and not worker.done()
