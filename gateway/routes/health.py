"""Whether this gateway can serve, and what stands behind it."""

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway.deps import ServicesDep
from modem.workers import workers
from workflow.core.errors import DialtoneError

router = APIRouter(tags=["health"])


class RedisHealth(BaseModel):
    ok: bool
    version: str = ""
    problem: str = ""


class WorkersHealth(BaseModel):
    alive: int = Field(description="worker processes that said something within 10 s")
    running: int = Field(0, description="runs that they hold")
    capacity: int = Field(0, description="runs that they can hold")


class Health(BaseModel):
    """`ok`; `degraded`: takes runs but no worker is there to do them; `unavailable`: cannot serve (503)."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    redis: RedisHealth
    workers: WorkersHealth
    model: str = Field("", description="default model of the workers")
    sandbox: str = Field("", description="provider and tier of the workers' sandboxes")
    sandbox_gaps: list[str] = Field([], description="what those tiers do not guarantee")
    auth: Literal["on", "off"]
    streams: int = Field(0, description="open streams of this process")


@router.get("/health", responses={503: {"model": Health, "description": "Cannot serve"}})
async def health(held: ServicesDep, response: Response) -> Health:
    """Redis, workers, model, sandbox tier, version. Open to everybody; names nobody's data."""
    auth: Literal["on", "off"] = "on" if held.auth.is_on else "off"
    try:
        redis = RedisHealth(ok=True, version=await held.connections.check())
        alive = await workers(held.connections)
    except DialtoneError as error:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
        away = RedisHealth(ok=False, problem=error.message)
        return Health(
            status="unavailable", version=version("dialtone"), redis=away, workers=WorkersHealth(alive=0), auth=auth
        )
    return Health(
        status="ok" if alive else "degraded",
        version=version("dialtone"),
        redis=redis,
        workers=WorkersHealth(
            alive=len(alive),
            running=sum(worker.running for worker in alive),
            capacity=sum(worker.concurrency for worker in alive),
        ),
        model=", ".join(sorted({worker.model for worker in alive})),
        sandbox=", ".join(sorted({worker.sandbox for worker in alive})),
        sandbox_gaps=sorted({gap for worker in alive for gap in worker.sandbox_gaps}),
        auth=auth,
        streams=held.hub.streams,
    )
