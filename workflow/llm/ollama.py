"""A local Ollama server: whether one answers, and with which models."""

import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

_TIMEOUT_S = 0.3  # it runs on this machine or the next; the start must not wait for it


def ollama_url(environ: Mapping[str, str]) -> str:
    """Where Ollama listens: `OLLAMA_HOST`, else its usual address."""
    host = environ.get("OLLAMA_HOST", "").strip() or "127.0.0.1:11434"
    url = host if "://" in host else f"http://{host}"
    # A server told to listen on every address is asked on this machine.
    return url.replace("://0.0.0.0", "://127.0.0.1").rstrip("/")


def ollama_models(url: str) -> tuple[str, ...]:
    """Names of the models it has, newest first; empty when none answers within a moment. Blocks up to 0.6 s."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port or 11434, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/api/tags")
        response = connection.getresponse()
        listed = json.loads(response.read(1_000_000))["models"] if response.status == 200 else []
        return tuple(str(model["name"]) for model in listed)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ()  # nothing there, or something else listens on that port
    finally:
        connection.close()
