"""What a call prints: lines that begin with the call's own nonce, plain ASCII whatever the content.

`<nonce> 1|2 <base64>`  bytes of the command's standard output or error
`<nonce> b`             a heartbeat: still there
`<nonce> r <JSON>`      the result, base64 of the JSON; nothing follows
`<nonce> x <JSON>`      a refusal, {kind, message}, likewise; nothing follows
"""

from __future__ import annotations

import binascii
import os

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ESCAPES = {number: f"\\u{number:04x}" for number in [*range(32), ord('"'), ord("\\")]}
CHUNK = 48 * 1024
"""Bytes per line; as base64 64 KiB."""


class Refused(Exception):
    """The call asks for what cannot be; `kind` as in ToolError."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Answer:
    """Writes to standard output, each line as a whole."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce

    def chunk(self, stream: int, content: bytes) -> None:
        for start in range(0, len(content), CHUNK):
            self._line(str(stream), binascii.b2a_base64(content[start : start + CHUNK], newline=False))

    def beat(self) -> None:
        self._line("b", b"")

    def result(self, value: Any) -> None:
        self._line("r", _packed(value))

    def refusal(self, error: Refused) -> None:
        self._line("x", _packed({"kind": error.kind, "message": str(error)}))

    def _line(self, kind: str, payload: bytes) -> None:
        line = memoryview(b"%s %s %s\n" % (self._nonce.encode(), kind.encode(), payload))
        while line:
            line = line[os.write(1, line) :]


def _packed(value: Any) -> bytes:
    # File names may hold bytes that are no text; Python keeps those as lone surrogates.
    return binascii.b2a_base64(_json(value).encode("utf-8", "surrogatepass"), newline=False)


def _json(value: Any) -> str:
    """As json.dumps, for what our answers hold; importing that module costs more than all the rest of a call."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + value.translate(ESCAPES) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(name)}:{_json(item)}" for name, item in value.items()) + "}"
    return "[" + ",".join(map(_json, value)) + "]"
