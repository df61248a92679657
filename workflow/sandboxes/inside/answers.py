"""What a call prints: lines that begin with the call's own nonce, plain ASCII whatever the content.

`<nonce> 1|2 <base64>`  bytes of the command's standard output or error
`<nonce> b`             a heartbeat: still there
`<nonce> r <JSON>`      the result; nothing follows
`<nonce> x <JSON>`      a refusal, {kind, message}; nothing follows
"""

from __future__ import annotations

import binascii
import json
import os

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
        self._line("r", json.dumps(value).encode())

    def refusal(self, error: Refused) -> None:
        self._line("x", json.dumps({"kind": error.kind, "message": str(error)}).encode())

    def _line(self, kind: str, payload: bytes) -> None:
        line = memoryview(b"%s %s %s\n" % (self._nonce.encode(), kind.encode(), payload))
        while line:
            line = line[os.write(1, line) :]
