"""What every sandbox promises about trees, snapshots, ports and its own life, whoever provides it."""

import asyncio
import contextlib
import io
import socket
import tarfile

import pytest

from tests.contracts.archives import archive
from workflow.core.errors import SandboxError, ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Sandbox, SandboxProvider


async def test_a_tree_is_downloaded_as_it_was_uploaded(sandbox: Sandbox) -> None:
    tree: dict[str, bytes | str] = {"src/a.py": b"print()", "src/pkg/b.py": bytes(5000), "link": "src/a.py"}
    assert await sandbox.upload(archive(tree, sandbox), "project") == 2
    with tarfile.open(fileobj=io.BytesIO(await sandbox.download("project"))) as tar:
        found = {entry.name: entry for entry in tar}
        content = tar.extractfile("src/a.py")
        assert content is not None and content.read() == b"print()"
    assert sorted(found) == ["link", "src", "src/a.py", "src/pkg", "src/pkg/b.py"]
    assert found["link"].linkname == "src/a.py"


@pytest.mark.parametrize("packed", [b"", b"not a tar", b"\x1f\x8b" + b"x" * 50])
async def test_what_is_no_archive_is_refused(sandbox: Sandbox, packed: bytes) -> None:
    with pytest.raises(ToolError) as refused:
        await sandbox.upload(packed)
    assert refused.value.kind == "bad_archive"


async def test_a_snapshot_brings_the_workspace_back(sandbox: Sandbox) -> None:
    await sandbox.write("kept", b"same")
    await sandbox.write("changed", b"old")
    await sandbox.write("deleted/file", b"was here")
    await sandbox.upload(archive({"link": "kept"}, sandbox))
    snapshot = await sandbox.snapshot("turn 1")
    await sandbox.write("changed", b"new")
    await sandbox.write("added/file", b"")
    await sandbox.remove("deleted")
    await sandbox.remove("link")
    await sandbox.restore(snapshot)
    assert [stat.path for stat in await sandbox.list(depth=3)] == ["changed", "deleted", "deleted/file", "kept", "link"]
    assert await sandbox.read("changed") == b"old" and await sandbox.read("deleted/file") == b"was here"
    assert await sandbox.read("link") == b"same"


async def test_an_unknown_snapshot_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ToolError) as refused:
        await sandbox.restore("nothing")
    assert refused.value.kind == "no_such_snapshot"


async def test_closing_keeps_the_workspace_and_the_next_command_works(sandbox: Sandbox) -> None:
    await sandbox.write("kept", b"yes")
    await sandbox.exec("true")
    await sandbox.close()
    assert (await sandbox.exec("cat kept")).stdout == b"yes"


async def test_closing_ends_what_runs(shell: Sandbox) -> None:
    process = await shell.start("sleep 300")
    command = asyncio.create_task(shell.exec("sleep 300"))
    await shell.exec("true")
    await shell.close()
    with pytest.raises(SandboxError):
        await asyncio.wait_for(command, 5)
    assert await process.wait(timeout_s=5) == 128 + 9


async def test_a_stopped_thread_runs_nothing_and_one_without_a_sandbox_gets_none(provider: SandboxProvider) -> None:
    sandbox = await provider.open(ThreadId("one"))
    process = await sandbox.start("sleep 300")
    live = provider.live
    await provider.stop(ThreadId("two"))
    assert process.exit_code is None and provider.live == live
    await provider.stop(ThreadId("one"))
    assert await process.wait(timeout_s=5) == 128 + 9


async def test_a_thread_finds_its_workspace_again_and_no_other(provider: SandboxProvider) -> None:
    one, two = await provider.open(ThreadId("one")), await provider.open(ThreadId("two"))
    await one.write("mine", b"1")
    assert await two.stat("mine") is None
    assert await (await provider.open(ThreadId("one"))).read("mine") == b"1"
    await provider.remove(ThreadId("one"))
    assert await (await provider.open(ThreadId("one"))).stat("mine") is None


async def test_what_is_used_can_be_asked(sandbox: Sandbox) -> None:
    await sandbox.write("big", bytes(100_000))
    assert (await sandbox.usage()).disk_bytes >= 100_000


async def test_a_port_inside_is_reached_from_outside(networked: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:  # unsafe_host shares the ports of the host
        port = free.getsockname()[1]
    await networked.write("index.txt", b"served from inside")
    process = await networked.start(f"exec python3 -m http.server --bind 127.0.0.1 {port} 2>&1")
    address = await networked.address(port)
    assert address.port == port and address.host.startswith("unix:")
    answer = b""
    for _ in range(100):
        reader, writer = await asyncio.open_unix_connection(address.host.removeprefix("unix:"))
        with contextlib.closing(writer):
            writer.write(b"GET /index.txt HTTP/1.0\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 5)
        if answer or process.exit_code is not None:
            break
        await process.wait(timeout_s=0.05)
    assert answer.endswith(b"served from inside"), await process.output()
