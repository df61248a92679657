"""What both clients do alike with httpx: its options, and when a request is sent again."""

import ssl
from typing import TypedDict

import httpx

from dialtone.errors import Unreachable, api_error
from dialtone.retry import REFUSED_STATUSES, RETRY_STATUSES, backoff_s, read_retry_after

DEFAULT_URL = "http://127.0.0.1:8080"
MAX_PORT = 65_535
CONNECT_TIMEOUT_S = 10.0
RETRY_BASE_S = 0.25
SILENCE_S = 45.0
"""A gateway sends a heartbeat at least every 15 s; three missed ones mean that a stream's connection is dead."""


class HttpOptions(TypedDict):
    base_url: str
    headers: dict[str, str]
    timeout: httpx.Timeout
    limits: httpx.Limits
    verify: ssl.SSLContext | bool
    trust_env: bool


def http_options(url: str, key: str, *, timeout_s: float) -> HttpOptions:
    """The arguments of httpx.Client and httpx.AsyncClient.

    Environment proxies and .netrc are ignored: a key must only ever reach the gateway that was named.
    Raises: ValueError for an address or a key that cannot be one.
    """
    headers = {"User-Agent": "dialtone"}
    address = _address(url)
    if key := key.strip():
        # Checked here because httpx would print the key with what is wrong with it.
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the key holds characters that no key has")
        headers["Authorization"] = f"Bearer {key}"
    secure = address.scheme == "https"
    return {
        "base_url": str(address),
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=10),
        # Building a TLS context takes 20 ms and plain HTTP needs none.
        "verify": ssl.create_default_context() if secure else False,
        "trust_env": False,
    }


def _address(text: str) -> httpx.URL:
    """Where a gateway is."""
    try:
        url = httpx.URL(text.strip().rstrip("/"))
        if url.scheme in ("http", "https") and url.host and not url.query and (url.port or 0) <= MAX_PORT:
            return url
    except httpx.InvalidURL:
        pass
    raise ValueError(f"not the address of a gateway, such as {DEFAULT_URL}: {text!r}")


def stream_timeout(timeout_s: float) -> httpx.Timeout:
    """The timeouts of a stream, which may last for ever but never stay silent."""
    return httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S), read=SILENCE_S)


class Attempts:
    """The tries of one request. `pause_s` is how long to wait before the next one."""

    def __init__(self, repeatable: bool, retries: int) -> None:
        self.pause_s = 0.0
        self._repeatable = repeatable
        self._left = retries
        self._failures = 0

    def answered(self, response: httpx.Response) -> bool:
        """True for a success, False when the request is to be sent again. Raises: ApiError otherwise."""
        if response.is_success:
            return True
        retry_after_s = read_retry_after(response.headers.get("retry-after"))
        error = api_error(response.status_code, response.content, retry_after_s=retry_after_s)
        again = RETRY_STATUSES if self._repeatable else REFUSED_STATUSES
        if response.status_code not in again or not self._spend(retry_after_s):
            raise error
        return False

    def lost(self, error: httpx.TransportError) -> None:
        """No answer came. Raises: Unreachable when the request must not or shall not be sent again."""
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        if not (self._repeatable or never_sent) or not self._spend(None):
            raise Unreachable(f"no answer from the gateway: {str(error) or type(error).__name__}") from error

    def _spend(self, retry_after_s: float | None) -> bool:
        if self._left <= 0:
            return False
        self.pause_s = backoff_s(self._failures, base_s=RETRY_BASE_S, retry_after_s=retry_after_s)
        self._left -= 1
        self._failures += 1
        return True
