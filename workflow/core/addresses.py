"""Which internet addresses are public, and which URLs may be asked: the one rule against server-side request forgery.

An address that carries an IPv4 address inside of an IPv6 one is never public here, whatever it carries: nobody
needs to reach a web page that way, and each such form has been a hole in somebody's filter.
Source: the IANA special-purpose address registries (RFC 6890 and successors).
"""

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from yarl import URL

from workflow.core.errors import BadInput, Forbidden

Address = IPv4Address | IPv6Address

_REFUSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's host, a public address that is not
            "169.254.0.0/16",  # link-local, cloud metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relay
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: carries an IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
_PRIVATE: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(IPv6Network, ("::1/128", "fc00::/7")),
)
_ISATAP = (0x00005EFE, 0x02005EFE)

MAX_URL_CHARS = 2000
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
# Ports that no web server uses and other protocols do: the Fetch standard's list, and common databases.
_BAD_PORTS = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045,
    4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 2375, 2379, 3306, 5432, 6379,
    9042, 9200, 11211, 27017,
})  # fmt: skip


def is_public(address: str | Address) -> bool:
    """True for an address of a host on the open internet. Raises: ValueError if it is no address."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_V4)
    if parsed.scope_id or parsed not in _GLOBAL_V6 or any(parsed in network for network in _REFUSED_V6):
        return False
    return (int(parsed) >> 32) & 0xFFFFFFFF not in _ISATAP


def is_private(address: str | Address) -> bool:
    """True for loopback and private networks, which an operator may open; never for link-local ones (metadata)."""
    parsed = ip_address(address)
    return any(parsed in network for network in _PRIVATE if network.version == parsed.version)


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """True for a public address, or a private one where those are open. Raises: ValueError if it is no address."""
    return is_public(address) or (allow_private and is_private(address))


def checked_url(url: str, *, allow_private: bool) -> URL:
    """`url` parsed, if it may be requested as far as its text tells. Raises: BadInput, Forbidden."""
    if len(url) > MAX_URL_CHARS or _ODD.search(url):
        raise BadInput("a URL must be at most 2,000 characters, without blanks, backslashes or control characters")
    try:
        parsed = URL(url)
        port, host = parsed.port, parsed.host
        (parsed.raw_host or "").encode("idna")  # what no resolver could ask for
    except (ValueError, IndexError) as error:  # the second is a slip of yarl's, e.g. on `http://].[@`
        raise BadInput(f"{short(url)} is not a URL") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise BadInput(f"{short(url)} must begin with http:// or https:// and name a host")
    if parsed.user is not None or parsed.password is not None or "@" in parsed.raw_authority:
        raise BadInput("a URL with a user name or password is refused")
    if port is None or port in _BAD_PORTS or port == 0:
        raise Forbidden(f"port {port} is refused")
    if "%" in host:
        raise BadInput(f"{short(url)} has a host that is not plain")
    literal = _literal(host)
    if literal is not None and not is_allowed(literal, allow_private=allow_private):
        raise Forbidden(f"{host} is not a public address")
    return parsed.with_fragment(None)


def short(url: str) -> str:
    """`url` for a message: without its query, which may hold secrets."""
    return url.partition("?")[0][:200]


def _literal(host: str) -> str | None:
    """`host` if it is an IP address; also one written as a single number or in other old forms, as dotted."""
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        pass
    if re.fullmatch(r"(?:0[xX][0-9a-fA-F]*|\d+)(?:\.(?:0[xX][0-9a-fA-F]*|\d+)){0,3}\.?", host):
        try:
            return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return "0.0.0.0"  # looks like an address and is none: refuse it as one
    return None
