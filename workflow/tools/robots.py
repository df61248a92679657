"""Whether a site's robots.txt lets us read a page (RFC 9309)."""

from time import monotonic
from urllib.parse import urlsplit

from protego import Protego

from workflow.core.errors import BadInput, Forbidden, Unavailable
from workflow.core.fetch import SafeFetcher

AGENT = "Dialtone"
_KEPT_S = 3600.0
_MAX_SITES = 500
_MAX_CHARS = 500_000  # RFC 9309 asks for at least 500 KiB


class Robots:
    """Remembers the rules of the sites that were asked, for an hour."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[float, Protego | None]] = {}

    async def allow(self, url: str, fetcher: SafeFetcher) -> bool:
        """False if the rules forbid `url`, or exist but cannot be had now (5xx, no answer).

        Raises: Forbidden, if the site is not at a public address.
        """
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc}"
        kept = self._rules.get(site)
        if kept is None or kept[0] < monotonic():
            while len(self._rules) >= _MAX_SITES:
                del self._rules[next(iter(self._rules))]
            kept = (monotonic() + _KEPT_S, await _rules(site, fetcher))
            self._rules[site] = kept
        return kept[1] is None or bool(kept[1].can_fetch(url, AGENT))


async def _rules(site: str, fetcher: SafeFetcher) -> Protego | None:
    """None: everything is allowed."""
    try:
        answer = await fetcher.get(f"{site}/robots.txt", follow="all")
    except Forbidden:
        raise
    except (BadInput, Unavailable):
        return Protego.parse("User-agent: *\nDisallow: /")
    if answer.status >= 500:
        return Protego.parse("User-agent: *\nDisallow: /")
    if answer.status != 200:
        return None
    return Protego.parse(answer.body.decode("utf-8", "replace")[:_MAX_CHARS])
