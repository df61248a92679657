"""A server in a sandbox is visited through the gateway, from a real worker, and by nobody else, and no longer."""

import asyncio
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dialtone import NotFound
from dialtone.client import AsyncClient
from modem.links import Links
from modem.pool import Connections
from tests.line import Line, bash, script
from tests.until import until
from workflow.core.config import RedisSettings
from workflow.core.events import PreviewExposed, RunFinished, ToolResulted

SERVER = Path(__file__).with_name("inside_server.py")
PORT = 8123
HTML = {"accept": "text/html,*/*"}


@dataclass
class Preview:
    """A server that runs in a sandbox, and the link to it."""

    line: Line
    thread_id: str
    run_id: str
    url: str
    id: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that finds the preview's host at the gateway, as a browser does with names under localhost."""
        async with httpx.AsyncClient(
            base_url=self.line.url, headers={"host": self.host}, trust_env=False, timeout=30
        ) as http:
            yield http

    def socket(self, path: str, **more: Any) -> connect:
        return connect(f"ws://{self.host}{path}", host="127.0.0.1", port=self.line.port, proxy=None, **more)


def serve(port: int = PORT) -> dict[str, Any]:
    return bash(f"exec python3 server.py {port}", background=True)


def expose(port: int = PORT, **more: Any) -> dict[str, Any]:
    return {"text": "", "tool_calls": [{"name": "url_expose", "arguments": {"port": port} | more}]}


async def make(line: Line, *, port: int = PORT, thread_id: str = "") -> Preview:
    """Has an agent start the server and make a link."""
    async with AsyncClient(line.url) as client:
        if not thread_id:
            thread_id = await client.initiate()
            await client.put_file(thread_id, "server.py", content=SERVER.read_bytes())
        run = await client.execute(thread_id, script(serve(port), expose(port), {"text": "Look."}))
        async with asyncio.timeout(60):
            items = [item async for item in client.stream(thread_id, run_id=run.run_id)]
    failed = [item.output for item in items if isinstance(item, ToolResulted) and not item.ok]
    assert failed == [] and isinstance(items[-1], RunFinished), (failed, line.logs()[-3000:])
    exposed = next(item for item in items if isinstance(item, PreviewExposed))
    return Preview(line, thread_id, run.run_id, exposed.url, exposed.preview_id)


@pytest.fixture(scope="module")
def preview(line: Line) -> Preview:
    return asyncio.run(make(line))


@pytest.fixture
async def http(preview: Preview) -> AsyncIterator[httpx.AsyncClient]:
    async with preview.visitor() as http:
        yield http


async def told(answer: httpx.Response) -> dict[str, list[str]]:
    """The headers that the server inside got."""
    got: dict[str, list[str]] = {}
    for name, value in answer.json()["headers"]:
        got.setdefault(name.lower(), []).append(value)
    return got


async def test_the_link_has_a_host_name_of_its_own(preview: Preview) -> None:
    assert re.fullmatch(rf"http://[a-z2-7]{{26}}\.localhost:{preview.line.port}/", preview.url)


async def test_requests_go_in_byte_for_byte_and_answers_come_out(http: httpx.AsyncClient) -> None:
    answer = await http.get("/a%2Fb//c;d?q=%20+&q=ü")
    assert answer.status_code == 200
    assert answer.json()["path"] == "/a%2Fb//c;d?q=%20+&q=%C3%BC"
    assert (await http.head("/text")).headers["content-length"] == "4"
    assert (await http.options("/x")).json()["method"] == "OPTIONS"
    unchanged = await http.get("/unchanged")
    assert (unchanged.status_code, unchanged.headers["etag"], unchanged.content) == (304, '"e"', b"")


async def test_bodies_of_known_and_unknown_length_arrive_whole(http: httpx.AsyncClient) -> None:
    body = bytes(range(256)) * 20_000

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    for content in (body, pieces()):
        answer = (await http.post("/echo", content=content)).json()
        assert (answer["size"], answer["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert (await http.post("/echo")).json()["size"] == 0


async def test_large_answers_and_ranges_come_out(http: httpx.AsyncClient) -> None:
    async with http.stream("GET", "/large") as answer:
        assert sum([len(chunk) async for chunk in answer.aiter_raw()]) == 64 * 1_048_576
    part = await http.get("/range", headers={"range": "bytes=250-260"})
    assert (part.status_code, part.headers["content-range"]) == (206, "bytes 250-260/4096")
    assert part.content == (bytes(range(256)) * 2)[250:261]


async def test_a_visitor_who_does_not_read_holds_the_server_back(preview: Preview) -> None:
    """64 MB stay in the sandbox, not in the memory of the gateway or the worker."""
    before = _memory(preview.line)
    reader, writer = await asyncio.open_connection("127.0.0.1", preview.line.port, limit=1024)
    writer.write(f"GET /large HTTP/1.1\r\nHost: {preview.host}\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    await asyncio.sleep(1)  # nothing is to happen, which has no event
    assert _memory(preview.line) - before < 30_000_000
    writer.close()


def _memory(line: Line) -> int:
    import psutil

    processes = [*line.alive("gateway"), *line.alive("worker")]
    return sum(int(psutil.Process(process.popen.pid).memory_info().rss) for process in processes)


async def test_events_come_one_by_one_as_they_are_sent(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20), http.stream("GET", "/events") as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: first"
        await http.post("/go")
        assert [line async for line in lines if line] == ["data: second"]


async def test_a_websocket_carries_text_bytes_and_closes_both_ways(preview: Preview) -> None:
    async with asyncio.timeout(20), preview.socket("/socket?x=1", subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        headers = dict(json.loads(await ws.recv()))
        assert headers["Host"] == f"localhost:{PORT}"
        for message in ("text ü", b"\x00\xff", "x" * 300_000):
            await ws.send(message)
            assert await ws.recv() == message
        await ws.send("bye")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 4321
    async with asyncio.timeout(20), preview.socket("/socket") as ws:
        await ws.recv()
        await ws.send("odd bye")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1011
    async with asyncio.timeout(20), preview.socket("/socket") as ws:
        await ws.recv()
    with pytest.raises(InvalidStatus) as refused:
        await preview.socket("/deny")
    assert refused.value.response.status_code == 403


async def test_the_server_sees_a_browser_on_its_own_machine(preview: Preview, http: httpx.AsyncClient) -> None:
    sent = {
        "origin": preview.origin,
        "referer": f"{preview.origin}/page?x",
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil.example",
        "forwarded": "host=evil.example",
        "x-real-ip": "1.2.3.4",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "te": "trailers",
        "proxy-authorization": "secret",
        "authorization": "Bearer of-the-app",
        "cookie": "theirs=1; dialtone_session=SECRET; other=2",
        "user-agent": "a browser",
    }
    got = await told(await http.get("/echo", headers=sent))
    assert got["host"] == [f"localhost:{PORT}"]
    assert got["origin"] == [f"http://localhost:{PORT}"]
    assert got["referer"] == [f"http://localhost:{PORT}/page?x"]
    assert got["cookie"] == ["theirs=1; other=2"]
    assert got["authorization"] == ["Bearer of-the-app"]
    assert got["user-agent"] == ["a browser"]
    assert got["connection"] == ["close"]
    gone = {"x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "x-hop", "te", "proxy-authorization"}
    assert gone & set(got) == set()
    for name, value in (("authorization", "Bearer dt_abc"), ("x-api-key", "dt_abc"), ("cookie", "dialtone_session=S")):
        assert name not in await told(await http.get("/echo", headers={name: value}))
    bytes_ = [(b"cookie", "a=ü".encode()), (b"x-old", "ü".encode("latin-1"))]
    got = await told(await http.get("/echo", headers=bytes_))
    assert [value.encode("latin-1") for value in got["cookie"] + got["x-old"]] == ["a=ü".encode(), "ü".encode()]
    elsewhere = await told(await http.get("/echo", headers={"origin": f"{preview.origin}.example"}))
    assert elsewhere["origin"] == [f"{preview.origin}.example"]


async def test_answers_lose_what_reaches_beyond_the_preview(http: httpx.AsyncClient) -> None:
    answer = await http.get("/odd")
    headers = answer.headers
    assert headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]
    assert headers["x-kept"] == "yes"
    assert headers["referrer-policy"] == "same-origin"
    assert len(headers.get_list("date")) == 1
    far = {"x-hop", "x-frame-options", "alt-svc", "clear-site-data", "strict-transport-security"}
    assert far & set(headers) == set()
    commands = {name: headers.get_list(name) for name in headers if name.startswith(("x-accel-", "x-sendfile"))}
    assert commands == {"x-accel-buffering": ["no"]}, "a proxy in front takes commands from the gateway alone"
    ours = {"content-security-policy", "cross-origin-opener-policy", "x-content-type-options"}
    assert ours & set(headers) == set(), "the page's own policies hold, not the console's"


@pytest.mark.parametrize(
    ("to", "location"),
    [
        ("own", "{origin}/text?x#y"),
        ("ip", "{origin}/"),
        ("path", "/text"),
        ("far", f"https://example.com/{PORT}"),
        ("near", "http://localhost:1"),
        ("fool", f"http://localhost:{PORT}@example.com/"),
    ],
)
async def test_redirects_to_itself_lead_back_to_the_preview(
    preview: Preview, http: httpx.AsyncClient, to: str, location: str
) -> None:
    answer = await http.get(f"/redirect?{to}")
    assert (answer.status_code, answer.headers["location"]) == (302, location.format(origin=preview.origin))


ODD_ANSWERS = {
    "a tunnel": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nraw",
    "a status that there is not": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    "a status below all": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "control characters": b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "half a line end": b"HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "no HTTP": b"hello\r\n\r\n",
    "interim answers": b"HTTP/1.1 103 \r\n\r\n" * 200 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("odd", ODD_ANSWERS)
async def test_an_answer_that_cannot_be_passed_on_is_a_bad_gateway(http: httpx.AsyncClient, odd: str) -> None:
    answer = await http.get(f"/raw?{quote(ODD_ANSWERS[odd])}")
    assert (answer.status_code, answer.json()["code"]) == (502, "sandbox_failed")


async def test_an_answer_that_is_cut_does_not_look_whole(http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/cut")


async def _raw(preview: Preview, request: str) -> tuple[int, bytes]:
    """Status and body of the answer to `request`, sent as it is; status 0 when there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", preview.line.port)
    writer.write(request.encode("latin-1"))
    try:
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?i)content-length: (\d+)", head)
            return int(head.split(" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)
    except asyncio.IncompleteReadError:
        return 0, b""
    finally:
        writer.close()


SMUGGLES = [
    "GET / HTTP/1.1\r\nHost: {host}\r\nHost: localhost:6379\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: localhost:6379\r\nHost: {host}\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    "0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: +4\r\n\r\nabcd",
    "GET /echo HTTP/1.1\r\nHost: {host}\r\nX-A: b\r\n X-Folded: c\r\nBad Name: d\r\n\r\n",
    "CONNECT localhost:6379 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "TRACE /echo HTTP/1.1\r\nHost: {host}\r\n\r\n",
]


@pytest.mark.parametrize("request_", SMUGGLES, ids=range(len(SMUGGLES)))
async def test_requests_that_can_be_read_in_two_ways_are_refused(preview: Preview, request_: str) -> None:
    status, body = await _raw(preview, request_.format(host=preview.host))
    assert status in {0, 400, 404}, body


@pytest.mark.parametrize("target", ["http://localhost:6379/echo", "//localhost:6379/echo", "http://evil.example/echo"])
async def test_no_request_names_another_host(preview: Preview, target: str) -> None:
    status, body = await _raw(preview, f"GET {target} HTTP/1.1\r\nHost: {preview.host}\r\n\r\n")
    assert status == 200
    assert dict(json.loads(body)["headers"])["Host"] == f"localhost:{PORT}", (
        "the server inside got it, whatever it asked for"
    )


async def test_a_port_of_the_host_is_not_reached_through_the_same_number(line: Line) -> None:
    """Something listens on the worker's host, nothing inside: the link finds nothing."""
    async with AsyncClient(line.url) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, script(bash("true"), {"text": "ok"}))
        assert [item async for item in client.stream(thread_id, run_id=run.run_id)]
    with socket.create_server(("127.0.0.1", 0)) as outside:
        link = await short_link(line, run.run_id, port=outside.getsockname()[1])
        async with link.visitor() as http:
            answer = await http.get("/", headers=HTML)
        assert answer.status_code == 502
        outside.setblocking(False)
        with pytest.raises(BlockingIOError):
            outside.accept()


async def short_link(line: Line, run_id: str, *, port: int = PORT, ttl_s: float = 60.0) -> Preview:
    """A link as a worker makes it, for as short as tests need."""
    connections = Connections.open(RedisSettings(url=line.redis.url))
    try:
        links = Links(connections, template=f"http://{{id}}.localhost:{line.port}")
        link = await links.expose(run_id, port=port, path="/", ttl_s=ttl_s)  # type: ignore[arg-type]
    finally:
        await connections.close()
    return Preview(line, link.thread_id, run_id, link.url, link.id)


async def test_an_expired_link_is_gone_and_ends_what_is_open(preview: Preview) -> None:
    link = await short_link(preview.line, preview.run_id, ttl_s=1.5)
    async with link.visitor() as http:
        assert (await http.get("/text")).text == "text"
        with pytest.raises(httpx.RemoteProtocolError):
            async with asyncio.timeout(8), http.stream("GET", "/silence") as answer:
                assert [line async for line in answer.aiter_lines()]
        page = await http.get("/text", headers=HTML)
    assert page.status_code == 410
    assert "This preview has ended" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_a_revoked_link_is_gone_at_once_and_ends_what_is_open(preview: Preview, client: AsyncClient) -> None:
    link = await short_link(preview.line, preview.run_id)
    async with link.visitor() as http:
        listed = {item.id: (item.url, item.port) for item in await client.previews(link.thread_id)}
        assert (listed[preview.id], listed[link.id]) == ((preview.url, PORT), (link.url, PORT))
        async with asyncio.timeout(15), link.socket("/socket") as ws:
            await ws.recv()
            await client.revoke_preview(link.thread_id, link.id)
            answer = await http.get("/text")
            assert (answer.status_code, answer.json()["code"]) == (410, "gone")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            assert ws.close_code == 1008
        with pytest.raises(NotFound):
            await client.revoke_preview(link.thread_id, link.id)
        assert {item.id for item in await client.previews(link.thread_id)} == set(listed) - {link.id}
        assert (await http.get("/text", headers={"host": preview.host})).text == "text", "others are left alone"


async def test_the_links_of_a_deleted_thread_are_gone(line: Line, client: AsyncClient) -> None:
    thread_id = await client.initiate()
    run = await client.execute(thread_id, script({"text": "ok"}))
    assert [item async for item in client.stream(thread_id, run_id=run.run_id)]
    link = await short_link(line, run.run_id)
    async with httpx.AsyncClient(base_url=line.url, trust_env=False) as api:
        assert (await api.delete(f"/api/agent/{thread_id}")).status_code == 204
    async with link.visitor() as http:
        assert (await http.get("/")).status_code == 410


@pytest.mark.parametrize("label", ["a" * 26, "short", "x" * 60, "A2345672345672345672345672"])
async def test_an_address_that_is_no_link_shows_neither_console_nor_api(line: Line, label: str) -> None:
    async with httpx.AsyncClient(base_url=line.url, trust_env=False) as http:
        for path in ("/", "/api/agent", "/health"):
            answer = await http.get(path, headers={"host": f"{label}.localhost:{line.port}"} | HTML)
            assert answer.status_code == 404
            assert "No such preview" in answer.text


async def test_the_log_of_the_gateway_does_not_hold_the_secret(preview: Preview, http: httpx.AsyncClient) -> None:
    async def is_logged() -> bool:
        return "preview:/text" in preview.line.logs()

    await http.get("/text?seen-by-nobody")
    await until(is_logged, what="the line of the visit, which is written after its answer")
    assert preview.host.partition(".")[0] not in preview.line.logs()


async def test_visits_to_one_link_are_limited(preview: Preview) -> None:
    link = await short_link(preview.line, preview.run_id)
    request = f"GET /silence HTTP/1.1\r\nHost: {link.host}\r\n\r\n".encode()
    open_ones = [await asyncio.open_connection("127.0.0.1", preview.line.port) for _ in range(100)]
    try:
        for _, writer in open_ones:
            writer.write(request)
        for reader, _ in open_ones:
            assert await asyncio.wait_for(reader.readline(), 20) == b"HTTP/1.1 200 OK\r\n"
        async with link.visitor() as http:
            assert (await http.get("/text")).status_code == 429
    finally:
        for _, writer in open_ones:
            writer.close()

    async def free_again() -> bool:
        async with link.visitor() as http:
            return (await http.get("/text")).status_code == 200

    await until(free_again, timeout_s=30, what="the visitors who left to be forgotten")


@pytest.fixture
def own_line() -> Iterator[Line]:
    with Line(settings={"DIALTONE_GATEWAY__MAX_UPLOAD_BYTES": "100000"}) as line:
        yield line.start()


async def test_a_link_outlives_its_server_and_its_worker(own_line: Line) -> None:
    link = await make(own_line)
    async with link.visitor() as http:
        assert (await http.post("/echo", content=b"x" * 100_001)).status_code == 413
        assert (await http.get("/text")).text == "text"

        own_line.alive("worker")[0].kill()
        own_line.alive("gateway")  # still there

        async def nobody() -> httpx.Response | None:
            answer = await http.get("/text", headers=HTML)
            return answer if answer.status_code == 503 else None

        away = await until(nobody, timeout_s=30, what="the worker to be missed")
        assert away is not None and away.headers["retry-after"]
        assert "cannot be reached now" in away.text

        own_line.worker()
        own_line.wait_ready(workers=1)

        async def woken() -> httpx.Response | None:
            answer = await http.get("/text", headers=HTML)
            return answer if answer.status_code == 502 else None

        stopped = await until(woken, timeout_s=40, what="the new worker to open the sandbox, in which nothing runs")
        assert stopped is not None and "start it again" in stopped.text
        again = await make(own_line, thread_id=link.thread_id)
        assert again.url != link.url
        assert (await http.get("/text")).text == "text", "the old link finds the new server"


async def test_with_two_workers_the_one_that_has_the_sandbox_serves_and_keeps_it(own_line: Line) -> None:
    link = await make(own_line)
    own_line.worker()
    own_line.wait_ready(workers=2)
    for _ in range(4):  # by a link that does not say which worker it is
        other = await short_link(own_line, link.run_id)
        async with other.visitor() as http:
            assert (await http.get("/text")).text == "text"
    async with link.visitor() as http:
        assert (await http.get("/text")).text == "text"
