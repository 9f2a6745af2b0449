"""`/v1/predictions` and `/v1/projects/{project}/predictions`."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator

from app.core import errors
from app.core.clock import UtcTime
from app.core.tables import Decision
from app.http.authentication import Viewer
from app.http.gateway import GatewayDep, ReaderDep
from app.http.numbers import Whole
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route
from app.predictions import search
from app.predictions.provider import PredictionsDep
from app.predictions.repository import Filter
from app.predictions.schemas import PredictionOut, RecordOut
from app.predictions.serving import COMPACT
from app.projects import service as projects
from models.names import printable
from models.trust.reasons import Reason

router = APIRouter(prefix="/v1", tags=["predictions"], route_class=Route)

# Cleaned as what was stored was: no database is asked for what it cannot hold.
_Text = Annotated[
    str | None, Query(max_length=200), AfterValidator(lambda text: text and printable(text))
]


def _filter(  # noqa: PLR0913, PLR0917 - each is something to ask for
    part_id: _Text = None,
    image_id: _Text = None,
    station: _Text = None,
    decision: Decision | None = None,
    reason: Reason | None = None,
    label: _Text = None,
    version: Annotated[Whole | None, Query(ge=1, lt=2**31)] = None,
    since: Annotated[UtcTime | None, Query(description="Made then or later.")] = None,
    until: Annotated[UtcTime | None, Query(description="Made before.")] = None,
    captured_since: Annotated[
        UtcTime | None, Query(description="`Captured-At` then or later.")
    ] = None,
    captured_until: Annotated[UtcTime | None, Query(description="`Captured-At` before.")] = None,
) -> Filter:
    return Filter(
        part_id=part_id,
        image_id=image_id,
        station=station,
        decision=decision,
        reason=reason,
        label=label,
        version=version,
        since=since,
        until=until,
        captured_since=captured_since,
        captured_until=captured_until,
    )


def _as(media_type: str, **content: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: content}}}


FilterDep = Annotated[Filter, Depends(_filter)]


@router.get(
    "/predictions/{prediction}",
    summary="Show a prediction",
    response_model=RecordOut,
    responses=_as("text/plain", example="2;0.9400;7;certain;scratch") | responses(errors.NotFound),
)
def show(
    prediction: UUID,
    principal: Viewer,
    session: ReaderDep,
    predictions: PredictionsDep,
    format: Annotated[  # noqa: A002 - what the caller writes
        Literal["json", "compact"], Query(description="`compact`: at most 254 bytes for a PLC.")
    ] = "json",
) -> RecordOut | Response:
    """Show a prediction, from the moment of its answer on."""
    row = search.get_prediction(session, principal, predictions.records, prediction)
    if format == "compact":
        return Response(PredictionOut.of(row).compact().encode(), media_type=COMPACT)
    return RecordOut.of(row)


@router.get(
    "/predictions/{prediction}/image",
    summary="The image kept with a prediction",
    response_class=Response,
    responses=_as("image/*", schema={"type": "string", "format": "binary"})
    | responses(errors.NotFound, errors.Damaged),
)
def image(
    prediction: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
) -> Response:
    """Answer the bytes as they came, where the project's policy and quota kept them."""
    row = search.get_prediction(session, principal, predictions.records, prediction)
    data, media_type = search.kept_image(gateway.storage, row)
    return Response(data, media_type=media_type)


@router.get(
    "/projects/{project}/predictions",
    summary="Search a project's predictions",
    responses=responses(errors.NotFound),
)
def list_predictions(
    project: UUID, principal: Viewer, session: ReaderDep, page: PageDep, wanted: FilterDep
) -> Page[RecordOut]:
    """List predictions in the order they were made."""
    rows = search.list_predictions(
        session, principal, project, wanted, after=page.after, limit=page.fetch
    )
    return page.page(rows, RecordOut.of)


@router.get(
    "/projects/{project}/predictions.csv",
    summary="Export a project's predictions",
    response_class=StreamingResponse,
    responses=_as("text/csv", example=",".join(search.COLUMNS) + "\r\n")
    | responses(errors.NotFound),
)
def export(
    project: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    wanted: FilterDep,
) -> StreamingResponse:
    """Export predictions as CSV in UTF-8; text that a spreadsheet would run begins with `'`."""
    projects.get_project(session, principal, project)
    headers = {"Content-Disposition": f'attachment; filename="predictions-{project}.csv"'}
    rows = search.export_csv(gateway.database, project, wanted)
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)
