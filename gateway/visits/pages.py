"""What a visitor reads when a preview does not answer: a page in a browser, a problem body in a program."""

from html import escape

from starlette.responses import Response

from gateway.errors import ProblemResponse, headers_of, problem, status_of
from workflow.core.errors import DialtoneError, Gone, NotFound, SandboxError, Unavailable

_ADVICE: dict[type[DialtoneError], tuple[str, str]] = {
    Gone: ("This preview has ended", "It expired or was revoked. Ask the agent for a new link."),
    NotFound: ("No such preview", "The address is not one of a preview. Look at it again, or ask for a new link."),
    SandboxError: (
        "The preview does not answer",
        "The server in the sandbox was stopped, is busy, or ended when the sandbox was put away unused. "
        "Ask the agent to start it again; this link stays the same.",
    ),
    Unavailable: ("The preview cannot be reached now", "Try again in a moment."),
}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto 0; padding: 0 1.5rem;
    color: #1c1e21; background: #fff }}
  h1 {{ font-size: 1.25rem }} p {{ margin: .5rem 0 }} .why {{ color: #65686c; font-size: .875rem }}
  @media (prefers-color-scheme: dark) {{ body {{ color: #e4e6eb; background: #18191a }} .why {{ color: #a0a3a8 }} }}
</style>
<h1>{title}</h1><p>{advice}</p><p class="why">{status} · {why}</p></html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def status(error: DialtoneError) -> int:
    """As everywhere, but a sandbox that does not answer is a bad gateway: we are one here."""
    return 502 if isinstance(error, SandboxError) else status_of(error)


def refusal(error: DialtoneError, *, as_page: bool, request_id: str) -> Response:
    """The response that says what is wrong and what to do."""
    code = status(error)
    headers = _HEADERS | headers_of(error)
    if not as_page:
        body = problem(code, error.code, error.message, request_id=request_id, retryable=error.retryable)
        return ProblemResponse(body, code, headers)
    title, advice = next(
        (words for kind, words in _ADVICE.items() if isinstance(error, kind)), ("The request was refused", "")
    )
    page = _PAGE.format(title=escape(title), advice=escape(advice), status=code, why=escape(error.message))
    return Response(page, code, headers, media_type="text/html")
