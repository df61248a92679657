"""The proxy from inside a real sandbox: what it lets through, what it refuses, what it adds and never shows."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.sandboxes.holding import report, why_not
from tests.sandboxes.inside import python
from workflow.core.config import SandboxSettings
from workflow.core.errors import ConfigError
from workflow.core.ids import ThreadId
from workflow.sandboxes.authority import Authority
from workflow.sandboxes.egress import Policy
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.proxy import Proxy, Streams

PUBLIC = "93.184.215.14"
ADDRESSES = {
    "allowed.example": [PUBLIC],
    "secret.example": [PUBLIC],
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

    async def resolve(self, host: str, port: int) -> list[str]:
        self.lookups.append(host)
        return ADDRESSES[host]

    async def connect(self, address: str, port: int, host: str, tls: ssl.SSLContext | None) -> Streams:
        """As the proxy connects, but every public address is the server here."""
        self.connected.append((address, port))
        return await asyncio.open_connection(
            "127.0.0.1", self.ports[port], ssl=tls, server_hostname=host if tls else None
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            if b" /away" in head:
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


async def test_a_redirect_to_a_forbidden_address_is_checked_again(sandbox: LocalSandbox, internet: Internet) -> None:
    status, _ = await curl(sandbox, "-f", "-L", "http://allowed.example/away")
    assert status != 0
    assert internet.lookups == ["allowed.example", "metadata.example"] and len(internet.connected) == 1


async def test_a_name_is_looked_up_once(sandbox: LocalSandbox, internet: Internet) -> None:
    """A second look-up could be answered with another address (DNS rebinding)."""
    await curl(sandbox, "http://allowed.example/")
    assert internet.lookups == ["allowed.example"]


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
    assert await curl(sandbox, "-H", "Authorization: mine", "http://secret.example/") == (0, b"welcome")
    assert await curl(sandbox, "https://secret.example/") == (0, b"welcome")
    assert await curl(sandbox, "http://allowed.example/") == (0, b"welcome")
    plain, tls, other = internet.requests
    for request in (plain, tls):
        assert request.count(b"Authorization: ") == 1 and CREDENTIAL.encode() in request
    assert b"Authorization" not in other


async def test_a_credential_never_enters_the_sandbox(sandbox: LocalSandbox, internet: Internet) -> None:
    await curl(sandbox, "https://secret.example/")
    found = await sandbox.exec("env; cat /proc/*/environ /proc/*/cmdline; grep -r canary-cred /run /etc /tmp ~ .")
    assert b"canary-credential" not in found.stdout


def test_the_certificates_for_sandboxes_are_valid_for_a_while() -> None:
    pem = Authority().bundle().decode()
    own = ssl.create_default_context(cadata=pem).get_ca_certs()[-1]
    until = datetime.datetime.strptime(str(own["notAfter"]), "%b %d %H:%M:%S %Y GMT")
    assert until - datetime.datetime.now() > datetime.timedelta(days=300)


def test_a_credential_that_is_not_set_stops_the_start(folder: Path) -> None:
    settings = SandboxSettings(network="allowlist", credentials={"a.example": "NOT_SET"})
    with pytest.raises(ConfigError, match="NOT_SET"):
        LocalProvider(settings, data_dir=folder, environ={})


async def test_the_weakest_tier_is_not_chosen_when_a_network_is_wanted(folder: Path) -> None:
    async with LocalProvider(SandboxSettings(mode="T2", network="allowlist"), data_dir=folder) as provider:
        assert (await provider.check()).tier == "T3"
