"""Everything this client raises.

ClientError              `code` is stable, the text is for people
├── Unreachable          no usable answer: refused, no such host, timed out, still overloaded after the retries
├── ProtocolError        an answer that no Dialtone gateway gives
└── ApiError             a problem body (RFC 9457): status, code, detail, request_id, retry_after_s
    ├── BadRequest       400, 413, 415, 422
    ├── Unauthenticated  401
    ├── Forbidden        403
    ├── NotFound         404, 410
    ├── Conflict         409
    ├── TooManyRequests  429
    └── ServerError      5xx
"""

import json
from typing import Any


class ClientError(Exception):
    """Base of every failure of the client."""

    code = "client_error"


class Unreachable(ClientError):
    code = "unreachable"


class ProtocolError(ClientError):
    code = "protocol_error"


class ApiError(ClientError):
    """The gateway refused. `problem` is the whole body, for fields beyond the common ones."""

    def __init__(self, status: int, problem: dict[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or f"http_{status}")
        self.detail = str(problem.get("detail") or problem.get("title") or f"the gateway answered {status}")
        self.request_id = str(problem.get("request_id") or "")
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.detail} ({self.code})")


class BadRequest(ApiError): ...


class Unauthenticated(ApiError): ...


class Forbidden(ApiError): ...


class NotFound(ApiError): ...


class Conflict(ApiError): ...


class TooManyRequests(ApiError): ...


class ServerError(ApiError): ...


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: TooManyRequests,
}


def api_error(status: int, body: bytes | str, *, retry_after_s: float | None = None) -> ApiError:
    """The typed error of an answer with `status`; a body that is no problem body gives an error all the same."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    return kind(status, problem, retry_after_s=retry_after_s)
