"""`/v1/projects/{project}/tunings` and `/v1/tunings`."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Header, Response, status
from fastapi.responses import StreamingResponse

from app.core import errors
from app.http.authentication import Engineer, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route
from app.tunings import service
from app.tunings.events import tuning_events
from app.tunings.schemas import TuningIn, TuningOut
from models.errors import BadDataset, BadName, BadRecipe

router = APIRouter(prefix="/v1", tags=["tunings"], route_class=Route)

_POLL_SECONDS, _KEEP_ALIVE_SECONDS = 0.5, 15.0

_EVENT_EXAMPLE = (
    'id: 1f3c9a0e5b7d2846\nevent: progress\ndata: {"id": "01a20b52-1f0e-7b2c-9a31-5b8c2b9f4d10",'
    ' "state": "running", "progress": {"phase": "tune", "done": 60, "total": 150}}\n\n'
)
_EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"example": _EVENT_EXAMPLE}}}
}


@router.post(
    "/projects/{project}/tunings",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Start a tuning",
    responses=responses(BadDataset, BadName, BadRecipe, errors.Forbidden, errors.NotFound),
)
def start(
    project: UUID,
    body: Annotated[TuningIn, Body(default_factory=TuningIn)],
    principal: Engineer,
    session: SessionDep,
    gateway: GatewayDep,
    response: Response,
) -> TuningOut:
    """Freeze the project's images and classes as they are and queue a tuning of them.

    The recipe is `auto`, hyperparameters, or `search`: then recipes are tried on all workers until
    the budget is spent, each cross-validated inside the training images, and `auto` stays unless
    another one is better than noise could make it.

    Every class needs images of at least two parts for training. From here on the list of classes
    is fixed.
    """
    budget = service.search_budget(
        body.recipe,
        None if body.search is None else body.search.model_dump(exclude_unset=True),
        time_limit_seconds=gateway.settings.tuning.time_limit_seconds,
    )
    row = service.start_tuning(
        session,
        principal,
        project,
        recipe="auto" if body.recipe == "search" else body.recipe,
        seed=body.seed,
        backbone=gateway.settings.backbone.name,
        storage=gateway.storage,
        queue=gateway.queue,
        budget=budget,
    )
    response.headers["Location"] = f"/v1/tunings/{row.id}"
    return TuningOut.of(row)


@router.get(
    "/projects/{project}/tunings",
    summary="List a project's tunings",
    responses=responses(errors.NotFound),
)
def list_tunings(
    project: UUID, principal: Viewer, session: ReaderDep, page: PageDep
) -> Page[TuningOut]:
    """List tunings in the order they were asked for."""
    rows = service.list_tunings(session, principal, project, after=page.after, limit=page.fetch)
    return page.page(rows, TuningOut.of)


@router.get("/tunings/{tuning}", summary="Show a tuning", responses=responses(errors.NotFound))
def show(tuning: UUID, principal: Viewer, session: ReaderDep) -> TuningOut:
    """Show a tuning: its state, how far it is, and what came of it."""
    return TuningOut.of(service.get_tuning(session, principal, tuning))


@router.post(
    "/tunings/{tuning}/cancel",
    summary="Cancel a tuning",
    responses=responses(errors.Conflict, errors.Forbidden, errors.NotFound),
)
def cancel(tuning: UUID, principal: Engineer, session: SessionDep) -> TuningOut:
    """Cancel a tuning; a running one stops within two seconds. Doing it again changes nothing."""
    return TuningOut.of(service.cancel_tuning(session, principal, tuning))


@router.get(
    "/tunings/{tuning}/events",
    summary="Follow a tuning",
    response_class=StreamingResponse,
    responses=_EVENT_STREAM | responses(errors.NotFound),
)
def events(
    tuning: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
) -> StreamingResponse:
    """Follow a tuning by server-sent events.

    `progress` for every change and `end` for the last one, each with the whole tuning as JSON; a
    comment now and then keeps the connection open. Resumes after `Last-Event-ID`.
    """
    stream = tuning_events(
        service.get_tuning(session, principal, tuning),
        gateway.database,
        last_event_id=last_event_id,
        poll_seconds=_POLL_SECONDS,
        keep_alive_seconds=_KEEP_ALIVE_SECONDS,
    )
    headers = {"X-Accel-Buffering": "no"}  # a proxy must not hold events back
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
