"""A file's bytes as text and back, so that what is not touched stays the same byte for byte."""

import codecs
from dataclasses import dataclass

from workflow.core.errors import ToolError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SNIFFED_BYTES = 8192
_GUESS_BYTES = 20_000  # a guess over 100 kB took half a second
_MIN_CONFIDENCE = 0.9
# Encodings in which each character stands for itself: text can be cut and joined anywhere.
_STATELESS = ("cp125", "cp437", "cp850", "iso8859", "latin", "koi8", "mac_", "shift_jis", "cp932", "euc_", "gb", "big5")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file as text. `bom + text.encode(encoding, errors)` is the file again."""

    text: str
    encoding: str
    bom: bytes = b""
    errors: str = "strict"

    @property
    def label(self) -> str:
        """How people call the encoding, e.g. `utf-8 with BOM`; empty for plain UTF-8."""
        name = self.encoding if self.encoding != "utf-8" or self.bom or self.errors != "strict" else ""
        if self.errors == "surrogateescape":
            return "utf-8 with invalid bytes"
        return f"{name} with BOM" if self.bom else name

    def encode(self, text: str) -> bytes:
        """`text` as bytes of this file. Raises: ToolError with kind `encoding`."""
        try:
            return text.encode(self.encoding, self.errors)
        except UnicodeEncodeError as error:
            char = text[error.start]
            raise ToolError(
                f"The file is {self.encoding}, which has no {char!r} (U+{ord(char):04X}). Use plain characters, or "
                f"convert the file first: iconv -f {self.encoding} -t utf-8.",
                kind="encoding",
                encoding=self.encoding,
            ) from error


def decode(raw: bytes) -> Decoded | None:
    """The file as text, exactly reversible; None if it is binary."""
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            found = _exactly(raw[len(bom) :], encoding, bom)
            if found is not None:
                return found
    if b"\0" in raw[:_SNIFFED_BYTES]:
        return None
    found = _exactly(raw, "utf-8")
    if found is not None:
        return found
    if _looks_binary(raw[:_SNIFFED_BYTES]):
        return None
    if _is_mostly_utf8(raw):
        return Decoded(raw.decode("utf-8", "surrogateescape"), "utf-8", errors="surrogateescape")
    return _guessed(raw)


def _exactly(raw: bytes, encoding: str, bom: bytes = b"") -> Decoded | None:
    try:
        text = raw.decode(encoding)
        return Decoded(text, encoding, bom) if text.encode(encoding) == raw else None
    except UnicodeError:
        return None


def _is_mostly_utf8(raw: bytes) -> bool:
    """True if valid multi-byte characters outnumber the invalid bytes: a UTF-8 file with damage."""
    text = raw[:_GUESS_BYTES].decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= char <= "\udcff" for char in text)
    return sum(char > "\x7f" for char in text) - bad > bad


def _guessed(raw: bytes) -> Decoded:
    """A legacy encoding if one is likely, else the Western one; Latin-1 fits any bytes."""
    start = raw if len(raw) <= _GUESS_BYTES else raw[:_GUESS_BYTES].rpartition(b"\n")[0] or raw[:_GUESS_BYTES]
    import charset_normalizer  # noqa: PLC0415  # 1.4 MB, for the rare file that is not UTF-8

    best = charset_normalizer.from_bytes(start).best()
    likely = best is not None and best.encoding.startswith(_STATELESS) and best.chaos <= 1 - _MIN_CONFIDENCE
    guesses = ([best.encoding] if best is not None and likely else []) + ["cp1252"]
    for encoding in guesses:
        found = _exactly(raw, encoding)
        if found is not None:
            return found
    return Decoded(raw.decode("latin-1"), "latin-1")


def _looks_binary(start: bytes) -> bool:
    control = sum(byte < 9 or 13 < byte < 32 for byte in start if byte != 27)
    return control > len(start) * 0.1
