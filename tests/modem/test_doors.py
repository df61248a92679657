"""Through a worker's door a port inside a sandbox is reached, at every provider, and nothing else is."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.visits.headers import Disguise
from modem import workers
from modem.doors import Doors, Passes
from modem.links import MAX_LINKS, Links
from modem.tasks.door import Door
from tests.modem.conftest import Line
from tests.ports import free_port
from tests.sandboxes import remotes
from tests.sandboxes.holding import report, why_not
from tests.until import until
from workflow.core.config import SandboxSettings
from workflow.core.errors import Gone, SandboxError, Unavailable
from workflow.core.ids import ThreadId, new_run_id
from workflow.core.records import PreviewLink, WorkerRecord
from workflow.sandboxes.base import Sandbox, SandboxProvider
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.remote import RemoteProvider
from workflow.sandboxes.tiers import Tier

PORT = 8123
LISTENER = b"""
import socket
visitor = socket.create_server(("127.0.0.1", 8123)).accept()[0]
print(visitor.recv(9), flush=True)
visitor.recv(9)
"""
TEMPLATE = "http://{id}.localhost:8080"


@dataclass
class Worker:
    """A worker as far as its door goes."""

    name: str
    sandboxes: SandboxProvider
    door: Door

    async def serve(self, thread_id: ThreadId, port: int) -> Sandbox:
        """Starts a server in the thread's sandbox that says where it is."""
        sandbox = await self.sandboxes.open(thread_id)
        await sandbox.write("index.html", b"inside")
        await sandbox.start(f"exec python3 -m http.server --bind 127.0.0.1 {port} 2>&1")
        return sandbox


class Floor:
    """Workers, and the gateway's side of their doors."""

    def __init__(self, line: Line, stack: AsyncExitStack) -> None:
        self.line = line
        self._stack = stack
        self.doors = Doors(line.connections)

    async def worker(self, name: str, sandboxes: SandboxProvider) -> Worker:
        await self._stack.enter_async_context(sandboxes)
        door = Door(Passes(self.line.connections), sandboxes, host="127.0.0.1", port=0)
        self._stack.push_async_callback(door.close)
        await door.open()
        record = WorkerRecord(
            worker=name,
            host="here",
            pid=1,
            version="0",
            model="m",
            sandbox="s",
            concurrency=1,
            running=0,
            door=door.address,
        )
        await workers.announce(self.line.connections, record)
        return Worker(name, sandboxes, door)

    async def link(self, thread_id: ThreadId, *, port: int = PORT, worker: str = "", ttl_s: float = 60) -> PreviewLink:
        links = Links(self.line.connections, template=TEMPLATE, worker=worker)
        return await links.expose(new_run_id(thread_id), port=port, path="/", ttl_s=ttl_s)

    async def visit(self, link: PreviewLink) -> bytes:
        """What the server inside answers; empty when nothing is there."""
        tunnel = await self.doors.open(link)
        disguise = Disguise(outer=TEMPLATE, inner=tunnel.origin, port=link.port, added=tunnel.headers)
        forged = [(name.encode(), b"forged") for name in tunnel.headers]
        headers = "".join(f"{name}: {value}\r\n" for name, value in disguise.inward(forged))
        reader, writer = await asyncio.open_connection(sock=tunnel.socket)
        with contextlib.closing(writer):
            writer.write(f"GET /index.html HTTP/1.0\r\n{headers}\r\n".encode())
            async with asyncio.timeout(10):
                return (await reader.read()).partition(b"\r\n\r\n")[2]

    async def is_served(self, link: PreviewLink) -> None:
        async def inside() -> bool:
            return await self.visit(link) == b"inside"

        await until(inside, what="the server inside")


@pytest.fixture
async def floor(line: Line) -> AsyncIterator[Floor]:
    async with AsyncExitStack() as stack:
        yield Floor(line, stack)


@pytest.fixture
async def thread_id(line: Line) -> ThreadId:
    return await line.thread()


def local(folder: Path, **settings: Any) -> LocalProvider:
    tier: Tier = "T1" if not why_not("T1") else "T1b"
    if why_not(tier):
        pytest.skip(why_not(tier))
    chosen = SandboxSettings.model_validate({"mode": tier, **settings})
    return LocalProvider(chosen, data_dir=folder, report=report(tier))


needs_tier = pytest.mark.skipif(bool(why_not("T1") and why_not("T1b")), reason="neither T1 nor T1b holds here")
needs_boxes = pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())


@needs_tier
async def test_an_idle_sandbox_is_woken_and_the_link_serves_again(
    floor: Floor, thread_id: ThreadId, folder: Path
) -> None:
    worker = await floor.worker("a", local(folder, idle_s=0.01))
    sandbox = await worker.serve(thread_id, PORT)
    link = await floor.link(thread_id, worker="a")
    await floor.is_served(link)
    await sandbox.close()
    assert worker.sandboxes.live == 0
    assert await floor.visit(link) == b"", "woken, but its processes had ended"
    assert worker.sandboxes.live == 1
    await worker.serve(thread_id, PORT)
    await floor.is_served(link)


@needs_tier
async def test_a_sandbox_with_a_visitor_is_not_put_away(floor: Floor, thread_id: ThreadId, folder: Path) -> None:
    worker = await floor.worker("a", local(folder, idle_s=0.01))
    sandbox = await worker.sandboxes.open(thread_id)
    await sandbox.write("hold.py", LISTENER)
    process = await sandbox.start("exec python3 hold.py")
    link = await floor.link(thread_id, worker="a")

    async def let_in() -> socket.socket | None:
        tunnel = await floor.doors.open(link)
        await asyncio.get_running_loop().sock_sendall(tunnel.socket, b"hello")
        if b"hello" in (await process.output())[0]:
            return tunnel.socket
        tunnel.socket.close()
        return None

    visitor = await until(let_in, what="the visitor to be heard")
    assert visitor is not None and await worker.sandboxes.sweep() == 0
    visitor.close()
    assert await process.wait(timeout_s=5) == 0, "the server noticed that its visitor left"

    async def put_away() -> bool:
        return await worker.sandboxes.sweep() == 1

    await until(put_away, what="the sandbox to be idle")


@needs_tier
async def test_the_worker_that_has_the_sandbox_is_found_and_no_other_ends_it(
    floor: Floor, thread_id: ThreadId, folder: Path
) -> None:
    first, second = [await floor.worker(name, local(folder)) for name in ("a", "b")]
    sandbox = await second.serve(thread_id, PORT)
    await floor.is_served(await floor.link(thread_id, worker="a"))
    await floor.is_served(await floor.link(thread_id, worker="b"))
    await floor.is_served(await floor.link(thread_id))
    assert (first.sandboxes.live, second.sandboxes.live) == (0, 1)
    # The first one opened the port once, while the sandbox slept; now the second one has it.
    await sandbox.close()
    assert await floor.visit(await floor.link(thread_id, worker="a")) is not None
    await second.serve(thread_id, PORT)
    floor.doors = Doors(floor.line.connections)
    await floor.is_served(await floor.link(thread_id, worker="a"))
    assert second.sandboxes.live == 1


@needs_boxes
@pytest.mark.parametrize("vendor", remotes.VENDORS)
async def test_a_port_at_a_remote_provider_is_reached_and_a_paused_sandbox_is_woken(
    floor: Floor, thread_id: ThreadId, vendor: remotes.Vendor
) -> None:
    server, port = remotes.fresh_server(vendor), free_port()
    provider: RemoteProvider = remotes.connect(vendor, server)
    worker = await floor.worker("a", provider)
    await worker.serve(thread_id, port)
    link = await floor.link(thread_id, port=port, worker="a")
    await floor.is_served(link)
    if vendor == "daytona":  # which asks the vendor for an address: once, not for every visit
        assert server.count("/signed-preview-url") == 1
    (box,) = server.boxes.values()
    await (await provider.open(thread_id)).put_away()
    assert box.state in {"paused", "stopped"}
    answer = await floor.visit(link)
    assert box.state in {"running", "started"}
    if vendor == "e2b":
        assert answer == b"inside", "it slept with its memory"
    else:
        assert b"nothing answers" in answer
        await worker.serve(thread_id, port)
        await floor.is_served(link)
    server.reset()


@needs_boxes
async def test_a_vendor_that_is_out_of_reach_is_told(floor: Floor, thread_id: ThreadId) -> None:
    server = remotes.fresh_server("e2b")
    await floor.worker("a", remotes.connect("e2b", server, api_key="wrong"))
    with pytest.raises(SandboxError) as failed:
        await floor.doors.open(await floor.link(thread_id))
    assert "wrong" not in str(failed.value)


async def test_without_a_worker_the_visitor_is_told_to_come_again(floor: Floor, thread_id: ThreadId) -> None:
    with pytest.raises(Unavailable) as away:
        await floor.doors.open(await floor.link(thread_id))
    assert away.value.retry_after_s is not None


@needs_tier
async def test_a_door_opens_for_a_fresh_pass_once_and_for_nothing_else(
    floor: Floor, thread_id: ThreadId, folder: Path
) -> None:
    worker = await floor.worker("a", local(folder))
    await worker.serve(thread_id, PORT)
    await floor.is_served(await floor.link(thread_id))
    host, _, port = worker.door.address.rpartition(":")
    used = await Passes(floor.line.connections).issue(thread_id, PORT)
    for text, opens in ((used, True), (used, False), ("x" * 43, False), ("short", False), ("\xff" * 43, False)):
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.closing(writer):
            writer.write(text.encode("latin-1"))
            if len(text) < 43:
                writer.write_eof()
            async with asyncio.timeout(10):
                answer = await reader.read(2)
            assert bool(answer) is opens, text


async def test_a_thread_has_a_bounded_number_of_links_and_the_oldest_ends(floor: Floor, thread_id: ThreadId) -> None:
    links = Links(floor.line.connections, template=TEMPLATE)
    made = [await floor.link(thread_id, ttl_s=60 + number) for number in range(MAX_LINKS + 1)]
    held = await links.of_thread(thread_id)
    assert {link.id for link in held} == {link.id for link in made[1:]}
    secret = made[0].url.partition("://")[2].partition(".")[0]
    with pytest.raises(Gone):
        await links.find(secret)
