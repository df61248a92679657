"""What every sandbox promises about its snapshots: read, compared, gone on from, whoever provides it."""

import asyncio

import pytest

from tests.contracts.archives import archive
from workflow.core.errors import ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import FLEETING, FileDifference, Sandbox, SandboxProvider


async def test_a_workspace_that_did_not_change_has_one_snapshot(sandbox: Sandbox) -> None:
    await sandbox.write("a", b"1")
    first = await sandbox.snapshot("turn 1")
    assert await sandbox.snapshot("turn 2") == first
    await sandbox.write("a", b"2")
    second = await sandbox.snapshot("turn 3")
    await sandbox.write("a", b"1")
    assert len({first, second, await sandbox.snapshot("turn 4")}) == 3


async def test_fleeting_snapshots_neither_replace_nor_crowd_out_lasting_ones(sandbox: Sandbox) -> None:
    lasting = {}
    for number in range(4):
        await sandbox.write("f", b"%d" % number)
        fleeting = await sandbox.snapshot(FLEETING)
        assert await sandbox.read_at(fleeting, "f") == b"%d" % number
        lasting[number] = await sandbox.snapshot(f"turn {number}")
        for between in range(6):
            await sandbox.write("f", b"%d and %d" % (number, between))
            await sandbox.snapshot(FLEETING)
        await sandbox.write("f", b"%d" % number)
        assert await sandbox.snapshot("again") == lasting[number]
    for number, snapshot in lasting.items():
        assert await sandbox.read_at(snapshot, "f") == b"%d" % number


async def test_a_snapshot_is_listed_and_read_without_restoring(sandbox: Sandbox) -> None:
    await sandbox.write("folder/deep/file", b"then")
    await sandbox.write("top", b"top")
    await sandbox.upload(archive({"link": "top"}, sandbox))
    large = bytes(range(256)) * 8192
    await sandbox.write("large", large)
    snapshot = await sandbox.snapshot("then")
    await sandbox.write("folder/deep/file", b"now, longer")
    await sandbox.remove("top")
    await sandbox.write("new", b"")

    listed = await sandbox.list_at(snapshot)
    assert [(stat.path, stat.kind) for stat in listed] == [
        ("folder", "dir"),
        ("large", "file"),
        ("link", "symlink"),
        ("top", "file"),
    ]
    below = await sandbox.list_at(snapshot, "folder", depth=5)
    assert [(stat.path, stat.size, stat.mtime_ns) for stat in below] == [
        ("folder/deep", 0, 0),
        ("folder/deep/file", 4, 0),
    ]
    assert await sandbox.read_at(snapshot, "folder/deep/file") == b"then"
    assert await sandbox.read_at(snapshot, "large") == large
    assert await sandbox.read("folder/deep/file") == b"now, longer"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("nothing", "file_missing"),
        ("file/below", "file_missing"),
        ("folder", "is_directory"),
        (".", "is_directory"),
        ("../up", "outside_workspace"),
        ("/etc/passwd", "outside_workspace"),
    ],
)
async def test_what_cannot_be_read_of_a_snapshot_is_refused_with_its_kind(
    sandbox: Sandbox, path: str, kind: str
) -> None:
    await sandbox.write("file", b"")
    await sandbox.make_dir("folder")
    snapshot = await sandbox.snapshot("one")
    with pytest.raises(ToolError) as refused:
        await sandbox.read_at(snapshot, path)
    assert refused.value.kind == kind


async def test_an_unknown_snapshot_is_refused_whatever_is_asked_of_it(
    sandbox: Sandbox, provider: SandboxProvider
) -> None:
    known = await sandbox.snapshot("one")
    attempts = [
        sandbox.list_at("nothing"),
        sandbox.read_at("../seen", "x"),
        sandbox.compare(known, "nothing"),
        provider.fork(ThreadId("contract"), "nothing", ThreadId("other")),
    ]
    for refused in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(refused, ToolError) and refused.kind == "no_such_snapshot"


async def test_two_snapshots_are_compared(sandbox: Sandbox) -> None:
    for path in ("same", "edited", "gone", "folder/deep/file"):
        await sandbox.write(path, path.encode())
    before = await sandbox.snapshot("before")
    await sandbox.write("edited", b"after")
    await sandbox.write("folder/new", b"")
    await sandbox.remove("gone")
    await sandbox.write("same", b"same", mode=0o600)
    after = await sandbox.snapshot("after")

    changes = await sandbox.compare(before, after)
    assert [(change.path, sizes(change)) for change in changes] == [
        ("edited", (6, 5)),
        ("folder/new", (None, 0)),
        ("gone", (4, None)),
        ("same", (4, 4)),
    ]
    assert [change.new.mode for change in changes if change.path == "same" and change.new] == [0o600]
    assert await sandbox.compare(after, after) == []


def sizes(change: FileDifference) -> tuple[int | None, int | None]:
    return (None if change.old is None else change.old.size, None if change.new is None else change.new.size)


async def test_another_thread_goes_on_from_a_snapshot(sandbox: Sandbox, provider: SandboxProvider) -> None:
    await sandbox.write("a/file", b"then")
    await sandbox.make_dir("empty")
    snapshot = await sandbox.snapshot("turn 3")
    await sandbox.write("a/file", b"now")

    forked = await provider.fork(ThreadId("contract"), snapshot, ThreadId("other"))
    target = await provider.open(ThreadId("other"))
    assert [stat.path for stat in await target.list(depth=3)] == ["a", "a/file", "empty"]
    await target.write("a/file", b"elsewhere")
    assert await target.read_at(forked, "a/file") == b"then"
    assert await sandbox.read("a/file") == b"now"


async def test_a_restored_folder_that_is_closed_to_writing_has_its_files(shell: Sandbox) -> None:
    await shell.write("closed/file", b"in there")
    assert (await shell.exec("chmod 500 closed")).exit_code == 0
    snapshot = await shell.snapshot("closed")
    assert (await shell.exec("chmod 700 closed && rm -r closed")).exit_code == 0
    await shell.restore(snapshot)
    found = await shell.stat("closed")
    assert found is not None and found.mode & 0o777 == 0o500
    assert await shell.read("closed/file") == b"in there"


async def test_a_pipe_in_the_way_of_what_is_restored_makes_room(shell: Sandbox) -> None:
    await shell.write("folder/file", b"kept")
    await shell.write("file", b"kept")
    snapshot = await shell.snapshot("before")
    assert (await shell.exec("rm -r folder file; mkfifo folder file")).exit_code == 0
    await shell.restore(snapshot)
    assert (await shell.read("folder/file"), await shell.read("file")) == (b"kept", b"kept")


async def test_names_of_all_kinds_survive_a_snapshot(shell: Sandbox) -> None:
    names = "'a b' $'line\\nend' $'\\xff\\xfe' -n '*' '\\' 'ü' .dialtone-notes"
    made = await shell.exec(f'for n in {names}; do echo "$n" > ./"$n"; ln -s -- "$n" ./"$n.link"; done; ls -Ab')
    snapshot = await shell.snapshot("all")
    await shell.exec("rm -r -- ./* ./.d*")
    await shell.restore(snapshot)
    assert (await shell.exec("ls -Ab")).stdout == made.stdout
    assert len(made.stdout.splitlines()) == 16
