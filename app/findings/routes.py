"""`/v1/projects/{project}/findings`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app.core import errors
from app.findings import service
from app.findings.schemas import ExaminationOut, FindingsOut
from app.http.authentication import Engineer, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.pagination import PageDep
from app.http.problems import responses
from app.http.routing import Route
from models.findings.finding import Kind, Severity

router = APIRouter(prefix="/v1", tags=["findings"], route_class=Route)


@router.get(
    "/projects/{project}/findings",
    summary="List what is wrong with a project's images",
    responses=responses(errors.NotFound),
)
def list_findings(
    project: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    page: PageDep,
    kind: Annotated[Kind | None, Query()] = None,
    severity: Annotated[Severity | None, Query()] = None,
) -> FindingsOut:
    """List what the data doctor found when it last looked, the serious first.

    It looks before every tuning, and when it is asked to.
    """
    view = service.list_findings(
        session,
        principal,
        project,
        gateway.storage,
        kind=kind,
        severity=severity,
        after=page.after,
        limit=page.fetch,
    )
    return FindingsOut.of(view, page)


@router.post(
    "/projects/{project}/findings",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Look for what is wrong with a project's images",
    responses=responses(errors.Conflict, errors.Forbidden, errors.NotFound),
)
def start(
    project: UUID,
    principal: Engineer,
    session: SessionDep,
    gateway: GatewayDep,
    response: Response,
) -> ExaminationOut:
    """Have a worker look at the images as they are; the list of findings says how far it is.

    Asked again while one waits for a worker, the answer is that one.
    """
    row = service.start_examination(
        session,
        principal,
        project,
        backbone=gateway.settings.backbone.name,
        queue=gateway.queue,
    )
    response.headers["Location"] = f"/v1/projects/{project}/findings"
    return ExaminationOut.of(row)
