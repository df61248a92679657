"""Questions that a run waits on."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from gateway.bodies import Body, Text
from gateway.deps import ServicesDep, ThreadPath, Writer
from gateway.errors import documented

router = APIRouter(prefix="/api/agent/{thread_id}/questions", tags=["questions"])


class AnswerBody(Body):
    answer: Text = Field(min_length=1, max_length=20_000, description="one of the question's choices, or a text")
    note: Text = Field("", max_length=2000, description="why; the agent reads it")


@router.post(
    "/{question_id}/answer", status_code=204, responses=documented(400, 401, 403, 404, 409, 413, 422, 429, 503)
)
async def answer(
    thread_id: ThreadPath,
    question_id: Annotated[str, Path(max_length=128, description="from `approval.requested`")],
    caller: Writer,
    held: ServicesDep,
    body: AnswerBody,
) -> Response:
    """Answers an open question (an approval, a review, a question of the agent). 409 when it is not open."""
    await held.threads.answer(caller, thread_id, question_id, answer=body.answer, note=body.note)
    return Response(status_code=204)
