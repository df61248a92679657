"""Notices to other servers that could not be delivered: list, deliver again, forget."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field

from gateway.bodies import Cursor, Limit
from gateway.deps import Reader, ServicesDep, Writer
from gateway.errors import documented
from modem.webhooks import DeadNotice, is_notice_id
from workflow.core.errors import NotFound

router = APIRouter(prefix="/api/webhooks", tags=["webhooks"])


class DeadPage(BaseModel):
    items: list[DeadNotice]
    next_cursor: str | None = Field(description="cursor of the next page, null at the end")


async def _notice_path(notice_id: Annotated[str, Path(description="the notice's `webhook-id`")]) -> str:
    if not is_notice_id(notice_id):
        raise NotFound(f"no notice {notice_id}")
    return notice_id


NoticePath = Annotated[str, Depends(_notice_path)]


@router.get("/dead", responses=documented(400, 401, 403, 422, 429, 503))
async def list_dead(caller: Reader, held: ServicesDep, limit: Limit = 50, cursor: Cursor = "") -> DeadPage:
    """The tenant's notices that were given up, newest first. They are kept for 14 days, the newest 1,000 of them."""
    items, next_cursor = await held.webhooks.dead(caller.tenant, limit=limit, cursor=cursor)
    return DeadPage(items=items, next_cursor=next_cursor or None)


@router.post(
    "/{notice_id}/replay", status_code=202, response_class=Response, responses=documented(401, 403, 404, 409, 429, 503)
)
async def replay(notice_id: NoticePath, caller: Writer, held: ServicesDep) -> Response:
    """Delivers a dead notice again, with all its attempts and the same `webhook-id`. 409 while it is not dead."""
    await held.webhooks.replay(caller.tenant, notice_id)
    return Response(status_code=202)


@router.delete("/{notice_id}", status_code=204, responses=documented(401, 403, 404, 429, 503))
async def delete(notice_id: NoticePath, caller: Writer, held: ServicesDep) -> Response:
    """Forgets a notice, dead or still being delivered."""
    await held.webhooks.delete(caller.tenant, notice_id)
    return Response(status_code=204)
