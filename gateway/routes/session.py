"""The console's sign-in: an API key is exchanged for a cookie that scripts cannot read."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, SecretStr

from gateway.auth import COOKIE, SESSION_S
from gateway.bodies import Body
from gateway.deps import ServicesDep
from gateway.errors import documented
from modem.tickets import digest
from workflow.core.records import Caller

router = APIRouter(prefix="/api/session", tags=["session"])


class SignInBody(Body):
    key: SecretStr = Field(description="an API key", max_length=200)


class Session(BaseModel):
    """Who is signed in."""

    tenant: str
    user: str
    scopes: list[str]


@router.post("", responses=documented(400, 401, 403, 413, 422, 429, 503))
async def sign_in(request: Request, response: Response, held: ServicesDep, body: SignInBody) -> Session:
    """Sets a cookie that stands for the key, for a week or until the key is revoked."""
    held.auth.check_origin(request)
    caller = held.auth.key_caller(body.key.get_secret_value())
    secret = await held.tickets.open_session(caller, ttl_s=SESSION_S)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=SESSION_S,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _session(caller)


@router.get("", responses=documented(401, 403, 503))
async def who(request: Request, held: ServicesDep) -> Session:
    """Who the caller is, by whatever credential."""
    return _session(await held.auth.caller(request))


@router.delete("", status_code=204, responses=documented(403, 503))
async def sign_out(request: Request, held: ServicesDep) -> Response:
    """Ends the session of the cookie that came along. Its open streams end at their next check."""
    held.auth.check_origin(request)
    secret = request.cookies.get(COOKIE)
    if secret:
        await held.tickets.end_session(digest(secret))
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def _session(caller: Caller) -> Session:
    return Session(tenant=caller.tenant, user=caller.user, scopes=sorted(caller.scopes))
