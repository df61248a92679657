"""A fetched page as text that a model can read."""

import asyncio
import re
from functools import partial

from workflow.core.errors import ToolError
from workflow.core.fetch import Fetched

_EXTRACT_TIMEOUT_S = 15.0
_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
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
    title = _TITLE.search(text[:200_000])
    name = " ".join(title[1].split())[:300] if title else ""
    try:
        async with asyncio.timeout(_EXTRACT_TIMEOUT_S):
            found = await asyncio.to_thread(partial(_markdown, text, answer.url))
    except TimeoutError:
        found = ""
    return name, found or _stripped(text)


def _decoded(answer: Fetched) -> str:
    match = _CHARSET.search(answer.headers.get("content-type", "")) or _CHARSET.search(
        answer.body[:2048].decode("latin-1")
    )
    try:
        return answer.body.decode(match[1] if match else "utf-8", "replace")
    except LookupError:
        return answer.body.decode("utf-8", "replace")


def _markdown(page: str, url: str) -> str:
    # Imported on first use: it takes 0.2 s that most workers never need.
    import trafilatura  # noqa: PLC0415

    found = trafilatura.extract(
        page, url=url, output_format="markdown", include_links=True, include_tables=True, favor_recall=True
    )
    return found or ""


def _stripped(page: str) -> str:
    """What is left of HTML without its tags: for pages in which no main text can be found."""
    body = re.sub(r"(?is)<(script|style|head|svg)\b.*?</\1>", " ", page)
    text = re.sub(r"(?s)<[^>]*>", " ", body)
    return "\n".join(line for line in (" ".join(part.split()) for part in text.split("\n")) if line)
