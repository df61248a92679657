"""What is particular to Daytona: names, states on the way to running, sessions, polled changes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.sandboxes import remotes
from tests.sandboxes.remotes import connect, fresh_server
from tests.servers.boxes import Box, Fault
from workflow.core.errors import SandboxError
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Address
from workflow.sandboxes.remote import RemoteProvider
from workflow.sandboxes.remote_sandbox import RemoteSandbox

THREAD = ThreadId("thread-1")

pytestmark = pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())


@pytest.fixture
def server() -> Any:
    return fresh_server("daytona")


@pytest.fixture
async def provider(server: Any) -> AsyncIterator[RemoteProvider]:
    async with connect("daytona", server) as connected:
        yield connected
    server.reset()


@pytest.fixture
async def sandbox(provider: RemoteProvider) -> RemoteSandbox:
    return await provider.open(THREAD)


def only_box(server: Any) -> Box:
    (box,) = server.boxes.values()
    assert isinstance(box, Box)
    return box


async def test_a_sandbox_that_takes_its_time_to_start_is_waited_for(sandbox: RemoteSandbox, server: Any) -> None:
    server.slow_starts = 2
    assert (await sandbox.exec("echo up")).stdout == b"up\n"
    await sandbox.put_away()
    server.slow_starts = 1
    assert (await sandbox.exec("echo up")).stdout == b"up\n"


async def test_its_name_keeps_a_thread_from_getting_two(sandbox: RemoteSandbox, server: Any) -> None:
    # The other worker's sandbox has the name, but no list shows it yet.
    server.make_box({}, {"name": f"dialtone-{THREAD}"}).state = "started"
    assert (await sandbox.exec("echo up")).stdout == b"up\n"
    assert len(server.boxes) == 1


async def test_a_sandbox_in_a_state_on_the_way_is_waited_for(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.write("kept", b"yes")
    await sandbox.put_away()
    box = only_box(server)
    box.state = "stopping"
    reading = asyncio.create_task(sandbox.read("kept"))
    await asyncio.sleep(0.2)
    assert not reading.done()
    box.state = "stopped"
    assert await asyncio.wait_for(reading, 10) == b"yes"


async def test_a_sandbox_that_broke_is_ended_and_told_like_one_that_vanished(
    sandbox: RemoteSandbox, server: Any
) -> None:
    await sandbox.write("a", b"")
    broken = only_box(server)
    broken.state = "error"
    with pytest.raises(SandboxError, match="its files with it"):
        await sandbox.read("a")
    assert await sandbox.list() == []
    assert broken.id not in server.boxes


async def test_a_background_process_ends_when_the_sandbox_is_stopped(sandbox: RemoteSandbox, server: Any) -> None:
    process = await sandbox.start("sleep 60")
    await sandbox.put_away()
    assert only_box(server).state == "stopped"
    assert await process.wait(timeout_s=10) == 137


async def test_a_short_command_costs_one_request_and_a_long_one_a_stream(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.exec("true")
    server.requests.clear()
    await sandbox.exec("true")
    assert server.count("/toolbox") == 1
    await sandbox.exec("sleep 1")
    assert server.count("/logs") == 1


async def test_a_stream_leaves_no_session_behind(sandbox: RemoteSandbox, server: Any) -> None:
    started = asyncio.Event()
    await sandbox.exec("sleep 1")
    command = asyncio.create_task(sandbox.exec("echo on; sleep 60", on_output=lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    await asyncio.sleep(0.7)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert server.sessions == {}
    assert server.count("/process/session", "DELETE") == 2


async def test_a_session_that_is_refused_is_asked_for_again(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.exec("true")
    server.faults.append(Fault("/process/session", times=2, status=500, body={"message": "no"}))
    assert (await sandbox.exec("sleep 1; echo done")).stdout == b"done\n"


@pytest.mark.parametrize(
    ("settings", "blocked", "domains"),
    [
        ({"network": "off"}, True, None),
        ({"network": "open"}, False, None),
        (
            {"network": "allowlist", "allow_hosts": ["a.example.org", "*.example.com"]},
            False,
            "a.example.org,*.example.com",
        ),
    ],
    ids=["off", "open", "allowlist"],
)
async def test_the_network_is_as_configured(
    server: Any, settings: dict[str, Any], blocked: bool, domains: str | None
) -> None:
    async with connect("daytona", server, settings={**settings, "template": "ours"}) as provider:
        await (await provider.open(THREAD)).exec("true")
    request = only_box(server).request
    assert (request["networkBlockAll"], request.get("domainAllowList")) == (blocked, domains)
    assert (request["snapshot"], request["autoStopInterval"], request["public"]) == ("ours", 10, False)
    server.reset()


async def test_a_port_has_a_signed_address_of_its_own(sandbox: RemoteSandbox, server: Any) -> None:
    assert await sandbox.address(3000) == Address(f"3000-{only_box(server).id}.boxes.localhost", server.port)
