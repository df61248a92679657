"""A provider's failures as errors of our tree: what to retry, what to compact, what to give up.

429, 408, 409, 5xx, cut or silent streams  -> ModelOverloaded, with Retry-After when it was sent
too many tokens, 413                       -> ContextOverflow
any other 4xx, a used-up account           -> ModelRefused
everything else                            -> ModelError
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded, ModelRefused
from workflow.core.texts import sound

MAX_DETAIL_CHARS = 600

_OVERFLOW = re.compile(
    r"context[_ ]length|context window|context size|context limit|maximum context|prompt is too long"
    r"|input is too long|too many (?:input )?tokens(?! per|, please wait)"
    r"|reduce the length|request too large|request_too_large"
    r"|exceeds? the (?:maximum|model's max|limit) (?:number of )?(?:input )?tokens|input token count",
    re.IGNORECASE,
)
# An account without money answers 429 like a rate limit, but waiting does not help. A rate limit may speak of billing
# too (OpenAI's first tier, Gemini), but then it names a time.
_USED_UP = re.compile(r"insufficient_quota|billing|credit balance|payment required", re.IGNORECASE)
_WAIT = re.compile(r"(?:try again|retry) in ((?:\d+(?:\.\d+)?(?:ms|[hms]))+)", re.IGNORECASE)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_LASTING_KIND = re.compile(r"invalid|authentication|permission|not_found|content_filter|unsupported", re.IGNORECASE)


def from_response(status: int, body: bytes, headers: Mapping[str, str], redact: Callable[[str], str]) -> ModelError:
    """The error that an answer stands for that is no stream."""
    kind, detail = _described(body)
    if status == 200:
        return from_stream({"type": kind, "message": detail or "an answer without a stream"}, redact)
    return classified(
        detail or "no reason given", status=status, kind=kind, retry_after_s=retry_after_s(headers), redact=redact
    )


def from_stream(error: object, redact: Callable[[str], str]) -> ModelError:
    """The error that an error object within a stream stands for."""
    kind, detail = _fields({"error": error})
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) else 0
    return classified(detail or "the stream ended with an error", status=status, kind=kind, redact=redact)


def classified(
    detail: str,
    *,
    status: int,
    kind: str = "",
    retry_after_s: float | None = None,
    redact: Callable[[str], str],
) -> ModelError:
    """The error for a provider's words. status: the HTTP status, 0 when none came with it."""
    words = f"{kind} {detail}"
    text = redact(sound(detail).strip())[:MAX_DETAIL_CHARS]
    if retry_after_s is None:
        retry_after_s = _named_wait_s(detail)
    message = f"the model provider answered {status}: {text}" if status else f"the model provider failed: {text}"
    if _OVERFLOW.search(words) or status == 413:
        return ContextOverflow(message, status=status)
    if _USED_UP.search(words) and (retry_after_s is None or "insufficient_quota" in words):
        return ModelRefused(message, status=status)
    if status in _TRANSIENT_STATUS or status > 500 or (not status and not _LASTING_KIND.search(kind)):
        return ModelOverloaded(message, retry_after_s=retry_after_s, status=status)
    if 400 <= status < 500 or not status:
        return ModelRefused(message, status=status)
    return ModelError(message, status=status)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the provider asks to wait, from `retry-after-ms` or `Retry-After` (seconds or a date)."""
    milliseconds = headers.get("retry-after-ms", "")
    if re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    if not value:
        return None
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _named_wait_s(detail: str) -> float | None:
    """The wait in a provider's words: `Please try again in 1m30.5s`."""
    named = _WAIT.search(detail)
    if named is None:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"([\d.]+)(ms|[hms])", named[1].lower()))


def _described(body: bytes) -> tuple[str, str]:
    text = body.decode("utf-8", "replace")
    try:
        return _fields(json.loads(text))
    except (ValueError, RecursionError):
        # A proxy's HTML page: its tags say nothing.
        return "", re.sub(r"\s+", " ", re.sub(r"<[^<>]*>", " ", text)).strip()


def _fields(payload: Any) -> tuple[str, str]:
    """Kind and words of `{"error": {"type", "code", "message"}}` and its usual variants."""
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return "", str(payload)
    error = payload.get("error", payload)
    if not isinstance(error, dict):
        return "", str(error)
    kinds = [str(error[key]) for key in ("type", "code", "status") if error.get(key)]
    return " ".join(kinds), str(error.get("message") or error.get("detail") or json.dumps(error))
