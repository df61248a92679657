"""Pictures, known by their first bytes and never by their name."""

import struct

from workflow.core.errors import ToolError
from workflow.llm.base import Image

MAX_BYTES = 5_000_000  # what vision models take per picture
MAX_SIDE = 8000


def picture(raw: bytes, path: str) -> Image | None:
    """The file as a picture for the model; None if it is none.

    Raises: ToolError with kind `too_large` for one that no model takes.
    """
    media_type = _media_type(raw)
    if not media_type:
        return None
    width, height = _size(raw, media_type)
    if len(raw) > MAX_BYTES or max(width, height) > MAX_SIDE:
        raise ToolError(
            f"{path} is a picture of {len(raw):,} bytes ({width}×{height}); models take up to {MAX_BYTES:,} bytes and "
            f"{MAX_SIDE} pixels a side. Make a smaller copy with bash (e.g. convert -resize 2000x2000) and read that.",
            kind="too_large",
        )
    return Image(media_type, raw, path)


def _media_type(raw: bytes) -> str:
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if raw.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if raw.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return ""


def _size(raw: bytes, media_type: str) -> tuple[int, int]:
    """Width and height in pixels where the header gives them simply, else (0, 0)."""
    if media_type == "image/png" and len(raw) >= 24:
        width, height = struct.unpack(">II", raw[16:24])
        return width, height
    if media_type == "image/gif" and len(raw) >= 10:
        width, height = struct.unpack("<HH", raw[6:10])
        return width, height
    return 0, 0
