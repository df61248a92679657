"""Whole lines whose sandboxes are at E2B and Daytona: real processes, real SDKs, local servers that speak the wire."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from dialtone.client import AsyncClient
from tests.e2e.test_previews import Preview, expose
from tests.line import Line, bash, script
from tests.ports import free_port
from tests.sandboxes import remotes
from tests.sandboxes.remotes import KEY, VENDORS, Vendor
from tests.servers.boxes import Box, BoxServer
from tests.until import until
from workflow.core.events import PreviewExposed, RunFinished, ToolResulted

pytestmark = pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())
HOMES = {"e2b": "/home/user", "daytona": "/home/daytona"}


@dataclass
class Remote:
    """A line, and the vendor of its sandboxes."""

    line: Line
    vendor: Vendor
    server: BoxServer

    @property
    def box(self) -> Box:
        """The only sandbox there is."""
        (box,) = self.server.boxes.values()
        return box

    def put_away(self) -> None:
        """What the vendor does with a sandbox whose lease has run out."""
        if self.vendor == "e2b":
            self.box.freeze("paused")
        else:
            self.box.end()
            self.box.state = "stopped"

    async def run(self, client: AsyncClient, thread_id: str, *turns: dict[str, Any]) -> list[Any]:
        """Plays turns of which none may fail."""
        run = await client.execute(thread_id, script(*turns, {"text": "Done."}))
        async with asyncio.timeout(60):
            items = [item async for item in client.stream(thread_id, run_id=run.run_id)]
        failed = [item.output for item in items if isinstance(item, ToolResulted) and not item.ok]
        assert failed == [] and isinstance(items[-1], RunFinished), (failed, items[-1], self.line.logs()[-3000:])
        return items


@pytest.fixture(params=VENDORS)
def remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    vendor: Vendor = request.param
    with remotes.make_server(vendor, home=HOMES[vendor]) as server:
        settings = {
            "DIALTONE_SANDBOX__PROVIDER": vendor,
            "DIALTONE_SANDBOX__API_URL": server.api_url,
            "E2B_API_KEY": KEY,
            "E2B_SANDBOX_URL": server.url,
            "DAYTONA_API_KEY": KEY,
            "DAYTONA_TARGET": "local",
        }
        with Line(settings=settings) as line:
            yield Remote(line.start(), vendor, server)


@pytest.mark.timeout(180)
async def test_a_thread_has_one_sandbox_at_its_vendor_from_the_first_command_to_its_deletion(remote: Remote) -> None:
    port = free_port()
    page = {"name": "files_creation", "arguments": {"files": [{"path": "site/index.html", "content": "inside\n"}]}}
    serve = bash(f"cd site && exec python3 -m http.server --bind 127.0.0.1 {port}", background=True)
    async with AsyncClient(remote.line.url) as client:
        assert (await client.health())["sandbox"] == f"{remote.vendor}/T0"
        thread_id = await client.initiate()
        assert remote.server.boxes == {}, "none before it is needed"
        items = await remote.run(
            client, thread_id, {"text": "", "tool_calls": [page]}, bash("pwd"), serve, expose(port)
        )
        assert f"{HOMES[remote.vendor]}/workspace" in [i.output for i in items if isinstance(i, ToolResulted)][1]
        assert await client.get_file(thread_id, "site/index.html") == b"inside\n"
        box, exposed = remote.box, next(item for item in items if isinstance(item, PreviewExposed))
        link = Preview(remote.line, thread_id, str(exposed.run_id), exposed.url)
        async with link.visitor() as visitor:
            assert (await visitor.get("/")).text == "inside\n"

            remote.line.alive("worker")[0].kill(signal.SIGKILL)
            remote.put_away()
            remote.line.worker()

            async def woken() -> httpx.Response | None:
                answer = await visitor.get("/")
                return None if answer.status_code == 503 else answer

            answer = await until(woken, timeout_s=60, what="the next worker to wake the sandbox for a visitor")
            assert answer is not None and box.state in {"running", "started"}
            assert answer.status_code == (200 if remote.vendor == "e2b" else 502), "E2B alone keeps what ran, too"

        items = await remote.run(client, thread_id, bash("cat site/index.html"))
        assert "inside" in next(i.output for i in items if isinstance(i, ToolResulted))
        assert remote.box is box, "it is still the same"
        assert box.labels["dialtone-installation"], "its leaks are told from those of others with the same label"

        await client.delete_thread(thread_id)

        async def is_gone() -> bool:
            return remote.server.boxes == {} and box.processes() == []

        await until(is_gone, timeout_s=30, what="the sandbox to be ended, and all that ran in it")
    assert KEY not in remote.line.logs()


ECHO = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Location", f"http://localhost:{sys.argv[1]}/next")
        self.end_headers()
        self.wfile.write(f"{self.headers['host']} {self.headers['origin']}".encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_a_server_inside_sees_one_host_in_all_headers_and_at_e2b_its_own(remote: Remote) -> None:
    port = free_port()
    page = {"name": "files_creation", "arguments": {"files": [{"path": "serve.py", "content": ECHO}]}}
    serve = bash(f"exec python3 serve.py {port}", background=True)
    async with AsyncClient(remote.line.url) as client:
        thread_id = await client.initiate()
        items = await remote.run(client, thread_id, {"text": "", "tool_calls": [page]}, serve, expose(port))
        exposed = next(item for item in items if isinstance(item, PreviewExposed))
        link = Preview(remote.line, thread_id, str(exposed.run_id), exposed.url)
        async with link.visitor() as visitor:
            answer = await visitor.get("/", headers={"origin": link.origin})
    outside = f"{port}-{remote.box.id}.boxes.localhost:{remote.server.port}"
    host = {"e2b": f"localhost:{port}", "daytona": outside}[remote.vendor]
    assert (answer.status_code, answer.text) == (200, f"{host} http://{host}")
    assert answer.headers["location"] == f"{link.origin}/next"
