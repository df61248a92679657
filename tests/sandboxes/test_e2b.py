"""What is particular to E2B: memory that survives a pause, events of files, its network rules and addresses."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from tests.ports import free_port
from tests.sandboxes import remotes
from tests.sandboxes.remotes import connect, fresh_server
from tests.servers.boxes import Box, Fault
from tests.until import until
from workflow.core.errors import SandboxError, ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes.egress import REGISTRIES
from workflow.sandboxes.remote import RemoteProvider
from workflow.sandboxes.remote_sandbox import RemoteSandbox

THREAD = ThreadId("thread-1")
NETWORK = {"allowPublicTraffic": False, "maskRequestHost": "localhost:${PORT}"}

pytestmark = pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())


@pytest.fixture
def server() -> Any:
    return fresh_server("e2b")


@pytest.fixture
async def provider(server: Any) -> AsyncIterator[RemoteProvider]:
    async with connect("e2b", server) as connected:
        yield connected
    server.reset()


@pytest.fixture
async def sandbox(provider: RemoteProvider) -> RemoteSandbox:
    return await provider.open(THREAD)


def only_box(server: Any) -> Box:
    (box,) = server.boxes.values()
    assert isinstance(box, Box)
    return box


async def test_a_background_process_goes_on_after_a_pause(sandbox: RemoteSandbox, server: Any) -> None:
    process = await sandbox.start("while read -r line; do echo got $line; done")
    await process.write(b"one\n")
    await sandbox.put_away()
    assert only_box(server).state == "paused"
    await process.write(b"two\n")
    while len((await process.output())[0]) < 16:
        await process.wait(timeout_s=0.05)
    assert (await process.output())[0] == b"got one\ngot two\n"


async def test_it_pauses_by_itself_and_wakes_on_traffic(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.exec("true")
    request = only_box(server).request
    assert (request["autoPause"], request["autoResume"]) == (True, {"enabled": True})
    assert request["timeout"] == 600  # twice the idle time of the settings


@pytest.mark.parametrize(
    ("settings", "access", "network"),
    [
        ({"network": "off"}, False, {}),
        ({"network": "open"}, True, {}),
        (
            {"network": "allowlist", "allow_hosts": ["api.example.org", "*.example.com"], "allow_registries": True},
            True,
            {"allowOut": ["api.example.org", "*.example.com", *REGISTRIES], "denyOut": ["0.0.0.0/0"]},
        ),
    ],
    ids=["off", "open", "allowlist"],
)
async def test_the_network_is_as_configured(
    server: Any, settings: dict[str, Any], access: bool, network: dict[str, Any]
) -> None:
    async with connect("e2b", server, settings={**settings, "template": "ours"}) as provider:
        await (await provider.open(THREAD)).exec("true")
    request = only_box(server).request
    assert (request["allow_internet_access"], request["network"]) == (access, NETWORK | network)
    assert request["templateID"] == "ours"
    server.reset()


async def test_a_port_has_an_address_of_its_own_that_opens_with_a_token_only(
    sandbox: RemoteSandbox, server: Any, provider: RemoteProvider
) -> None:
    port = free_port()
    await sandbox.write("index.html", b"inside")
    await sandbox.start(f"exec python3 -m http.server --bind 127.0.0.1 {port} 2>&1")
    address = await sandbox.address(port)
    assert (address.host, address.port) == (f"{port}-{only_box(server).id}.boxes.localhost", server.port)
    (token,) = address.headers.values()
    assert token not in repr(address)

    async def visit(headers: Mapping[str, str]) -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            named = {**headers, "host": f"{address.host}:{address.port}"}
            answer = await http.get(f"http://127.0.0.1:{address.port}/index.html", headers=named)
        return answer.status_code, answer.text

    async def is_served() -> bool:
        return await visit(address.headers) == (200, "inside")

    await until(is_served, what="the server inside")
    assert (await visit({}))[0] == 403 and (await visit(dict.fromkeys(address.headers, "guessed")))[0] == 403
    async with connect("e2b", server) as other:  # finds it by its label, and is given the same token
        assert await (await other.open(THREAD)).address(port) == address
    with pytest.raises(ToolError):
        await sandbox.address(0)


async def test_a_sandbox_whose_memory_is_of_no_use_is_rebooted(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.write("kept", b"yes")
    await sandbox.put_away()
    code = "sandbox_snapshot_guest_agent_unresponsive"
    unusable = {"code": 409, "message": "its agent does not answer", "error_code": code}
    server.faults.append(Fault("/connect", status=409, body=unusable))
    assert await sandbox.read("kept") == b"yes"
    assert server.count("/connect") == 2


async def test_watching_does_not_poll_and_ends_when_the_sandbox_is_put_away(
    sandbox: RemoteSandbox, server: Any
) -> None:
    await sandbox.make_dir("w")
    watcher = sandbox.watch("w")
    seen = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(1.5)
    before = server.count("Process/Start")
    await asyncio.sleep(1.0)
    assert server.count("Process/Start") == before
    await sandbox.write("w/new", b"1")
    assert (await asyncio.wait_for(seen, 10)).path == "w/new"
    await sandbox.put_away()
    with pytest.raises(SandboxError):
        await asyncio.wait_for(anext(watcher), 10)


@pytest.mark.parametrize("fate", ["running", "paused", "gone"])
async def test_a_watch_whose_stream_fell_silent_goes_on_or_ends(
    sandbox: RemoteSandbox, server: Any, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    monkeypatch.setattr("workflow.sandboxes.e2b.QUIET_S", 0.3)
    await sandbox.make_dir("w")
    server.faults.append(Fault("/WatchDir", after_chunks=1, stalls=True))
    watcher = sandbox.watch("w")
    seen = asyncio.ensure_future(anext(watcher))
    box = only_box(server)

    async def is_asked() -> bool:
        return bool(server.count(f"/sandboxes/{box.id}", "GET"))

    await until(is_asked, what="the question what became of the sandbox")
    if fate == "running":
        (box.place(f"{server.home}/workspace/w") / "new").write_bytes(b"1")
        assert (await asyncio.wait_for(seen, 10)).path == "w/new"
        return
    box.freeze("paused") if fate == "paused" else server.remove_box(box.id)
    with pytest.raises(SandboxError):
        await asyncio.wait_for(seen, 10)
    assert server.count("/connect") == 0, "nobody wakes it"


async def test_what_a_login_shell_prints_does_not_disturb(sandbox: RemoteSandbox) -> None:
    await sandbox.exec("echo 'echo welcome; echo to you >&2' > ~/.bash_profile")
    assert (await sandbox.exec("echo clean")).stdout == b"clean\n"
    await sandbox.write("a", bytes(5000))
    assert await sandbox.read("a") == bytes(5000)


async def test_a_login_shell_that_floods_fails_the_call_and_not_the_worker(sandbox: RemoteSandbox) -> None:
    await sandbox.exec("echo 'yes $(printf %9999s)' > ~/.bash_profile")
    with pytest.raises(SandboxError, match="printed more"):
        await asyncio.wait_for(sandbox.list(), 60)


async def test_a_cancelled_call_leaves_no_process_behind(sandbox: RemoteSandbox, server: Any) -> None:
    started = asyncio.Event()
    command = asyncio.create_task(sandbox.exec("echo on; sleep 60", on_output=lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert server.count("/process.Process/SendSignal") == 1

    async def is_empty() -> bool:
        return not only_box(server).processes()

    await until(is_empty, what="the processes to end")
