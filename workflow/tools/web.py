"""web_search and web_fetch."""

from pydantic import Field

from workflow.core.config import ToolSettings
from workflow.core.errors import BadInput, Forbidden, ToolError, Unavailable
from workflow.core.events import Effect
from workflow.core.fetch import Fetched, SafeFetcher
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.output import show
from workflow.tools.pages import readable_page
from workflow.tools.robots import Robots
from workflow.tools.search_providers import OFF, Hit, SearchProvider
from workflow.tools.untrusted import fenced

_CONTENT_CHARS = 5000


class SearchArgs(ToolArgs):
    query: str = Field(min_length=1, max_length=400)
    limit: int = Field(5, ge=1, le=20)
    include_content: bool = Field(False, description="also the text of the pages, where the provider has it")


class FetchArgs(ToolArgs):
    url: str = Field(min_length=1, max_length=2000)
    raw: bool = Field(False, description="the source instead of Markdown")


class WebSearch(Tool[SearchArgs]):
    name = "web_search"
    effect = Effect.PURE
    description = "Searches the web; gives titles, addresses and snippets. Read a page with web_fetch; cite addresses."

    def __init__(self, provider: SearchProvider | None = None) -> None:
        self._provider = provider

    async def run(self, args: SearchArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `search_off`, `search_key`, `search_limit`, `search_failed`."""
        if self._provider is None:
            raise ToolError(OFF, kind="search_off")
        hits = await self._provider.search(args.query, limit=args.limit, with_content=args.include_content)
        if not hits:
            return ToolOutput(
                text="Nothing was found. Try fewer or other words.",
                data={"provider": self._provider.name, "results": []},
            )
        text = "\n\n".join(_entry(number, hit) for number, hit in enumerate(hits, 1))
        shown = await show(context, text)
        return ToolOutput(
            text=shown.with_text(
                fenced(shown.text, source=f"search: {args.query}", key=context.effect_key)
            ).with_note(),
            data={
                "provider": self._provider.name,
                "results": [_row(number, hit) for number, hit in enumerate(hits, 1)],
            },
        )


class WebFetch(Tool[FetchArgs]):
    name = "web_fetch"
    effect = Effect.PURE
    description = (
        "Reads a web page as Markdown, or another text from the web. Public addresses only; keeps to robots.txt."
    )

    def __init__(self, settings: ToolSettings) -> None:
        self._settings = settings
        self._robots = Robots()

    async def run(self, args: FetchArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `bad_url`, `address_refused`, `robots`, `unreachable`, `http_error`, `not_text`."""
        settings = self._settings
        try:
            async with SafeFetcher(
                max_bytes=settings.fetch_max_bytes,
                timeout_s=settings.fetch_timeout_s,
                allow_private=settings.fetch_allow_private,
            ) as fetcher:
                answer = await self._get(args.url, fetcher)
        except BadInput as error:
            raise ToolError(f"{error}. Give a full address, e.g. https://example.org/page.", kind="bad_url") from error
        except Forbidden as error:
            raise ToolError(
                f"{error}; web_fetch reaches public addresses only. For a server in the sandbox use curl in bash.",
                kind="address_refused",
            ) from error
        except Unavailable as error:
            raise ToolError(f"{error}. Try again later or use another source.", kind="unreachable") from error
        if answer.location:
            return _elsewhere(answer)
        if answer.status >= 400:
            raise ToolError(_status_text(answer), kind="http_error", status=answer.status)
        return await _output(args, answer, context)

    async def _get(self, url: str, fetcher: SafeFetcher) -> Fetched:
        clean = str(fetcher.checked(url))
        await self._check_robots(clean, fetcher)
        answer = await fetcher.get(clean, follow="same_host")
        if answer.url != clean:
            await self._check_robots(answer.url, fetcher)
        return answer

    async def _check_robots(self, url: str, fetcher: SafeFetcher) -> None:
        if not await self._robots.allow(url, fetcher):
            raise ToolError(
                f"The site's robots.txt does not allow {url.partition('?')[0]} to be read (or cannot be had). Use "
                "another source.",
                kind="robots",
            )


async def _output(args: FetchArgs, answer: Fetched, context: ToolContext) -> ToolOutput:
    title, text = await readable_page(answer, raw=args.raw)
    shown = await show(context, text.strip() or "(the page has no text; it may need JavaScript)")
    note = f"The page is longer than {len(answer.body):,} bytes; the rest was not fetched." if answer.is_cut else ""
    page = f"# {title}\n\n{shown.text}" if title else shown.text
    return ToolOutput(
        text=shown.with_text(fenced(page, source=answer.url, key=context.effect_key)).with_note(note),
        data={"url": answer.url, "status": answer.status, "title": title, "bytes": len(answer.body)},
    )


def _elsewhere(answer: Fetched) -> ToolOutput:
    return ToolOutput(
        text=f"{answer.url} redirects to another host: {answer.location[:2000]}\nIf that is what you want, call "
        "web_fetch with that address.",
        data={"url": answer.url, "status": answer.status, "location": answer.location[:2000]},
    )


def _status_text(answer: Fetched) -> str:
    advice = {
        401: "It needs a login",
        403: "The site refuses",
        404: "There is no such page: check the address or search for it",
        410: "The page was removed",
        429: "The site asks for fewer requests: wait, or use another source",
    }.get(answer.status, "The site has trouble: try later" if answer.status >= 500 else "Check the address")
    return f"{answer.url} answered with status {answer.status}. {advice}."


def _entry(number: int, hit: Hit) -> str:
    lines = [f"{number}. {hit.title or '(no title)'}", f"   {hit.url}"]
    lines += [f"   {hit.date}"] if hit.date else []
    lines += [f"   {hit.snippet}"] if hit.snippet else []
    lines += [hit.content[:_CONTENT_CHARS]] if hit.content else []
    return "\n".join(lines)


def _row(number: int, hit: Hit) -> dict[str, object]:
    row = {"position": number, "title": hit.title[:300], "url": hit.url[:2000], "snippet": hit.snippet[:500]}
    return {**row, "date": hit.date} if hit.date else row
