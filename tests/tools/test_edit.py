"""Edits in a real workspace: what a model may change, when it must look again, what its errors tell."""

import asyncio

import pytest

from tests.tools.harness import Bench
from workflow.core.errors import ToolError
from workflow.core.events import FileChanged
from workflow.tools.base import ToolContext, ToolOutput
from workflow.tools.edit import FileEdit


async def put(bench: Bench, path: str, content: str | bytes, *, read: bool = True) -> None:
    """A file in the workspace that the model has seen."""
    await bench.sandbox.write(path, content.encode() if isinstance(content, str) else content)
    if read:
        await bench("file_read", path=path)


async def text(bench: Bench, path: str) -> str:
    return (await bench.sandbox.read(path)).decode()


async def test_an_edit_says_what_changed_and_logs_it(bench: Bench) -> None:
    await put(bench, "src/a.py", "def f():\n    return 1\n")

    result = await bench("file_edit", path="src/a.py", old="return 1", new="return 2")

    assert result.text.startswith("Edited src/a.py: 1 place, first at line 2.")
    assert "-    return 1\n+    return 2" in result.text
    (event,) = result.events
    assert isinstance(event, FileChanged)
    assert (event.path, event.change, event.size) == ("src/a.py", "modified", 22)
    assert event.sha256 == result.facts["src/a.py"]
    assert event.diff in result.text


async def test_edits_follow_each_other_without_reading_again(bench: Bench) -> None:
    await put(bench, "a", "one\n")

    await bench("file_edit", path="a", old="one", new="two")
    await bench("file_edit", path="./a", old="two", new="three")

    assert await text(bench, "a") == "three\n"


async def test_a_file_that_changed_since_it_was_read_is_refused_untouched(bench: Bench) -> None:
    await put(bench, "a", "one\ntwo\n")
    await bench.sandbox.write("a", b"one\nTWO\n")

    error = await bench.fails("file_edit", path="a", old="one", new="1")

    assert error.kind == "stale"
    assert "file_read" in error.message
    assert await text(bench, "a") == "one\nTWO\n"
    await bench("file_read", path="a")
    await bench("file_edit", path="a", old="one", new="1")


async def test_a_file_that_was_only_touched_is_not_stale(bench: Bench) -> None:
    await put(bench, "a", "one\n")
    await bench.sandbox.write("a", b"one\n")

    await bench("file_edit", path="a", old="one", new="two")

    assert await text(bench, "a") == "two\n"


async def test_an_unread_file_may_be_edited_where_the_text_proves_that_it_is_known(bench: Bench) -> None:
    await put(bench, "a", "one\ntwo\n", read=False)

    await bench("file_edit", path="a", old="one\n", new="1\n")

    assert await text(bench, "a") == "1\ntwo\n"


@pytest.mark.parametrize(
    ("old", "new"), [("one", "one!"), ("  one\n", "  1\n"), ("ab", "a")], ids=["twice", "loosely", "again"]
)
async def test_an_unread_file_must_be_read_where_a_repeat_could_do_harm(bench: Bench, old: str, new: str) -> None:
    await put(bench, "a", "one\nabb\n", read=False)

    error = await bench.fails("file_edit", path="a", old=old, new=new)

    assert error.kind == "not_read"
    assert await text(bench, "a") == "one\nabb\n"


async def test_an_edit_repeated_after_a_takeover_is_recognised(bench: Bench) -> None:
    await put(bench, "a", "x = 1\n")
    known = dict(bench.state.facts)
    await bench("file_edit", path="a", old="x = 1", new="x = 1 + x = 1")
    bench.state.facts = known

    again = await bench("file_edit", path="a", old="x = 1", new="x = 1 + x = 1")

    assert again.data["repeated"]
    assert [type(event) for event in again.events] == [FileChanged]
    assert await text(bench, "a") == "x = 1 + x = 1\n"


async def test_many_edits_repeated_after_a_takeover_are_recognised(bench: Bench) -> None:
    await put(bench, "a", "one\ntwo\n")
    known = dict(bench.state.facts)
    edits = [{"old": "one", "new": "1"}, {"old": "two", "new": "2"}]
    await bench("multi_edit", path="a", edits=edits)
    bench.state.facts = known

    assert (await bench("multi_edit", path="a", edits=edits)).data["repeated"]


async def test_a_creation_repeated_after_a_takeover_is_recognised(bench: Bench) -> None:
    edits = [{"old": "", "new": "one\n"}, {"old": "one", "new": "two"}]
    await bench("multi_edit", path="new/a", edits=edits)
    bench.state.facts.clear()

    again = await bench("multi_edit", path="new/a", edits=edits)

    assert again.data["repeated"]
    assert await text(bench, "new/a") == "two\n"


async def test_parallel_edits_of_one_file_lose_nothing(bench: Bench) -> None:
    await put(bench, "a", "".join(f"line {n};\n" for n in range(20)))

    await asyncio.gather(*(bench("file_edit", path="a", old=f"line {n};", new=f"LINE {n};") for n in range(20)))

    assert await text(bench, "a") == "".join(f"LINE {n};\n" for n in range(20))


async def test_a_link_is_followed_and_kept(bench: Bench) -> None:
    await put(bench, "real/a", "one\n", read=False)
    await bench("bash", command="ln -s real/a link") if bench.sandbox.info.provider != "memory" else link(bench)
    await bench("file_read", path="link")

    await bench("file_edit", path="link", old="one", new="two")

    assert await text(bench, "real/a") == "two\n"
    stat = await bench.sandbox.stat("link")
    assert stat is not None
    assert stat.kind == "symlink"


def link(bench: Bench) -> None:
    bench.sandbox.files.link("link", "real/a")  # type: ignore[attr-defined]  # the memory twin's own


async def test_a_link_out_of_the_workspace_is_refused(shell: Bench) -> None:
    await shell("bash", command="ln -s /etc/passwd link")

    for tool, arguments in (("file_read", {}), ("file_edit", {"old": "root", "new": "toor"})):
        error = await shell.fails(tool, path="link", **arguments)
        assert error.kind == "outside_workspace"


async def test_the_mode_of_a_file_stays(bench: Bench) -> None:
    await bench.sandbox.write("run.sh", b"#!/bin/sh\necho 1\n", mode=0o755)
    await bench("file_read", path="run.sh")

    await bench("file_edit", path="run.sh", old="echo 1", new="echo 2")

    stat = await bench.sandbox.stat("run.sh")
    assert stat is not None
    assert stat.mode & 0o777 == 0o755


async def test_two_edits_of_which_one_fails_write_nothing(bench: Bench) -> None:
    await put(bench, "a", "one\ntwo\n")

    error = await bench.fails("multi_edit", path="a", edits=[{"old": "one", "new": "1"}, {"old": "six", "new": "6"}])

    assert (error.kind, error.details["index"]) == ("not_found", 1)
    assert error.message.startswith("Edit 2 of 2 failed, so none was made.")
    assert await text(bench, "a") == "one\ntwo\n"


async def test_edits_build_on_each_other(bench: Bench) -> None:
    await put(bench, "a", "one\n")

    await bench("multi_edit", path="a", edits=[{"old": "one", "new": "two"}, {"old": "two", "new": "three"}])

    assert await text(bench, "a") == "three\n"


async def test_a_missing_file_names_near_ones(bench: Bench) -> None:
    await put(bench, "src/settings.py", "a\n")

    near = await bench.fails("file_edit", path="src/setting.py", old="a", new="b")
    elsewhere = await bench.fails("file_edit", path="lib/settings.py", old="a", new="b")

    assert near.kind == elsewhere.kind == "file_missing"
    assert "src/settings.py" in near.message
    assert "src/settings.py" in elsewhere.message


@pytest.mark.parametrize(
    ("path", "kind"), [("src", "is_directory"), ("../a", "outside_workspace"), ("/etc/passwd", "outside_workspace")]
)
async def test_other_places_are_refused(bench: Bench, path: str, kind: str) -> None:
    await bench.sandbox.make_dir("src")

    assert (await bench.fails("file_edit", path=path, old="a", new="b")).kind == kind


async def test_an_absolute_path_inside_the_workspace_is_the_same_file(bench: Bench) -> None:
    await put(bench, "a", "one\n")

    await bench("file_edit", path=f"{bench.sandbox.info.workdir}/a", old="one", new="two")

    assert await text(bench, "a") == "two\n"


async def test_a_text_that_is_not_there_is_answered_with_the_nearest_lines(bench: Bench) -> None:
    await put(bench, "a.py", "class A:\n\tdef run(self):\n\t\treturn self.value  \n\nclass B:\n\tpass\n")

    error = await bench.fails("file_edit", path="a.py", old="    def run(self):\n        return value\n", new="x\n")

    assert error.kind == "not_found"
    assert "2\t→def run(self):\n3\t→→return self.value··" in error.message


async def test_numbered_lines_and_edits_made_before_are_recognised(bench: Bench) -> None:
    await put(bench, "a", "one\ntwo\n")

    numbered = await bench.fails("file_edit", path="a", old="1\tone\n2\ttwo\n", new="x\n")
    made = await bench.fails("file_edit", path="a", old="zero\n", new="two\n")

    assert "leave out the numbers" in numbered.message
    assert "already there, at line 2" in made.message


async def test_several_places_are_answered_with_their_lines(bench: Bench) -> None:
    await put(bench, "a", "x\ny\nx\nz\nx\n")

    error = await bench.fails("file_edit", path="a", old="x\n", new="w\n")

    assert error.kind == "ambiguous"
    assert "3 times, at lines 1, 3, 5" in error.message
    assert "replace_all" in error.message


async def test_a_very_large_file_is_refused(bench: Bench) -> None:
    await put(bench, "big", b"a\n" * 5_100_000, read=False)

    assert (await bench.fails("file_edit", path="big", old="b", new="c")).kind == "too_large"


async def test_a_file_of_a_megabyte_is_edited_off_the_loop(bench: Bench) -> None:
    await put(bench, "big", "".join(f"line {n}\n" for n in range(100_000)), read=False)
    await bench("file_read", path="big", limit=10)

    result = await bench("file_edit", path="big", old="line 54321\n", new="LINE\n")

    assert "first at line 54322" in result.text
    assert len(result.text) < 500


async def test_a_change_while_the_edit_runs_is_noticed() -> None:
    from tests.tools.harness import make_context, memory_sandbox

    sandbox = memory_sandbox({"a": "one\n"})

    class Meddled:
        """Somebody writes between the first look and the second."""

        looks = 0

        def __getattr__(self, name: str) -> object:
            return getattr(sandbox, name)

        async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
            self.looks += 1
            if self.looks == 2:
                await sandbox.write("a", b"one\nmore\n")
            return await sandbox.read(path, offset=offset, limit=limit)

    context: ToolContext = make_context(Meddled())  # type: ignore[arg-type]  # passes everything on
    outcome: ToolOutput | ToolError
    try:
        outcome = await FileEdit().run(FileEdit.args_type(path="a", old="one", new="two"), context)  # type: ignore[call-arg,arg-type]  # the tool's own arguments
    except ToolError as error:
        outcome = error
    assert isinstance(outcome, ToolError)
    assert outcome.kind == "stale"
    assert await sandbox.read("a") == b"one\nmore\n"


async def test_edits_that_undo_each_other_change_nothing_and_say_so(bench: Bench) -> None:
    await put(bench, "a", "one\r\ntwo\n")

    edits = [{"old": "one", "new": "two"}, {"old": "two\ntwo", "new": "one\ntwo"}]
    error = await bench.fails("multi_edit", path="a", edits=edits)

    assert error.kind == "no_change"
    assert await text(bench, "a") == "one\r\ntwo\n"


async def test_a_link_that_leads_nowhere_is_not_suggested_for_itself(shell: Bench) -> None:
    await shell("bash", command="ln -s nowhere link")

    error = await shell.fails("file_edit", path="link", old="a", new="b")

    assert error.kind == "file_missing"
    assert "Did you mean link" not in error.message
