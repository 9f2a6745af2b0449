"""`/livez`: this process answers. `/readyz`: it can decide, and how its parts are."""

import anyio
import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.http.gateway import GatewayDep, HealthCheck

log = structlog.get_logger(__name__)

router = APIRouter(tags=["health"])

_PATIENCE = 3.0


class Liveness(BaseModel):
    """The process answers."""

    status: str = Field("alive", examples=["alive"])


class Readiness(BaseModel):
    """Whether the gateway can decide on images, and how each part is."""

    status: str = Field(description="`ready`, `degraded` or `not ready`.", examples=["ready"])
    parts: dict[str, str] = Field(
        description="`ok`, `failed` or `no answer`.",
        examples=[
            {
                "keys": "ok",
                "database": "ok",
                "audit": "ok",
                "storage": "ok",
                "disk": "ok",
                "queue": "ok",
                "backbone": "ok",
                "models": "ok",
            }
        ],
    )
    about: dict[str, str] = Field(
        description="What there is to say of a part, such as the engine that was chosen.",
        examples=[{"backbone": "openvino 71 images/s in batches of 16; torch 29 images/s …"}],
    )


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Liveness:
    """Answer as long as the process does."""
    return Liveness(status="alive")


@router.get(
    "/readyz",
    summary="Can the gateway decide on images?",
    responses={503: {"model": Readiness, "description": "No decision can be made"}},
)
async def readyz(gateway: GatewayDep, response: Response) -> Readiness:
    """Ask every part.

    200 while decisions can be made: `ready`, or `degraded` where the database, the storage or the
    queue cannot be used, so that all else waits, or a disk is nearly full, see `about`.
    503 where the backbone, the keys or the models were never loaded.
    """
    parts: dict[str, str] = {}
    async with anyio.create_task_group() as group:
        for check in gateway.checks:
            group.start_soon(_ask, check, parts, gateway.failing)
    failed = [check for check in gateway.checks if parts[check.name] != "ok"]
    status = "ready"
    if any(check.required for check in failed):
        status, response.status_code = "not ready", 503
    elif failed:
        status = "degraded"
    return Readiness(
        status=status,
        parts={check.name: parts[check.name] for check in gateway.checks},
        about={check.name: check.about() for check in gateway.checks if check.about is not None},
    )


async def _ask(check: HealthCheck, parts: dict[str, str], failing: set[str]) -> None:
    parts[check.name] = "no answer"
    with anyio.move_on_after(_PATIENCE):
        try:
            await anyio.to_thread.run_sync(check.check, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the part cannot be used
            if check.name not in failing:  # one line for an outage, not one for each question
                log.warning("not_ready", part=check.name, error=str(error))
            failing.add(check.name)
            parts[check.name] = "failed"
        else:
            failing.discard(check.name)
            parts[check.name] = "ok"
