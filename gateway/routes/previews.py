"""Links to servers in a thread's sandbox: list them, end them. Runs make them; they are served by `gateway.visits`."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from gateway.deps import Reader, ServicesDep, ThreadPath, Writer
from gateway.errors import documented
from workflow.core.ids import RunId

router = APIRouter(prefix="/api/agent/{thread_id}/previews", tags=["previews"])


class Preview(BaseModel):
    """A link that holds. Whoever has its address can visit, without signing in."""

    id: str = Field(description="names the link; not its secret", examples=["5c0f1be2a94d7763"])
    port: int = Field(description="of the server in the sandbox", examples=[8000])
    url: str = Field(examples=["http://k3v7qm2yw5c6x4jz1n8trb0hda.localhost:8080/"])
    run_id: RunId = Field(description="the run that made it")
    created_at: int = Field(description="milliseconds since 1970")
    expires_at: int = Field(description="milliseconds since 1970")


class PreviewList(BaseModel):
    items: list[Preview]


@router.get("", responses=documented(401, 403, 404, 429, 503))
async def list_previews(thread_id: ThreadPath, caller: Reader, held: ServicesDep) -> PreviewList:
    """The thread's links that have neither expired nor been revoked, oldest first."""
    await held.threads.get(caller, thread_id)
    links = await held.links.of_thread(thread_id)
    return PreviewList(items=[Preview.model_validate(link, from_attributes=True) for link in links])


@router.delete("/{preview_id}", status_code=204, responses=documented(401, 403, 404, 429, 503))
async def revoke_preview(
    thread_id: ThreadPath,
    preview_id: Annotated[str, Path(description="id of the link", max_length=64)],
    caller: Writer,
    held: ServicesDep,
) -> Response:
    """Ends a link. Connections through it are cut within two seconds."""
    await held.threads.get(caller, thread_id)
    await held.links.revoke(thread_id, preview_id)
    return Response(status_code=204)
