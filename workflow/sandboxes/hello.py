"""The server name in the first message of a TLS connection (RFC 8446 section 4.1.2, RFC 6066 section 3)."""

import asyncio

HANDSHAKE_RECORD, CLIENT_HELLO, SERVER_NAME = 22, 1, 0
MAX_BYTES = 65_536


class NotTls(ValueError):
    """What came is not the beginning of a TLS connection."""


async def read_hello(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """The bytes of the ClientHello as they came, and the server name in it (in lower case; empty: none given).

    Raises: NotTls; asyncio.IncompleteReadError if the connection ends before.
    """
    raw, message = b"", b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        header = await reader.readexactly(5)
        if header[0] != HANDSHAKE_RECORD or header[1] != 3:
            raise NotTls("not a TLS handshake")
        fragment = await reader.readexactly(int.from_bytes(header[3:5]))
        raw, message = raw + header + fragment, message + fragment
        if message[:1] != bytes([CLIENT_HELLO]) or len(raw) > MAX_BYTES:
            raise NotTls("not a ClientHello")
    return raw, server_name(message[4 : 4 + int.from_bytes(message[1:4])])


def server_name(hello: bytes) -> str:
    """The name in a ClientHello's body. Raises: NotTls if it is malformed or names two hosts."""
    fields = _Fields(hello)
    fields.take(2 + 32)  # version, random
    for length_bytes in (1, 2, 1):  # session id, cipher suites, compression methods
        fields.vector(length_bytes)
    if not fields.rest:
        return ""
    extensions, names = _Fields(fields.vector(2)), []
    while extensions.rest:
        kind, content = int.from_bytes(extensions.take(2)), extensions.vector(2)
        if kind == SERVER_NAME:
            entries = _Fields(_Fields(content).vector(2))
            while entries.rest:
                entries.take(1)
                names.append(entries.vector(2))
    if len(names) > 1:
        raise NotTls("more than one server name")
    try:
        return names[0].decode("ascii").lower() if names else ""
    except UnicodeDecodeError as error:
        raise NotTls("a server name that is not ASCII") from error


class _Fields:
    """Takes fields from the front of a message."""

    def __init__(self, content: bytes) -> None:
        self.rest = content

    def take(self, count: int) -> bytes:
        if len(self.rest) < count:
            raise NotTls("a field is cut off")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def vector(self, length_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(length_bytes)))
