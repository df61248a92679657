"""Many files written: all of them or none, and nothing replaced by surprise."""

import asyncio
from typing import Any

import pytest

from tests.tools.harness import Bench, make_context, memory_sandbox
from workflow.core.errors import SandboxError, ToolError
from workflow.core.events import FileChanged
from workflow.tools.base import ToolOutput
from workflow.tools.files_creation import CreateArgs, FileArgs, FilesCreation


def files(**contents: str) -> list[dict[str, Any]]:
    return [{"path": path.replace("__", "/"), "content": content} for path, content in contents.items()]


async def paths(bench: Bench) -> list[str]:
    found = await bench.sandbox.list(".", depth=10)
    return [stat.path for stat in found if not stat.path.startswith(".dialtone")]


async def test_files_and_folders_are_made_byte_for_byte(bench: Bench) -> None:
    result = await bench("files_creation", files=files(a="x\\n\r\n ü", sub__deep__b="", c="no end"))

    assert await bench.sandbox.read("a") == "x\\n\r\n ü".encode()
    assert await bench.sandbox.read("sub/deep/b") == b""
    assert await bench.sandbox.read("c") == b"no end"
    assert result.text.split("\n")[0] == "created a (2 lines, 8 bytes)"
    assert [type(event) for event in result.events] == [FileChanged] * 3
    assert set(result.facts) == {"a", "sub/deep/b", "c"}


async def test_a_file_just_made_can_be_edited_without_reading(bench: Bench) -> None:
    await bench("files_creation", files=files(a="one one\n"))

    await bench("file_edit", path="a", old="one one", new="one one one")


async def test_a_file_that_is_there_is_made_executable(bench: Bench) -> None:
    script = {"path": "run.sh", "content": "#!/bin/sh\n"}
    await bench("files_creation", files=[script])

    made = await bench("files_creation", files=[{**script, "executable": True}])

    stat = await bench.sandbox.stat("run.sh")
    assert stat is not None
    assert stat.mode & 0o100
    assert made.text.startswith("made executable run.sh")
    again = await bench("files_creation", files=[{**script, "executable": True}])
    assert again.text.startswith("unchanged run.sh")


async def test_an_executable_file_can_be_run(shell: Bench) -> None:
    script = {"path": "run.sh", "content": "#!/bin/sh\necho ran\n", "executable": True}
    await shell("files_creation", files=[script])

    assert (await shell("bash", command="./run.sh")).text.startswith("ran")


async def test_one_file_that_exists_stops_all(bench: Bench) -> None:
    await bench.sandbox.write("b", b"mine\n")

    error = await bench.fails("files_creation", files=files(a="1", new__x="1", b="2"))

    assert error.kind == "exists"
    assert await paths(bench) == ["b"]


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ([{"path": "a", "content": ""}, {"path": "./a", "content": ""}], "duplicate_path"),
        ([{"path": "a", "content": ""}, {"path": "a/b", "content": ""}], "not_a_directory"),
        ([{"path": "taken/b", "content": ""}], "not_a_directory"),
        ([{"path": "folder", "content": ""}], "is_directory"),
        ([{"path": "new/a", "content": ""}, {"path": "../b", "content": ""}], "outside_workspace"),
        ([{"path": "new/a", "content": ""}, {"path": "/etc/x", "content": ""}], "outside_workspace"),
        ([{"path": "", "content": ""}], "bad_path"),
        ([{"path": ".", "content": ""}], "is_directory"),
        ([{"path": "new/a", "content": "x" * 5_000_001}], "too_large"),
    ],
)
async def test_any_mistake_leaves_nothing_behind(bench: Bench, made: list[dict[str, str]], kind: str) -> None:
    await bench.sandbox.write("taken", b"")
    await bench.sandbox.make_dir("folder")

    assert (await bench.fails("files_creation", files=made)).kind == kind
    assert await paths(bench) == ["folder", "taken"]


async def test_overwriting_needs_a_file_that_was_read_and_did_not_change(bench: Bench) -> None:
    await bench.sandbox.write("a", b"one\n")
    asked: dict[str, Any] = {"files": files(a="two\n"), "overwrite": True}

    assert (await bench.fails("files_creation", **asked)).kind == "not_read"
    await bench("file_read", path="a")
    await bench.sandbox.write("a", b"changed\n")
    assert (await bench.fails("files_creation", **asked)).kind == "stale"
    await bench("file_read", path="a")
    result = await bench("files_creation", **asked)

    assert await bench.sandbox.read("a") == b"two\n"
    assert result.text == "overwritten a (1 lines, 4 bytes)"
    (event,) = result.events
    assert isinstance(event, FileChanged)
    assert event.change == "modified"
    assert "-changed\n+two" in event.diff


async def test_overwriting_keeps_line_ends_encoding_and_mark(bench: Bench) -> None:
    await bench.sandbox.write("a", b"\xef\xbb\xbfone\r\ntwo\r\n")
    await bench("file_read", path="a")

    await bench("files_creation", files=files(a="1\n2\n"), overwrite=True)

    assert await bench.sandbox.read("a") == b"\xef\xbb\xbf1\r\n2\r\n"


async def test_overwriting_with_a_placeholder_is_refused(bench: Bench) -> None:
    await bench("files_creation", files=files(a="one\ntwo\n"))

    error = await bench.fails("files_creation", files=files(a="1\n# ... rest of code ...\n"), overwrite=True)

    assert error.kind == "omission_placeholder"
    assert await bench.sandbox.read("a") == b"one\ntwo\n"


async def test_a_repeat_finds_its_own_files_and_succeeds(bench: Bench) -> None:
    await bench("files_creation", files=files(a="one\n", b="two\n"))
    bench.state.facts.clear()
    bench.state.files.clear()
    await bench.sandbox.remove("b")

    again = await bench("files_creation", files=files(a="one\n", b="two\n"))

    assert again.text.split("\n") == ["unchanged a (1 lines, 4 bytes)", "created b (1 lines, 4 bytes)"]
    assert len(again.events) == 2


async def test_a_failure_in_the_middle_takes_everything_back() -> None:
    sandbox = memory_sandbox({"old": "before\n"})

    class FullDisk:
        """Refuses the third file."""

        def __getattr__(self, name: str) -> object:
            return getattr(sandbox, name)

        async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
            if path.endswith("third"):
                raise SandboxError("no space left")
            await sandbox.write(path, content, mode=mode)

    context = make_context(FullDisk())  # type: ignore[arg-type]  # passes everything else on
    context.state.facts["old"] = (await Bench(sandbox)("file_read", path="old")).facts["old"]
    made = tuple(FileArgs(path=path, content="new\n") for path in ("old", "x/y/second", "x/third"))
    outcome: ToolOutput | ToolError
    try:
        outcome = await FilesCreation().run(CreateArgs(files=made, overwrite=True), context)
    except ToolError as error:
        outcome = error

    assert isinstance(outcome, ToolError)
    assert outcome.kind == "write_failed"
    assert [stat.path for stat in await sandbox.list(".", depth=9)] == ["old"]
    assert await sandbox.read("old") == b"before\n"


async def test_two_calls_at_once_cannot_both_create_a_file(bench: Bench) -> None:
    calls = [bench.attempt("files_creation", files=files(a=f"{n}\n")) for n in range(5)]
    calls += [bench.attempt("multi_edit", path="a", edits=[{"old": "", "new": "edit\n"}])]

    outcomes = await asyncio.gather(*calls)

    assert sum(isinstance(outcome, ToolOutput) for outcome in outcomes) == 1
    assert {o.kind for o in outcomes if isinstance(o, ToolError)} <= {"exists", "empty_old"}


async def test_two_calls_with_the_same_files_in_another_order_do_not_block_each_other(bench: Bench) -> None:
    async with asyncio.timeout(10):
        await asyncio.gather(
            bench("files_creation", files=files(a="1", b="2")), bench("files_creation", files=files(b="2", a="1"))
        )

    assert await paths(bench) == ["a", "b"]
