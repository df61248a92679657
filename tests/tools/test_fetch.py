"""The fetcher reaches public addresses only, whatever the address looks like and wherever it leads."""

import asyncio
import gzip
import zlib
from collections.abc import Mapping, Sequence

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.servers import serving
from workflow.core.addresses import is_private, is_public
from workflow.core.errors import BadInput, DialtoneError, Forbidden, Unavailable
from workflow.core.fetch import MAX_REDIRECTS, Resolve, SafeFetcher

REFUSED_URLS = """
http://127.0.0.1/ http://127.0.0.1:8080/ http://127.1/ http://127.0.1/ http://127.255.255.254/ http://0.0.0.0/ http://0/
http://2130706433/ http://0x7f000001/ http://0x7f.0.0.1/ http://0x7f.1/ http://017700000001/ http://0177.0.0.1/
http://0177.1/ http://127.0.0.1./ http://00000000177.0.0.1/ http://4294967295/ http://10.0.0.1/ http://10.1/
http://172.16.0.1/ http://172.31.255.255/ http://192.168.0.1/ http://192.168.257/ http://100.64.0.1/
http://169.254.169.254/latest/meta-data/ http://169.254.43518/ http://0xa9fea9fe/ http://2852039166/
http://168.63.129.16/ http://192.0.0.192/ http://192.0.2.1/ http://198.18.0.1/ http://198.51.100.1/
http://203.0.113.1/ http://192.88.99.1/ http://224.0.0.1/ http://239.255.255.250/ http://240.0.0.1/
http://255.255.255.255/ http://[::]/ http://[::1]/ http://[0:0:0:0:0:0:0:1]/ http://[::127.0.0.1]/
http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[::ffff:8.8.8.8]/ http://[64:ff9b::127.0.0.1]/
http://[64:ff9b::8.8.8.8]/ http://[64:ff9b:1::a9fe:a9fe]/ http://[2002:7f00:1::]/ http://[2002:808:808::1]/
http://[2001::1]/ http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/ http://[2001:db8::1]/ http://[fc00::1]/
http://[fd00:ec2::254]/ http://[fe80::1]/ http://[fec0::1]/ http://[ff02::1]/ http://[3fff::1]/ http://[5f00::1]/
http://[100::1]/ http://[2607:f8b0::5efe:7f00:1]/ http://[2607:f8b0::200:5efe:10.0.0.1]/ http://localhost/
http://LOCALHOST/ http://①②⑦.⓪.⓪.①/ http://127。0。0。1/ http://１２７.0.0.1/ http://example.com:22/
http://example.com:25/ http://example.com:6379/ http://example.com:11211/ http://256.256.256.256/
"""

BAD_URLS = [
    "", "/", "//example.com/", "example.com", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/",
    "data:text/plain,a", "javascript:alert(1)", "http://", "http:///path", "http://?q", "http://user@example.com/",
    "http://user:pw@example.com/", "http://example.com@127.0.0.1/", "http://:@127.0.0.1/", "http://example.com\\@127.0.0.1/",
    "http://exa mple.com/", "http://example.com/a b", "http://example.com/\r\nHost: x", "http://example.com/\x00",
    "http://example.com:99999/", "http://example.com:-1/", "http://example.com:a/", "http://[::1/",
    "http://].--[@#a-@:", "http://-]a@[a@@",
    "http://[fe80::1%25eth0]/", "http://127.0.0.1%2f.example.com/", "http://example.com/" + "a" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED_URLS.split())
async def test_addresses_that_are_not_public_are_refused(url: str) -> None:
    async with SafeFetcher(timeout_s=5) as fetcher:
        with pytest.raises(Forbidden):
            await fetcher.get(url)


@pytest.mark.parametrize("url", BAD_URLS)
async def test_urls_that_are_not_plain_are_refused(url: str) -> None:
    async with SafeFetcher(timeout_s=5) as fetcher:
        with pytest.raises(BadInput):
            await fetcher.get(url)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "fe80::1", "2002:7f00:1::"]
)
async def test_opening_private_networks_does_not_open_the_rest(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    async with SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        with pytest.raises(Forbidden):
            await fetcher.get(f"http://{host}/")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]
)
def test_hosts_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)
    assert not is_private(address)


@given(st.ip_addresses())
def test_no_address_is_public_and_private(address: object) -> None:
    assert not (is_public(str(address)) and is_private(str(address)))


@given(st.ip_addresses(v=4))
def test_what_python_calls_private_is_never_public(address: object) -> None:
    from ipaddress import IPv4Address

    parsed = IPv4Address(str(address))
    if not parsed.is_global or parsed.is_multicast or parsed.is_reserved:
        assert not is_public(parsed)


def names(table: Mapping[str, Sequence[str]]) -> Resolve:
    """A resolver that knows these names."""

    async def resolve(host: str, port: int) -> list[str]:
        return list(table[host])

    return resolve


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["::1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["169.254.169.254"],
        ["::ffff:10.0.0.1"],
        ["fd00::1"],
    ],
    ids=str,
)
async def test_a_name_is_refused_if_any_of_its_addresses_is_not_public(addresses: list[str]) -> None:
    async with SafeFetcher(timeout_s=5, resolve=names({"example.test": addresses})) as fetcher:
        with pytest.raises(Forbidden, match="not a public address"):
            await fetcher.get("http://example.test/")


async def test_a_name_is_looked_up_once_and_the_connection_goes_there() -> None:
    looked_up: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.99"]

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"])

    async with serving(hello) as url, SafeFetcher(timeout_s=5, allow_private=True, resolve=resolve) as fetcher:
        port = url.rpartition(":")[2]
        answer = await fetcher.get(f"http://example.test:{port}/")

    assert answer.body == f"example.test:{port}".encode()
    assert looked_up == ["example.test"]


async def test_a_name_without_an_address_is_unavailable() -> None:
    async with SafeFetcher(timeout_s=5, resolve=names({"example.test": []})) as fetcher:
        with pytest.raises(Unavailable):
            await fetcher.get("http://example.test/")


async def redirecting(request: web.Request) -> web.StreamResponse:
    """`/to?...` redirects to the query; `/loop` to itself; `/n/3` to `/n/2` and so on; the rest says hello."""
    if request.path == "/to":
        return web.Response(status=int(request.query.get("status", "302")), headers={"Location": request.query["url"]})
    if request.path == "/loop":
        return web.Response(status=301, headers={"Location": "/loop"})
    if request.path.startswith("/n/"):
        left = int(request.path[3:])
        return web.Response(status=307, headers={"Location": f"/n/{left - 1}"}) if left else web.Response(text="there")
    return web.Response(text=f"{request.method} {request.path} {request.headers.get('X-Key', 'none')}")


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/",
        "http://[::ffff:127.0.0.1]/",
        "http://0xa9fea9fe/",
        "//169.254.169.254/x",
        "http://224.0.0.1/",
    ],
)
async def test_a_redirect_to_a_closed_address_is_refused(target: str) -> None:
    async with serving(redirecting) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        with pytest.raises(Forbidden):
            await fetcher.get(f"{url}/to?url={target}")


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/", "http://a@b/", "javascript:1", "http://[::1", "//]a@[a@@"]
)
async def test_a_redirect_to_no_web_address_is_refused(target: str) -> None:
    async with serving(redirecting) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        with pytest.raises(BadInput):
            await fetcher.get(f"{url}/to?url={target}")


async def test_a_redirect_of_a_name_is_looked_up_and_checked_again() -> None:
    table = {"good.test": ["127.0.0.1"], "evil.test": ["169.254.169.254"]}
    async with (
        serving(redirecting) as url,
        SafeFetcher(timeout_s=5, allow_private=True, resolve=names(table)) as fetcher,
    ):
        port = url.rpartition(":")[2]
        with pytest.raises(Forbidden, match=r"evil\.test leads to"):
            await fetcher.get(f"http://good.test:{port}/to?url=http://evil.test:{port}/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_to_the_page(status: int) -> None:
    async with serving(redirecting) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        answer = await fetcher.get(f"{url}/to?status={status}&url=/page%3Fa=1")

    assert (answer.url, answer.body) == (f"{url}/page?a=1", b"GET /page none")


async def test_too_many_redirects_end() -> None:
    async with serving(redirecting) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        assert (await fetcher.get(f"{url}/n/{MAX_REDIRECTS}")).body == b"there"
        for path in (f"/n/{MAX_REDIRECTS + 1}", "/loop"):
            with pytest.raises(Unavailable, match="redirects"):
                await fetcher.get(url + path)


async def test_a_redirect_to_another_host_is_reported_when_only_the_same_is_followed() -> None:
    table = {"one.test": ["127.0.0.1"], "www.one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"]}
    async with (
        serving(redirecting) as url,
        SafeFetcher(timeout_s=5, allow_private=True, resolve=names(table)) as fetcher,
    ):
        port = url.rpartition(":")[2]
        same = await fetcher.get(f"http://one.test:{port}/to?url=http://www.one.test:{port}/x", follow="same_host")
        other = await fetcher.get(f"http://one.test:{port}/to?url=http://two.test:{port}/x", follow="same_host")

    assert (same.status, same.location) == (200, "")
    assert (other.status, other.location) == (302, f"http://two.test:{port}/x")


async def test_headers_do_not_travel_to_another_host() -> None:
    table = {"one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"]}
    async with (
        serving(redirecting) as url,
        SafeFetcher(timeout_s=5, allow_private=True, resolve=names(table)) as fetcher,
    ):
        port = url.rpartition(":")[2]
        key = {"X-Key": "secret"}
        there = await fetcher.get(f"http://one.test:{port}/to?url=/x", headers=key)
        away = await fetcher.get(f"http://one.test:{port}/to?url=http://two.test:{port}/x", headers=key)

    assert there.body == b"GET /x secret"
    assert away.body == b"GET /x none"


async def test_a_post_is_sent_once_and_its_redirect_not_followed() -> None:
    async with serving(redirecting) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        plain = await fetcher.request("POST", f"{url}/x", body=b"{}")
        moved = await fetcher.request("POST", f"{url}/to?url=/x", body=b"{}", follow="all")

    assert plain.body == b"POST /x none"
    assert (moved.status, moved.location) == (302, f"{url}/x")


async def test_a_long_body_is_cut() -> None:
    async def long(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 300_000)

    async with serving(long) as url, SafeFetcher(timeout_s=5, allow_private=True, max_bytes=100_000) as fetcher:
        answer = await fetcher.get(url)

    assert (len(answer.body), answer.is_cut) == (100_000, True)


async def test_a_compressed_body_is_unpacked_and_a_bomb_is_cut() -> None:
    async def packed(request: web.Request) -> web.Response:
        content = b"hello" if request.path == "/small" else b"\0" * 200_000_000
        return web.Response(body=gzip.compress(content, 9), headers={"Content-Encoding": "gzip"})

    async with serving(packed) as url, SafeFetcher(timeout_s=20, allow_private=True, max_bytes=100_000) as fetcher:
        small = await fetcher.get(f"{url}/small")
        bomb = await fetcher.get(f"{url}/bomb")

    assert (small.body, small.is_cut) == (b"hello", False)
    assert (len(bomb.body), bomb.is_cut) == (100_000, True)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", b"xxxx"), ("gzip", b"not gzip"), ("deflate", zlib.compress(b"a")), ("gzip, gzip", b"")],
)
async def test_an_encoding_that_cannot_be_read_is_an_error(encoding: str, body: bytes) -> None:
    async def odd(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": encoding})

    async with serving(odd) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        with pytest.raises(Unavailable):
            await fetcher.get(url)


@pytest.mark.parametrize("where", ["headers", "body"])
async def test_a_server_that_dawdles_is_given_up(where: str) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if where == "body":
            await response.prepare(request)
            await response.write(b"a")
        await asyncio.sleep(30)
        return response

    async with serving(slow) as url, SafeFetcher(timeout_s=0.3, allow_private=True) as fetcher:
        with pytest.raises(Unavailable, match=r"within 0\.3 s"):
            await fetcher.get(url)


async def test_nothing_listening_is_unavailable_and_retryable() -> None:
    async with SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        with pytest.raises(DialtoneError) as error:
            await fetcher.get("http://127.0.0.1:9/")
        assert isinstance(error.value, Forbidden)  # port 9 is not a web server's
        with pytest.raises(Unavailable) as away:
            await fetcher.get("http://127.0.0.1:1025/")
    assert away.value.retryable


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1025")
    async with serving(redirecting) as url, SafeFetcher(timeout_s=5, allow_private=True) as fetcher:
        assert (await fetcher.get(f"{url}/x")).status == 200
