"""The host names under which previews are served, made from `gateway.preview_url`."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from workflow.core.ids import PREVIEW_SECRET


class Names:
    """Tells a preview's host from the console's."""

    def __init__(self, template: str, *, console: str = "") -> None:
        """template: an origin whose first label is `{id}`. console: an address that is no preview's, come what may."""
        self._console = urlsplit(console).netloc.lower()
        parts = urlsplit(template)
        self._scheme = parts.scheme
        self._suffix = parts.netloc.removeprefix("{id}").lower()
        bare = re.escape(self._suffix.partition(":")[0])
        # A proxy in front may leave the port out, or name its own; only the name decides.
        self._host = re.compile(rf"([^.:]+){bare}(?::[0-9]+)?", re.IGNORECASE)

    @property
    def wildcard(self) -> str:
        """All previews, as a Content-Security-Policy names them."""
        return f"{self._scheme}://*{self._suffix}"

    def origin(self, secret: str) -> str:
        """The origin of one preview."""
        return f"{self._scheme}://{secret}{self._suffix}"

    def secret(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The secret in the Host header; empty if it cannot be one; None if this is no preview's host."""
        hosts = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
        if [host.lower() for host in hosts] == [self._console]:
            return None
        # Of two Host headers one may be read here and the other behind us: none is served as the console either.
        found = [match[1].lower() for host in hosts if (match := self._host.fullmatch(host))]
        if not found:
            return None
        return found[0] if len(hosts) == 1 and PREVIEW_SECRET.fullmatch(found[0]) else ""
