"""A fetched page as text that a model can read."""

import asyncio
import html
import re
from functools import partial

from workflow.core.errors import ToolError
from workflow.core.fetch import Fetched
from workflow.core.texts import sound

_EXTRACT_TIMEOUT_S = 15.0
_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)")
_MAX_EXTRACTED = 2_000_000
"""Characters of HTML that are looked at for the main text."""
_TEXTUAL = re.compile(
    r"text/|application/(?:.*\+)?(?:json|xml|yaml|x-yaml|toml|javascript|x-sh|x-ndjson)|^$|image/svg", re.IGNORECASE
)


async def readable_page(answer: Fetched, *, raw: bool = False) -> tuple[str, str]:
    """The title (or empty) and the text: Markdown for HTML, other texts as they are.

    raw: HTML as its source. Raises: ToolError with kind `not_text`.
    """
    kind = answer.headers.get("content-type", "")
    if not _TEXTUAL.match(kind) or b"\0" in answer.body[:4096]:
        raise ToolError(
            f"{answer.url} is {kind.partition(';')[0] or 'binary'}, not text ({len(answer.body):,} bytes). Look for an "
            "HTML or text version of it.",
            kind="not_text",
        )
    text = _decoded(answer)
    is_html = "html" in kind or (not kind and "<html" in text[:2000].lower())
    if raw or not is_html:
        return "", text
    try:
        async with asyncio.timeout(_EXTRACT_TIMEOUT_S):
            return _title(text), await asyncio.to_thread(partial(_markdown, text[:_MAX_EXTRACTED], answer.url))
    except TimeoutError as error:
        raise ToolError(
            f"The main text of {answer.url} could not be found in time. Fetch it with raw=true.", kind="not_text"
        ) from error


def _title(page: str) -> str:
    # Found by hand: a regular expression over a hostile page can take hours.
    start = page[:200_000].lower()
    begin = start.find(">", start.find("<title")) if "<title" in start else -1
    end = start.find("</title", begin)
    return " ".join(html.unescape(page[begin + 1 : end]).split())[:300] if 0 < begin < end else ""


def _decoded(answer: Fetched) -> str:
    match = _CHARSET.search(answer.headers.get("content-type", "")) or _CHARSET.search(
        answer.body[:2048].decode("latin-1")
    )
    try:
        return sound(answer.body.decode(match[1] if match else "utf-8", "replace"))
    except (LookupError, UnicodeError):  # a name of no encoding, or of one that is not for pages (idna)
        return answer.body.decode("utf-8", "replace")


def _markdown(page: str, url: str) -> str:
    # Imported on first use: it takes 0.2 s that most workers never need.
    import trafilatura  # noqa: PLC0415

    found: str | None = trafilatura.extract(
        page, url=url, output_format="markdown", include_links=True, include_tables=True, favor_recall=True
    )
    # A page without a main text (a form, a short note) still has words.
    return found or str(trafilatura.html2txt(page))
