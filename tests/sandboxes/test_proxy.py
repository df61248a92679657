"""The proxy from inside a real sandbox: what it lets through, what it refuses, what it adds and never shows."""

import asyncio
import datetime
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.sandboxes.holding import report, why_not
from tests.sandboxes.inside import python
from tests.until import until
from workflow.core.config import SandboxSettings
from workflow.core.errors import ConfigError
from workflow.core.ids import ThreadId
from workflow.sandboxes.authority import Authority
from workflow.sandboxes.egress import Policy
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.proxy import Proxy, Streams

PUBLIC, DEAD = "93.184.215.14", "93.184.215.15"
ADDRESSES = {
    "allowed.example": [PUBLIC],
    "secret.example": [PUBLIC],
    "half.example": [DEAD, PUBLIC],
    "metadata.example": ["169.254.169.254"],
    "private.example": ["10.0.0.7"],
    "loopback.example": ["127.0.0.1"],
    "mixed.example": [PUBLIC, "192.168.1.1"],
    "nat64.example": ["64:ff9b::a9fe:a9fe"],
    "sixtofour.example": ["2002:a9fe:a9fe::1"],
    "mapped.example": ["::ffff:169.254.169.254"],
}
CREDENTIAL = "Bearer canary-credential"


@dataclass
class Internet:
    """A server that stands for every public host, and what was asked of it and of the resolver."""

    authority: Authority = field(default_factory=Authority)
    requests: list[bytes] = field(default_factory=list)
    connected: list[tuple[str, int]] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=dict)
    visitors: int = 0
    """Those who wait for an answer that does not come."""

    async def resolve(self, host: str, port: int) -> list[str]:
        self.lookups.append(host)
        return ADDRESSES[host]

    async def connect(self, address: str, port: int, host: str, tls: ssl.SSLContext | None) -> Streams:
        """As the proxy connects, but every public address is the server here."""
        self.connected.append((address, port))
        if address == DEAD:
            raise ConnectionRefusedError("nobody is here")
        return await asyncio.open_connection(
            "127.0.0.1", self.ports[port], ssl=tls, server_hostname=host if tls else None
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            if b" /silence" in head:
                self.visitors += 1
                await reader.read()
                self.visitors -= 1
            elif b" /mirror" in head:
                for piece in (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", head[:-20], head[-20:]):
                    writer.write(piece)
                    await writer.drain()
            elif b" /length" in head:
                (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            elif b" /away" in head:
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://metadata.example/\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwelcome")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    found = Internet()
    tls = found.authority.context("allowed.example")
    servers = {
        80: await asyncio.start_server(found.answer, "127.0.0.1", 0),
        443: await asyncio.start_server(found.answer, "127.0.0.1", 0, ssl=tls),
    }
    found.ports = {port: server.sockets[0].getsockname()[1] for port, server in servers.items()}
    yield found
    for server in servers.values():
        server.close()


@pytest.fixture
async def sandbox(internet: Internet, folder: Path) -> AsyncIterator[LocalSandbox]:
    if reason := await asyncio.to_thread(why_not, "T1b"):
        pytest.skip(reason)
    settings = SandboxSettings(
        mode="T1b",
        network="allowlist",
        allow_hosts=tuple(ADDRESSES),
        credentials={"secret.example": "CANARY"},
    )
    trust = ssl.create_default_context(cadata=internet.authority.bundle().decode())
    trust.check_hostname = False  # The one server's certificate names one of its hosts.
    proxy = Proxy(
        Policy.of(settings),
        credentials={"secret.example": CREDENTIAL},
        resolve=internet.resolve,
        connect=internet.connect,
        upstream_tls=trust,
    )
    checked = await asyncio.to_thread(report, "T1b")
    async with LocalProvider(settings, data_dir=folder, report=checked, proxy=proxy) as provider:
        yield await provider.open(ThreadId("networked"))


async def curl(sandbox: LocalSandbox, *arguments: str) -> tuple[int, bytes]:
    result = await sandbox.exec(["curl", "-sS", "--max-time", "5", *arguments], timeout_s=10)
    return result.exit_code, result.stdout + result.stderr


async def test_an_allowed_host_is_reached_over_http(sandbox: LocalSandbox, internet: Internet) -> None:
    assert await curl(sandbox, "http://allowed.example/page?q=1") == (0, b"welcome")
    assert internet.requests[0].startswith(b"GET /page?q=1 HTTP/1.1\r\nHost: allowed.example\r\n")
    assert internet.connected == [(PUBLIC, 80)], "the connection goes to the address that was checked"


async def test_an_allowed_host_is_reached_over_tls_end_to_end(sandbox: LocalSandbox, internet: Internet) -> None:
    await sandbox.write("ca.pem", internet.authority.bundle())
    assert await curl(sandbox, "--cacert", "ca.pem", "https://allowed.example/") == (0, b"welcome")
    assert internet.connected == [(PUBLIC, 443)]


async def test_a_body_is_passed_on(sandbox: LocalSandbox, internet: Internet) -> None:
    assert await curl(sandbox, "-d", "x=1", "http://allowed.example/") == (0, b"welcome")
    hidden = ("-H", "Connection: content-length", "-d", "x=1", "http://allowed.example/length")
    assert await curl(sandbox, *hidden) == (0, b"x=1"), "else it would be read as the next request"
    chunked = ("-H", "Transfer-Encoding: chunked", "-d", "x=1", "http://allowed.example/")
    assert await curl(sandbox, *chunked) == (0, b"welcome")


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.example/",
        "http://allowed.example.evil.example/",
        "http://93.184.215.14/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://allowed.example:6379/",
        "http://metadata.example/",
        "http://private.example/",
        "http://loopback.example/",
        "http://mixed.example/",
        "http://nat64.example/",
        "http://sixtofour.example/",
        "http://mapped.example/",
        "http://169.254.169.254/latest/meta-data/",
        "https://elsewhere.example/",
        "https://metadata.example/",
        "https://private.example/",
        "https://allowed.example:8443/",
        "https://93.184.215.14/",
        "https://[::1]/",
    ],
)
async def test_everything_else_is_refused(sandbox: LocalSandbox, internet: Internet, url: str) -> None:
    status, output = await curl(sandbox, "-f", url)
    assert status != 0, output
    assert internet.connected == []


async def test_a_refused_request_takes_little_room_in_the_log(
    sandbox: LocalSandbox, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "workflow.sandboxes.proxy"):
        assert (await curl(sandbox, "-f", f"http://allowed.example:81/{'a' * 50_000}"))[0] != 0
    (said,) = [record.getMessage() for record in caplog.records if record.name == "workflow.sandboxes.proxy"]
    assert "allowed.example:81" in said and len(said) < 400


async def test_a_redirect_to_a_forbidden_address_is_checked_again(sandbox: LocalSandbox, internet: Internet) -> None:
    status, _ = await curl(sandbox, "-f", "-L", "http://allowed.example/away")
    assert status != 0
    assert internet.lookups == ["allowed.example", "metadata.example"] and len(internet.connected) == 1


async def test_a_name_is_looked_up_once(sandbox: LocalSandbox, internet: Internet) -> None:
    """A second look-up could be answered with another address (DNS rebinding)."""
    await curl(sandbox, "http://allowed.example/")
    assert internet.lookups == ["allowed.example"]


async def test_of_several_addresses_the_first_that_answers_is_taken(sandbox: LocalSandbox, internet: Internet) -> None:
    assert await curl(sandbox, "http://half.example/") == (0, b"welcome")
    assert internet.connected == [(DEAD, 80), (PUBLIC, 80)]


async def test_a_client_that_gave_up_leaves_nothing_open(sandbox: LocalSandbox, internet: Internet) -> None:
    """Each sandbox has a number of connections, and a host may be silent for long."""
    for url in ("http://allowed.example/silence", "https://secret.example/silence"):
        assert (await curl(sandbox, "--max-time", "1", url))[0] == 28

    async def is_over() -> bool:
        return len(internet.requests) == 2 and internet.visitors == 0

    await until(is_over, what="the host to be left as well")


async def test_the_name_in_tls_must_be_the_one_that_was_allowed(sandbox: LocalSandbox, internet: Internet) -> None:
    for name in ("evil.example", None):
        result = await python(sandbox, TUNNEL.format(name=name), timeout_s=10)
        assert b"REACHED" not in result.stdout, result
    assert internet.requests == []


TUNNEL = """
import socket, ssl
s = socket.create_connection(("127.0.0.1", 3128))
s.sendall(b"CONNECT allowed.example:443 HTTP/1.1\\r\\nHost: allowed.example:443\\r\\n\\r\\n")
assert s.recv(1000).startswith(b"HTTP/1.1 200")
context = ssl._create_unverified_context()
try:
    inner = context.wrap_socket(s, server_hostname={name!r})
    inner.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    print("REACHED", inner.recv(100))
except (OSError, ssl.SSLError) as error:
    print(error)
"""


async def test_a_tunnel_that_does_not_speak_tls_is_closed(sandbox: LocalSandbox, internet: Internet) -> None:
    send = "CONNECT allowed.example:443 HTTP/1.1\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n"
    result = await sandbox.exec(f"exec 3<>/dev/tcp/127.0.0.1/3128; printf '{send}' >&3; cat <&3", timeout_s=10)
    assert b"welcome" not in result.stdout and internet.requests == []


async def test_nothing_goes_out_beside_the_proxy(sandbox: LocalSandbox, internet: Internet) -> None:
    status, output = await curl(
        sandbox, "--noproxy", "*", "--resolve", "allowed.example:80:1.1.1.1", "http://allowed.example/"
    )
    assert status == 7, output
    assert (await sandbox.exec("getent hosts allowed.example")).exit_code != 0


async def test_a_credential_is_put_into_requests_to_its_host_alone(sandbox: LocalSandbox, internet: Internet) -> None:
    assert await curl(sandbox, "-H", "Authorization: mine", "https://secret.example/") == (0, b"welcome")
    assert await curl(sandbox, "http://allowed.example/") == (0, b"welcome")
    request, other = internet.requests
    assert request.count(b"Authorization: ") == 1 and CREDENTIAL.encode() in request
    assert b"Authorization" not in other


async def test_a_credential_goes_over_tls_alone(sandbox: LocalSandbox, internet: Internet) -> None:
    status, output = await curl(sandbox, "http://secret.example/")
    assert (status, b"needs https" in output, internet.connected) == (0, True, [])


async def test_a_credential_never_enters_the_sandbox(sandbox: LocalSandbox, internet: Internet) -> None:
    mirrored = await curl(sandbox, "--compressed", "https://secret.example/mirror")
    hidden = b"*" * len(b"canary-credential")
    assert b"authorization: bearer " + hidden in mirrored[1].lower(), "a host that repeats it is no way to it"
    assert CREDENTIAL.encode() in internet.requests[0]
    found = await sandbox.exec("env; cat /proc/*/environ /proc/*/cmdline; grep -r canary-cred /run /etc /tmp ~ .")
    assert b"canary-credential" not in found.stdout


def test_the_certificates_for_sandboxes_are_valid_for_a_while() -> None:
    pem = Authority().bundle().decode()
    own = ssl.create_default_context(cadata=pem).get_ca_certs()[-1]
    until = datetime.datetime.strptime(str(own["notAfter"]), "%b %d %H:%M:%S %Y GMT")
    assert until - datetime.datetime.now() > datetime.timedelta(days=300)


@pytest.mark.parametrize("value", ["", "Bearer a\nX-Other: b", "Bearer \u20ac"])
def test_a_credential_that_is_not_set_or_no_header_stops_the_start(folder: Path, value: str) -> None:
    settings = SandboxSettings(network="allowlist", credentials={"a.example": "THIS_ONE"})
    with pytest.raises(ConfigError, match="THIS_ONE"):
        LocalProvider(settings, data_dir=folder, environ={"THIS_ONE": value})


async def test_the_weakest_tier_is_not_chosen_when_a_network_is_wanted(folder: Path) -> None:
    async with LocalProvider(SandboxSettings(mode="T2", network="allowlist"), data_dir=folder) as provider:
        assert (await provider.check()).tier == "T3"
