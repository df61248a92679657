"""Web search engines behind one protocol: Tavily, Exa, Brave and SearXNG, over their REST interfaces.

Keys come from the environment: TAVILY_API_KEY, EXA_API_KEY, BRAVE_API_KEY. TAVILY_API_URL, EXA_API_URL and
BRAVE_API_URL point a provider elsewhere.
"""

import asyncio
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from workflow.core.config import ToolSettings
from workflow.core.errors import ToolError

_TIMEOUT_S = 20.0
_TRIES = 3
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_WORTH_ANOTHER_TRY = frozenset({0, 429, 500, 502, 503, 504})  # 0: no answer at all
_TAG = re.compile(r"<[^<>]*>")
OFF = (
    "Web search is switched off: no search provider is configured here. Work from what you know and from the files, "
    "use web_fetch for addresses you know, and say in the answer what could not be looked up. (Operators: set "
    "TAVILY_API_KEY, EXA_API_KEY or BRAVE_API_KEY, or [tools] searxng_url.)"
)


@dataclass(frozen=True, slots=True)
class Hit:
    title: str
    url: str
    snippet: str
    date: str = ""
    content: str = ""
    """The page's text, where the provider gives it and it was asked for."""


class SearchProvider(Protocol):
    """One search engine."""

    name: str

    async def search(self, query: str, *, limit: int, with_content: bool) -> list[Hit]:
        """At most `limit` hits, best first.

        Raises: ToolError with kind `search_key`, `search_limit` or `search_failed`.
        """
        ...


def provider(settings: ToolSettings, environ: Mapping[str, str]) -> SearchProvider | None:
    """The configured provider, or the first that has a key; None if there is none."""
    found: dict[str, SearchProvider] = {}
    if key := environ.get("TAVILY_API_KEY"):
        found["tavily"] = Tavily(key, environ.get("TAVILY_API_URL") or "https://api.tavily.com")
    if key := environ.get("EXA_API_KEY"):
        found["exa"] = Exa(key, environ.get("EXA_API_URL") or "https://api.exa.ai")
    if key := environ.get("BRAVE_API_KEY"):
        found["brave"] = Brave(key, environ.get("BRAVE_API_URL") or "https://api.search.brave.com")
    if settings.searxng_url:
        found["searxng"] = SearXNG(settings.searxng_url)
    if settings.search_provider:
        return found.get(settings.search_provider)
    return next(iter(found.values()), None)


class Tavily:
    """https://docs.tavily.com/documentation/api-reference/endpoint/search"""

    name = "tavily"

    def __init__(self, key: str, url: str) -> None:
        self._key, self._url = key, url.rstrip("/")

    async def search(self, query: str, *, limit: int, with_content: bool) -> list[Hit]:
        answer = await _ask(
            "POST",
            f"{self._url}/search",
            headers={"Authorization": f"Bearer {self._key}"},
            body={"query": query, "max_results": limit, "include_raw_content": "markdown" if with_content else False},
        )
        keys = ("title", "url", "content", "published_date", "raw_content")
        return [Hit(*(_text(result, key) for key in keys)) for result in _results(answer, "results")[:limit]]


class Exa:
    """https://docs.exa.ai/reference/search"""

    name = "exa"

    def __init__(self, key: str, url: str) -> None:
        self._key, self._url = key, url.rstrip("/")

    async def search(self, query: str, *, limit: int, with_content: bool) -> list[Hit]:
        contents = {"highlights": True, **({"text": {"maxCharacters": 10_000}} if with_content else {})}
        answer = await _ask(
            "POST",
            f"{self._url}/search",
            headers={"x-api-key": self._key},
            body={"query": query, "numResults": limit, "contents": contents},
        )
        hits: list[Hit] = []
        for result in _results(answer, "results")[:limit]:
            highlights = result.get("highlights")
            snippet = " … ".join(map(str, highlights)) if isinstance(highlights, list) else _text(result, "summary")
            text = _text(result, "text")
            date = _text(result, "publishedDate")[:10]
            hits.append(Hit(_text(result, "title"), _text(result, "url"), snippet or text[:300], date, text))
        return hits


class Brave:
    """https://api-dashboard.search.brave.com/app/documentation/web-search/get-started"""

    name = "brave"

    def __init__(self, key: str, url: str) -> None:
        self._key, self._url = key, url.rstrip("/")

    async def search(self, query: str, *, limit: int, with_content: bool) -> list[Hit]:
        answer = await _ask(
            "GET",
            f"{self._url}/res/v1/web/search",
            headers={"X-Subscription-Token": self._key},
            params={"q": query, "count": str(limit), "text_decorations": "false"},
        )
        web = answer.get("web")
        hits: list[Hit] = []
        for result in _results(web if isinstance(web, dict) else {}, "results")[:limit]:
            extra = result.get("extra_snippets")
            content = "\n".join(_plain(str(item)) for item in extra) if with_content and isinstance(extra, list) else ""
            date = _text(result, "page_age")[:10] or _text(result, "age")
            title, snippet = _plain(_text(result, "title")), _plain(_text(result, "description"))
            hits.append(Hit(title, _text(result, "url"), snippet, date, content))
        return hits


class SearXNG:
    """https://docs.searxng.org/dev/search_api.html; the instance must allow the format `json`."""

    name = "searxng"

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def search(self, query: str, *, limit: int, with_content: bool) -> list[Hit]:
        answer = await _ask("GET", f"{self._url}/search", params={"q": query, "format": "json"})
        results = _results(answer, "results")
        silent = answer.get("unresponsive_engines")
        if not results and isinstance(silent, list) and silent:
            names = ", ".join(str(item[0] if isinstance(item, list) and item else item) for item in silent[:5])
            raise ToolError(
                f"The search engines behind SearXNG did not answer ({names}): this says nothing about the query. Do "
                "not rephrase it; wait a little, or fetch addresses you know.",
                kind="search_limit",
            )
        return [
            Hit(_text(r, "title"), _text(r, "url"), _text(r, "content"), _text(r, "publishedDate")[:10])
            for r in results[:limit]
        ]


async def _ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: dict[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The provider's JSON object; tries again when it is overloaded."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        for attempt in range(1, _TRIES + 1):
            try:
                async with session.request(method, url, headers=headers, json=body, params=params) as response:
                    content = b"".join([chunk async for chunk in response.content.iter_any()])
                    status, pause = response.status, response.headers.get("Retry-After", "")
            except (aiohttp.ClientError, TimeoutError) as error:
                status, content, pause = 0, str(error).encode(), ""
            if status == 200:
                return _object(content)
            if attempt == _TRIES or status not in _WORTH_ANOTHER_TRY:
                break
            await asyncio.sleep(_pause_s(pause, attempt))
    raise _refused(status, content)


def _pause_s(retry_after: str, attempt: int) -> float:
    wanted = float(retry_after) if retry_after.isdecimal() else _PAUSE_S * 2 ** (attempt - 1)
    return min(wanted, _LONGEST_PAUSE_S)


def _refused(status: int, content: bytes) -> ToolError:
    said = _plain(content[:300].decode("utf-8", "replace"))
    if status in (401, 403):
        return ToolError(
            f"The search provider refused the key or the request (status {status}). Searching again will not help: go "
            "on without, and tell the person that the search key needs attention.",
            kind="search_key",
        )
    if status in (402, 429, 432, 433):
        return ToolError(
            f"The search provider's limit is reached (status {status}). Do not rephrase the query; go on with what you "
            "have, or fetch addresses you know with web_fetch.",
            kind="search_limit",
        )
    return ToolError(
        f"The search failed ({f'status {status}' if status else 'no answer'}: {said}). Try once more later, or go on "
        "without.",
        kind="search_failed",
    )


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        # A page with status 200 that is no JSON is a bot check or a login, not an empty result.
        raise ToolError(
            "The search provider answered with a page instead of results (a check for robots, or JSON switched off). "
            "This says nothing about the query: do not rephrase it; go on without.",
            kind="search_limit",
        ) from error
    return value if isinstance(value, dict) else {}


def _results(answer: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = answer.get(key)
    return [item for item in found if isinstance(item, dict) and item.get("url")] if isinstance(found, list) else []


def _text(result: dict[str, Any], key: str) -> str:
    """A field on one line, but a page's own text as it is."""
    value = result.get(key)
    if not isinstance(value, str):
        return ""
    return value if key in ("raw_content", "text") else " ".join(value.split())


def _plain(text: str) -> str:
    """Text without HTML tags and entities."""
    return " ".join(html.unescape(_TAG.sub("", text)).split())
