"""Which hosts the proxy lets through, and the parsers on whose reading that depends."""

import asyncio
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.core.config import SandboxSettings
from workflow.sandboxes.egress import REGISTRIES, Policy
from workflow.sandboxes.hello import NotTls, read_hello
from workflow.sandboxes.http_head import BadRequest, Head, read_head

POLICY = Policy(("example.com", "*.example.org"))


@pytest.mark.parametrize("host", ["example.com", "a.example.org", "a.b.example.org"])
def test_a_host_on_the_list_is_allowed(host: str) -> None:
    assert POLICY.refusal(host) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "notexample.com",
        "example.com.evil.com",
        "sub.example.com",
        "example.org",
        "evilexample.org",
        "example.com.",
        "example.com:443",
        "user@example.com",
        "example.com/x",
        "exam\u200bple.com",
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "1.0x7f",
        "[::1]",
        "::1",
        "localhost",
        "",
        "a" * 64 + ".example.org",
        "-a.example.org",
        "*.example.org",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    assert POLICY.refusal(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "017700000001", "1.2.3.4", "localhost"])
def test_an_open_network_still_takes_no_addresses(host: str) -> None:
    assert Policy(everything=True).refusal(host)
    assert not Policy(everything=True).refusal("anything.net")


def test_registries_are_a_preset() -> None:
    closed = Policy.of(SandboxSettings(network="allowlist", allow_hosts=("API.Example.com",)))
    opened = Policy.of(SandboxSettings(network="allowlist", allow_registries=True))
    assert closed.hosts == ("api.example.com",)
    assert set(opened.hosts) == set(REGISTRIES) and not opened.refusal("pypi.org")


def hello(host: str | None) -> bytes:
    """The first message of a real TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=host).do_handshake()
    return outgoing.read()


async def parsed(content: bytes) -> tuple[bytes, str]:
    reader = asyncio.StreamReader()
    reader.feed_data(content)
    reader.feed_eof()
    return await read_hello(reader)


async def test_the_server_name_of_a_tls_client_is_read() -> None:
    assert (await parsed(hello("Example.COM")))[1] == "example.com"
    raw = hello("a.example.org")
    assert await parsed(raw + b"rest") == (raw, "a.example.org")
    assert (await parsed(hello(None)))[1] == ""


async def test_a_hello_in_several_records_is_read() -> None:
    raw = hello("example.com")
    body = raw[5:]
    split = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in (body[:3], body[3:60], body[60:]))
    assert await parsed(split) == (split, "example.com")


@pytest.mark.parametrize(
    "content", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x01\x00\x02\x02\x00"]
)
async def test_what_is_no_tls_is_noticed(content: bytes) -> None:
    with pytest.raises(NotTls):
        await parsed(content)


@given(st.data())
def test_a_damaged_hello_never_does_more_than_raise(data: st.DataObject) -> None:
    raw = bytearray(hello("example.com"))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(5, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        name = asyncio.run(parsed(bytes(raw)))[1]
    except (NotTls, asyncio.IncompleteReadError):
        return
    assert isinstance(name, str)


async def head(raw: bytes) -> Head:
    reader = asyncio.StreamReader(limit=65_536)
    reader.feed_data(raw)
    reader.feed_eof()
    return await read_head(reader)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET http://a/ HTTP/2\r\n\r\n",
        b"GET http://a/\r\n\r\n",
        b"GET  http://a/ HTTP/1.1\r\n\r\n",
        b"G T http://a/ HTTP/1.1\r\n\r\n",
        b"GET http://a/\x00 HTTP/1.1\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nA: b\nHost: evil\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nA: b\rHost: evil\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        await head(raw)


@pytest.mark.parametrize(
    "headers",
    [
        (("Content-Length", "5"), ("Transfer-Encoding", "chunked")),
        (("Content-Length", "5"), ("Content-Length", "6")),
        (("Content-Length", "+5"),),
        (("Content-Length", "5, 5"),),
        (("Transfer-Encoding", "gzip, chunked"),),
        (("Transfer-Encoding", "chunked"), ("transfer-encoding", "identity")),
    ],
)
def test_a_body_whose_end_is_ambiguous_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(BadRequest):
        Head("POST", "/", headers).body_bytes()


async def test_a_rewritten_head_holds_no_hop_by_hop_headers_and_the_credential_once() -> None:
    read = await head(
        b"GET http://a.b/x HTTP/1.1\r\nHost: a.b\r\nProxy-Authorization: p\r\nConnection: keep-alive, X-Gone\r\n"
        b"X-Gone: 1\r\nauthorization: mine\r\nAccept: */*\r\nUpgrade: websocket\r\n\r\n"
    )
    assert read.rewritten("/x", "a.b", {"Authorization": "ours"}) == (
        b"GET /x HTTP/1.1\r\nHost: a.b\r\nAccept: */*\r\nAuthorization: ours\r\nConnection: close\r\n\r\n"
    )
