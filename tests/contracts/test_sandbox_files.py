"""What every sandbox promises about files, whoever provides it."""

import asyncio

import pytest

from tests.contracts.archives import archive
from workflow.core.errors import ToolError
from workflow.sandboxes.base import FileStat, Sandbox


async def test_a_file_is_read_as_it_was_written(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 100
    await sandbox.write("a/b/c.bin", content)
    assert await sandbox.read("a/b/c.bin") == content
    assert await sandbox.read("a/b/c.bin", offset=250, limit=10) == content[250:260]
    assert await sandbox.read("a/b/c.bin", offset=len(content) + 5) == b""


async def test_an_absolute_path_means_the_same_as_a_relative_one(sandbox: Sandbox) -> None:
    await sandbox.write(f"{sandbox.info.workdir}/x.txt", b"x")
    assert await sandbox.read("x.txt") == b"x"
    assert await sandbox.read("./y/../x.txt") == b"x"


async def test_commands_and_file_calls_see_the_same_files(shell: Sandbox) -> None:
    await shell.write("made/outside.txt", b"one\n")
    await shell.exec("echo two >> made/outside.txt; echo in > made/inside.txt; echo n > new")
    assert await shell.read("made/outside.txt") == b"one\ntwo\n"
    assert await shell.read("made/inside.txt") == b"in\n"
    await shell.write("made/inside.txt", b"changed")
    assert (await shell.exec("cat made/inside.txt; rm -r made")).stdout == b"changed"
    assert await shell.stat("made") is None


async def test_a_rewritten_file_keeps_its_mode(sandbox: Sandbox) -> None:
    await sandbox.write("run.sh", b"#!/bin/sh\n", mode=0o755)
    await sandbox.write("run.sh", b"#!/bin/sh\necho\n")
    await sandbox.write("plain", b"")
    stat, plain = await sandbox.stat("run.sh"), await sandbox.stat("plain")
    assert stat is not None and plain is not None
    assert (stat.kind, stat.size, stat.mode, plain.mode) == ("file", 15, 0o755, 0o644)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "/workspace/../etc/passwd", "//etc/passwd"])
async def test_a_path_that_leaves_the_workspace_is_refused(sandbox: Sandbox, path: str) -> None:
    for call in (sandbox.read(path), sandbox.write(path, b""), sandbox.list(path), sandbox.remove(path)):
        with pytest.raises(ToolError) as refused:
            await call
        assert refused.value.kind == "outside_workspace"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("gone", "file_missing"), ("folder", "is_directory"), ("a\0b", "bad_path"), ("half \ud83d", "bad_path")],
)
async def test_what_cannot_be_read_says_why(sandbox: Sandbox, path: str, kind: str) -> None:
    await sandbox.make_dir("folder")
    with pytest.raises(ToolError) as refused:
        await sandbox.read(path)
    assert refused.value.kind == kind


async def test_a_folder_is_not_overwritten_by_a_file(sandbox: Sandbox) -> None:
    await sandbox.make_dir("folder/below")
    with pytest.raises(ToolError) as refused:
        await sandbox.write("folder", b"x")
    assert refused.value.kind == "is_directory"


async def test_a_pipe_is_not_read(shell: Sandbox) -> None:
    await shell.exec("mkfifo pipe")
    with pytest.raises(ToolError) as refused:
        await asyncio.wait_for(shell.read("pipe"), 5)
    assert refused.value.kind == "not_regular"


async def test_a_symlink_inside_is_followed_and_kept(sandbox: Sandbox) -> None:
    await sandbox.upload(
        archive({"real.txt": b"old", "sub/relative": "../real.txt", "absolute": "@/real.txt"}, sandbox)
    )
    for link in ("sub/relative", "absolute"):
        await sandbox.write(link, link.encode())
        assert await sandbox.read("real.txt") == link.encode() == await sandbox.read(link)
        stat = await sandbox.stat(link)
        assert stat is not None and stat.kind == "symlink"


async def test_a_symlink_that_leads_out_is_refused(sandbox: Sandbox) -> None:
    links: dict[str, bytes | str] = {"up": "../../x", "etc": "/etc", "loop": "loop", "hop": "up/y"}
    await sandbox.upload(archive(links, sandbox))
    for path in ("up", "etc/passwd", "hop", "loop", "etc"):
        with pytest.raises(ToolError):
            await sandbox.read(path)
        with pytest.raises(ToolError):
            await sandbox.write(path, b"x")


async def test_a_folder_is_listed_in_order_and_to_the_depth_asked_for(sandbox: Sandbox) -> None:
    for path in ("b.txt", "a/z.txt", "a/deep/er.txt", "a-b"):
        await sandbox.write(path, b"12345")
    assert [stat.path for stat in await sandbox.list()] == ["a", "a-b", "b.txt"]
    assert [stat.path for stat in await sandbox.list("a", depth=5)] == ["a/deep", "a/deep/er.txt", "a/z.txt"]
    assert [(stat.path, stat.kind, stat.size) for stat in await sandbox.list(depth=2) if stat.kind == "file"] == [
        ("a-b", "file", 5),
        ("a/z.txt", "file", 5),
        ("b.txt", "file", 5),
    ]
    assert len(await sandbox.list(depth=9, limit=3)) == 3


async def test_listing_a_file_or_nothing_says_why(sandbox: Sandbox) -> None:
    await sandbox.write("file", b"")
    for path, kind in (("file", "not_a_directory"), ("nothing", "file_missing")):
        with pytest.raises(ToolError) as refused:
            await sandbox.list(path)
        assert refused.value.kind == kind


async def test_stat_of_nothing_is_none(sandbox: Sandbox) -> None:
    await sandbox.write("file", b"")
    assert await sandbox.stat("gone") is None
    assert await sandbox.stat("file/below") is None
    top = await sandbox.stat(".")
    assert top is not None and top.kind == "dir"


async def test_a_changed_file_has_another_time_or_size(sandbox: Sandbox) -> None:
    await sandbox.write("f", b"1")
    before = await sandbox.stat("f")
    await sandbox.write("f", b"22")
    assert await sandbox.stat("f") != before


async def test_files_and_folders_are_moved_and_removed(sandbox: Sandbox) -> None:
    await sandbox.write("a/one.txt", b"1")
    await sandbox.move("a", "new/b")
    assert await sandbox.read("new/b/one.txt") == b"1" and await sandbox.stat("a") is None
    await sandbox.write("other", b"2")
    await sandbox.move("other", "new/b/one.txt")
    assert await sandbox.read("new/b/one.txt") == b"2"
    await sandbox.remove("new")
    await sandbox.remove("new")
    assert await sandbox.list() == []


@pytest.mark.parametrize(("source", "target"), [("gone", "x"), ("a", "a/b/c"), ("f", "a")])
async def test_a_move_that_cannot_be_is_refused(sandbox: Sandbox, source: str, target: str) -> None:
    await sandbox.make_dir("a")
    await sandbox.write("f", b"")
    with pytest.raises(ToolError):
        await sandbox.move(source, target)


async def test_the_workspace_itself_cannot_be_removed_or_written(sandbox: Sandbox) -> None:
    with pytest.raises(ToolError):
        await sandbox.remove(".")
    with pytest.raises(ToolError):
        await sandbox.write(".", b"")


async def test_a_watcher_sees_files_come_change_and_go(sandbox: Sandbox) -> None:
    await sandbox.write("w/old", b"1")
    watcher = sandbox.watch("w")
    # Started before anything changes: the first scan is what later ones are compared with.
    first = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(1.5 if sandbox.info.tier == "T0" else 0.2)
    await sandbox.write("w/new", b"123")
    assert _of(await asyncio.wait_for(first, 5)) == ("w/new", 3)
    await sandbox.write("w/new", b"12345")
    assert _of(await asyncio.wait_for(anext(watcher), 5)) == ("w/new", 5)
    await sandbox.remove("w/old")
    assert _of(await asyncio.wait_for(anext(watcher), 5)) == ("w/old", -1)


def _of(stat: FileStat) -> tuple[str, int]:
    return stat.path, stat.size


async def test_a_file_is_written_however_many_folders_are_missing_above_it(sandbox: Sandbox) -> None:
    path = "d/" * 1_500 + "file"
    await sandbox.write(path, b"deep")
    assert await sandbox.read(path) == b"deep"
    await sandbox.remove("d")
    assert await sandbox.list() == []
