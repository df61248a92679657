"""Failures as HTTP: the only place that knows statuses. Bodies are problem details (RFC 9457) with stable codes.

Programs match on `code`, people read `title` and `detail`; `type` stays `about:blank`, which RFC 9457 allows.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from workflow.core.errors import (
    BadInput,
    Conflict,
    DialtoneError,
    Forbidden,
    Gone,
    LimitExceeded,
    NotFound,
    SandboxError,
    TooLarge,
    ToolError,
    Unauthenticated,
    Unavailable,
)

_log = logging.getLogger(__name__)

_STATUSES: dict[type[DialtoneError], int] = {
    TooLarge: 413,
    BadInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Gone: 410,
    Conflict: 409,
    LimitExceeded: 429,
    Unavailable: 503,
    SandboxError: 503,
    ToolError: 400,
}
"""Looked up in order, a subclass before its base."""

TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not valid",
    429: "Too many requests",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
}
# The only 400 of the framework itself is a body that it cannot parse.
_CODES = {400: "bad_json", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
_CODES |= {408: "request_timeout", 413: "too_large", 415: "unsupported_media_type", 422: "not_valid"}
_MAX_FIELDS = 20


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="where: `body.task`, `query.limit`", examples=["body.task"])
    message: str = Field(examples=["String should have at least 1 character"])
    code: str = Field(description="stable name of the rule", examples=["string_too_short"])


class Problem(BaseModel):
    """What every failure looks like (RFC 9457, `application/problem+json`)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="what happened, for people", examples=["no thread 5f0c"])
    code: str = Field(description="stable, for programs", examples=["not_found"])
    request_id: str = Field("", description="names this request in the logs")
    retryable: bool = Field(False, description="whether the same request may succeed later")
    errors: list[FieldProblem] = Field([], description="what is wrong where, for status 422")


class ProblemResponse(Response):
    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def status_of(error: DialtoneError) -> int:
    """The HTTP status of a failure."""
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """A problem body. `more`: further members, `request_id` among them."""
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    return body | {"code": code, "request_id": "", "retryable": False} | more


def not_valid(faults: Sequence[Mapping[str, Any]], request_id: str) -> dict[str, Any]:
    """The problem body for what Pydantic found."""
    fields = [
        {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"], "code": fault["type"]}
        for fault in faults[:_MAX_FIELDS]
    ]
    detail = "; ".join(f"{field['field']}: {field['message']}" for field in fields[:3])
    return problem(422, "not_valid", detail, request_id=request_id, errors=fields)


def problem_of(error: DialtoneError, request_id: str = "") -> dict[str, Any]:
    """The problem body of a failure. One that is ours to mend says nothing about its cause."""
    status = status_of(error)
    if status == 500:
        return problem(500, "internal", "something went wrong on our side", request_id=request_id)
    details = {name: value for name, value in error.details.items() if name not in Problem.model_fields}
    return problem(status, error.code, error.message, request_id=request_id, retryable=error.retryable, **details)


def headers_of(error: DialtoneError) -> dict[str, str]:
    """Header fields that belong to a failure."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="dialtone"'
    return headers


def respond(error: DialtoneError, request_id: str = "") -> ProblemResponse:
    """The response to a failure."""
    return ProblemResponse(problem_of(error, request_id), status_of(error), headers_of(error))


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id that the middleware gave this request."""
    return str(scope.get("state", {}).get("request_id", ""))


async def _named(request: Request, error: Exception) -> Response:
    assert isinstance(error, DialtoneError)
    if status_of(error) == 500:
        _log.error("request failed: %s", error, exc_info=error)
    return respond(error, request_id_of(request.scope))


async def _invalid(request: Request, error: Exception) -> Response:
    """A request that does not fit: 400 when the body is no JSON at all, else 422 with the fields."""
    assert isinstance(error, RequestValidationError)
    request_id = request_id_of(request.scope)
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        reason = faults[0].get("ctx", {}).get("error", "")
        detail = f"the body is not JSON: {reason}" if reason else "the body is not JSON"
        return ProblemResponse(problem(400, "bad_json", detail, request_id=request_id), 400)
    return ProblemResponse(not_valid(faults, request_id), 422)


async def _http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such route, wrong method, unreadable body."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    code = _CODES.get(status, "http_error")
    body = problem(status, code, str(error.detail), request_id=request_id_of(request.scope))
    headers = dict(error.headers or {})
    if status == 405:
        headers["Allow"] = ", ".join(_allowed(request.app, request.url.path))
    return ProblemResponse(body, status, headers)


def _allowed(app: FastAPI, path: str) -> list[str]:
    """The methods that `path` has. The framework's own `Allow` knows one route of several for the same path."""
    methods: set[str] = set()
    paths = app.openapi()["paths"]
    for template, operations in paths.items() if path not in paths else [(path, paths[path])]:
        pattern, _, _ = compile_path(template.replace("files/{path}", "files/{path:path}"))
        if pattern.fullmatch(path):
            methods.update(method.upper() for method in operations)
    return sorted(methods)


async def _bug(request: Request, error: Exception) -> Response:
    """The last edge: a bug. The log gets everything, the client a request id."""
    request_id = request_id_of(request.scope)
    body = problem(500, "internal", "something went wrong on our side", request_id=request_id)
    return ProblemResponse(body, 500)


def install(app: FastAPI) -> None:
    """Makes `app` answer every failure with a problem body."""
    app.add_exception_handler(DialtoneError, _named)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: a problem body for each of `statuses`."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}
