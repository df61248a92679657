"""Attacks on the disk: large files, many files, hidden ones, none too quick. Limits are those of conftest.py."""

import asyncio

import pytest

from tests.sandboxes.conftest import MEGABYTE
from tests.sandboxes.inside import python
from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.local_sandbox import LocalSandbox


async def test_one_file_cannot_pass_the_disk_limit(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("head -c 80M /dev/zero > big; exit 0")
    stat = await sandbox.stat("big")
    assert stat is None or stat.size <= 50 * MEGABYTE, result


async def test_many_files_together_are_stopped_at_the_disk_limit(sandbox: LocalSandbox) -> None:
    slowly = "for i in $(seq 100); do head -c 4M /dev/zero > part$i; sleep 0.02; done"
    result = await sandbox.exec(slowly, timeout_s=20)
    assert result.killed_by == "disk"
    assert (await sandbox.usage()).disk_bytes < 150 * MEGABYTE


async def test_the_limit_holds_in_a_sandbox_that_was_started_anew(sandbox: LocalSandbox) -> None:
    """While a command of the one before is still handing on its output."""
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def show(stream: str, chunk: bytes) -> None:
        has_begun.set()
        await may_end.wait()

    before = asyncio.create_task(sandbox.exec("echo begun; sleep 60", on_output=show))
    await has_begun.wait()
    await sandbox.close()
    slowly = "for i in $(seq 100); do head -c 4M /dev/zero > part$i; sleep 0.02; done"
    assert (await sandbox.exec(slowly, timeout_s=20)).killed_by == "disk"
    may_end.set()
    with pytest.raises(SandboxError):
        await before


async def test_very_many_files_are_stopped_at_the_file_limit(sandbox: LocalSandbox) -> None:
    make = "import time\nfor i in range(100_000):\n    open(f'f{i}', 'w').close()\n    time.sleep(0.0005)"
    result = await python(sandbox, make, timeout_s=30)
    assert result.killed_by == "disk"
    assert len(list(sandbox.place.workspace.iterdir())) < 20_000


async def test_the_home_folder_counts_as_well(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec(
        "for i in $(seq 60); do head -c 2M /dev/zero > ~/part$i; sleep 0.03; done", timeout_s=20
    )
    assert result.killed_by == "disk"


@pytest.mark.parametrize("hold", ["kept.append(fd)", "kept.append(mmap.mmap(fd, 20_000_000)); os.close(fd)"])
async def test_files_that_are_deleted_but_still_held_count_as_well(sandbox: LocalSandbox, hold: str) -> None:
    result = await python(
        sandbox,
        f"""
        import mmap, os, time
        kept = []
        for number in range(20):
            fd = os.open("f", os.O_CREAT | os.O_RDWR)
            os.unlink("f")
            os.write(fd, bytes(20_000_000))
            {hold}
            time.sleep(0.1)
        """,
    )
    assert result.killed_by == "disk", result
    assert (await sandbox.exec("echo fine > f && cat f")).stdout == b"fine\n", "what the dead had held is free again"


async def test_deleted_files_on_their_way_through_a_socket_count_as_well(sandbox: LocalSandbox) -> None:
    """Nobody has them open; only how the disk fills up tells of them."""
    result = await python(
        sandbox,
        """
        import _socket, array, os, time
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        for number in range(60):
            fd = os.open("f", os.O_CREAT | os.O_RDWR)
            os.unlink("f")
            ours.sendmsg([b"x"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [fd]))])
            os.write(fd, bytes(10_000_000))
            os.close(fd)
            time.sleep(0.1)
        """,
    )
    assert result.killed_by == "disk", result


async def test_files_hidden_in_a_path_too_long_to_open_do_not_escape_the_limit(sandbox: LocalSandbox) -> None:
    result = await python(
        sandbox,
        """
        import os, time
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        for number in range(60):
            with open(str(number), "wb") as file:
                file.write(bytes(1 << 21))
            time.sleep(0.02)
        time.sleep(10)
        """,
        timeout_s=15,
    )
    assert result.killed_by == "disk"


async def test_commands_too_short_to_be_watched_do_not_escape_the_limit(sandbox: LocalSandbox) -> None:
    results = [await sandbox.exec(f"head -c 20M /dev/zero > part{number}") for number in range(8)]
    assert (await sandbox.usage()).disk_bytes <= 70 * MEGABYTE
    assert results[-1].killed_by == "disk" and results[-1].exit_code == 128 + 25


async def test_what_is_over_the_limit_can_be_deleted(sandbox: LocalSandbox) -> None:
    for name in ("a", "b"):
        await sandbox.write(name, bytes(30 * MEGABYTE))
    with pytest.raises(ToolError) as refused:
        await sandbox.write("c", b"x")
    assert refused.value.kind == "disk_full"
    assert (await sandbox.exec("echo x > c")).killed_by == "disk"
    assert (await sandbox.exec("rm a; ls", timeout_s=10)).stdout == b"b\nc\n"
    assert (await sandbox.exec("echo fine > c; cat c", timeout_s=10)).stdout == b"fine\n"
    await sandbox.write("d", b"x")


async def test_a_sparse_file_cannot_be_huge(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("truncate -s 1T sparse")
    assert result.exit_code != 0
    stat = await sandbox.stat("sparse")
    assert stat is None or stat.size <= 50 * MEGABYTE


async def test_files_with_holes_are_not_packed_beyond_the_disk_limit(sandbox: LocalSandbox) -> None:
    await sandbox.exec("for n in 1 2 3; do truncate -s 40M holes$n; done")
    with pytest.raises(ToolError) as refused:
        await sandbox.download()
    assert refused.value.kind == "too_large"
