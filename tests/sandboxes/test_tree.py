"""File calls against commands that work against them: races, links, depths, closed folders."""

import asyncio
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from tests.sandboxes.conftest import mounted
from tests.sandboxes.inside import python
from tests.until import until_sync
from workflow.core.errors import ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes import beneath
from workflow.sandboxes.archive import members
from workflow.sandboxes.base import FileStat
from workflow.sandboxes.disk import DiskMeter, measure
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.removal import remove_tree
from workflow.sandboxes.tree import Tree

SWAP = """
import os
os.makedirs("real", exist_ok=True)
open("real/file", "w").write("inside")
os.symlink({outside!r}, "evil")
while True:
    for target in ("real", {outside!r}):
        os.symlink(target, "next")
        os.rename("next", "link")
"""


@pytest.fixture
def victim(folder: Path) -> Path:
    """A folder outside the workspace that everybody could read and write."""
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "file").write_text("SECRET")
    (outside / "file").chmod(0o666)
    return outside


async def test_a_symlink_that_is_swapped_all_the_time_never_leads_out(sandbox: LocalSandbox, victim: Path) -> None:
    racer = asyncio.create_task(python(sandbox, SWAP.format(outside=str(victim)), timeout_s=30))
    while await sandbox.stat("link") is None:
        await asyncio.wait([racer], timeout=0.02)
    read: list[bytes] = []
    refused: set[str] = set()
    number, deadline = 0, time.monotonic() + 20
    while number < 400 or (not (read and refused) and time.monotonic() < deadline):
        number += 1
        try:
            read.append(await sandbox.read("link/file"))
            await sandbox.write("link/file" if number % 2 else f"link/new{number}", b"new")
        except ToolError as error:
            refused.add(error.kind)
    racer.cancel()
    await asyncio.wait([racer])
    assert (victim / "file").read_text() == "SECRET" and len(list(victim.iterdir())) == 1
    assert set(read) <= {b"inside", b"new"}
    assert b"inside" in read, "some must have hit the folder inside, else nothing was raced"
    assert "outside_workspace" in refused


async def test_links_through_proc_lead_nowhere(sandbox: LocalSandbox, victim: Path) -> None:
    await sandbox.exec("ln -s /proc/self/root root; ln -s /proc/self/cwd cwd; ln -s /proc/1/root one")
    for path in (f"root{victim}/file", "root/etc/passwd", "cwd/x", "one/etc/passwd"):
        with pytest.raises(ToolError):
            await sandbox.read(path)


async def test_writing_replaces_a_hard_link_instead_of_writing_through_it(sandbox: LocalSandbox) -> None:
    await sandbox.exec("echo original > a; ln a b")
    await sandbox.write("b", b"new")
    assert await sandbox.read("a") == b"original\n"


async def test_names_of_any_bytes_are_listed_and_read_back(sandbox: LocalSandbox) -> None:
    await sandbox.exec("printf x > $'new\\nline'; printf y > $'\\xff\\xfe'; printf z > ' -rf '")
    names = [stat.path for stat in await sandbox.list()]
    assert len(names) == 3
    assert sorted([await sandbox.read(name) for name in names]) == [b"x", b"y", b"z"]


async def test_a_tree_of_any_depth_and_closed_folders_is_removed(sandbox: LocalSandbox) -> None:
    await python(
        sandbox,
        """
        import os
        os.makedirs("deep/closed")
        open("deep/closed/file", "w").close()
        os.chmod("deep/closed", 0)
        os.chdir("deep")
        for _ in range(500):
            os.mkdir("deeper-and-deeper")
            os.chdir("deeper-and-deeper")
        """,
    )
    await asyncio.wait_for(sandbox.remove("deep"), 20)
    assert await sandbox.list() == []


async def test_a_workspace_full_of_traps_is_removed_for_good(
    provider: LocalProvider, folder: Path, victim: Path
) -> None:
    sandbox = await provider.open(ThreadId("trapped"))
    await sandbox.exec(f"mkfifo pipe; ln -s {victim} out; mkdir -p a/b; ln -s .. a/up; chmod 500 a; ln -s loop loop")
    await provider.remove(ThreadId("trapped"))
    assert not (folder / "workspaces" / "trapped").exists()
    assert (victim / "file").read_text() == "SECRET"


async def test_archives_cannot_write_outside(sandbox: LocalSandbox, victim: Path) -> None:
    def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
        made = tarfile.TarInfo(name)
        made.type, made.linkname, made.mode = kind, link, mode
        return made

    attacks = {
        "parent": [entry("../escaped")],
        "absolute": [entry(f"{victim}/escaped")],
        "through a link": [entry("out", tarfile.SYMTYPE, str(victim)), entry("out/escaped")],
        "over a link": [entry("over", tarfile.SYMTYPE, f"{victim}/file"), entry("over")],
        "hard link": [entry("hard", tarfile.LNKTYPE, f"{victim}/file")],
        "device": [entry("device", tarfile.CHRTYPE)],
        "pipe": [entry("pipe", tarfile.FIFOTYPE)],
    }
    for name, entries in attacks.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for made in entries:
                tar.addfile(made)
        with pytest.raises(ToolError) as refused:
            await sandbox.upload(buffer.getvalue())
        assert refused.value.kind in ("outside_workspace", "bad_archive"), name
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(entry("setuid", mode=0o6755))
    await sandbox.upload(buffer.getvalue())
    stat = await sandbox.stat("setuid")
    assert stat is not None and stat.mode == 0o755
    assert (victim / "file").read_text() == "SECRET" and len(list(victim.iterdir())) == 1


async def test_a_file_may_be_written_as_deep_as_paths_reach(sandbox: LocalSandbox) -> None:
    deep = "d/" * 1900 + "file"
    await sandbox.write(deep, b"deep")
    assert (await sandbox.exec(f"cat {deep}")).stdout == b"deep"
    await sandbox.remove("d")  # pytest could not


async def test_a_watcher_goes_on_when_its_folder_becomes_a_file_and_a_folder_again(sandbox: LocalSandbox) -> None:
    await sandbox.write("watched/first", b"")
    seen: asyncio.Queue[FileStat] = asyncio.Queue()

    async def watch() -> None:
        async for stat in sandbox.watch("watched"):
            await seen.put(stat)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(10):
            while seen.empty():  # Until it has begun.
                await sandbox.write("watched/first", b"again")
                await asyncio.sleep(0.1)
            await sandbox.exec("rm -r watched; touch watched")
            while (await seen.get()).size != -1:
                pass
            await sandbox.exec("rm watched; mkdir watched; touch watched/second")
            while (await seen.get()).path != "watched/second":
                pass
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_files_that_vanish_while_a_tree_is_downloaded_are_left_out(sandbox: LocalSandbox) -> None:
    await sandbox.exec("for i in {1..100}; do echo kept > f$i; done")
    come_and_go = "import os\nfor n in range(10**9):\n    open(f't{n}', 'w').close(); os.unlink(f't{n}')"
    restless = asyncio.create_task(python(sandbox, come_and_go, timeout_s=60))
    try:
        for _ in range(200):
            assert b"kept" in await sandbox.download()
    finally:
        restless.cancel()
        await asyncio.gather(restless, return_exceptions=True)


async def test_a_download_takes_no_more_memory_than_a_workspace_may_take_disk(sandbox: LocalSandbox) -> None:
    await sandbox.exec("truncate -s 40M hole; ln hole again; mkdir d; echo small > d/file")
    with pytest.raises(ToolError) as refused:
        await sandbox.download()
    assert refused.value.kind == "too_large" and b"small" in await sandbox.download("d")


def test_an_archive_whose_links_add_up_to_too_much_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        first = tarfile.TarInfo("first")
        first.size = 1000
        tar.addfile(first, io.BytesIO(bytes(1000)))
        for number in range(9):
            link = tarfile.TarInfo(f"link{number}")
            link.type, link.linkname = tarfile.LNKTYPE, "first"
            tar.addfile(link)
    assert len(list(members(buffer.getvalue(), max_bytes=10_000))) == 10
    with pytest.raises(ToolError, match="too much"):
        list(members(buffer.getvalue(), max_bytes=9_999))


def test_an_archive_that_claims_terabytes_is_refused() -> None:
    header = tarfile.TarInfo("bomb")
    header.size = 1 << 42
    with pytest.raises(ToolError, match="too much"):
        list(members(header.tobuf() + bytes(1024)))


def test_without_openat2_paths_are_walked_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels before 5.6. A stand-in for the kernel, not for our code."""
    monkeypatch.setattr(beneath, "has_openat2", lambda: False)
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "work" / "sub" / "file").write_text("inside")
    (tmp_path / "work" / "up").symlink_to("..")
    (tmp_path / "work" / "direct").symlink_to("../secret")
    tree = Tree(tmp_path / "work", owner=os.geteuid())
    assert tree.read("sub/file") == b"inside"
    tree.write("sub/new/file", b"made")
    assert tree.read("sub/new/file") == b"made"
    for path in ("up/secret", "direct"):
        with pytest.raises(ToolError):
            tree.read(path)
    os.close(tree.root_fd)


def test_removing_follows_no_links_and_takes_single_files(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "single").write_text("x")
    parent = os.open(tmp_path, os.O_PATH)
    for name in ("gone", "single", "nothing"):
        remove_tree(parent, name)
    os.close(parent)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept" / "file").exists()


def test_growth_is_noticed_though_others_free_as_much(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    theirs = tmp_path / "theirs"
    theirs.write_bytes(bytes(60_000_000))
    root = os.open(tmp_path / "ours", os.O_PATH)
    try:
        meter = DiskMeter([root], max_bytes=10_000_000, max_files=100)
        assert not meter.is_over()
        (tmp_path / "ours" / "file").write_bytes(bytes(30_000_000))
        theirs.unlink()
        assert until_sync(lambda: meter.may_be_over() and meter.is_over(), timeout_s=5)
    finally:
        os.close(root)


def test_measuring_counts_hard_links_once_and_sparse_files_by_their_blocks(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1_000_000))
    (tmp_path / "again").hardlink_to(tmp_path / "big")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    fd = os.open(tmp_path, os.O_PATH)
    amount = measure((fd,))
    os.close(fd)
    assert 1_000_000 <= amount.bytes < 1_100_000 and amount.files == 3


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path, "-o", "size=64k"):
        tree = Tree(tmp_path, owner=os.geteuid())
        with pytest.raises(ToolError, match="the disk is full") as refused:
            tree.write("file", bytes(1_000_000))
        assert refused.value.kind == "disk_full"
        assert os.listdir(tmp_path) == []  # noqa: PTH208  (also what listings of ours hide)
        os.close(tree.root_fd)
