"""`/v1/models`, and below a project its models, aliases and rollback."""

import time
from typing import Annotated, Any, Literal
from uuid import UUID

import anyio
from fastapi import APIRouter, Body, Header, Query, Request, Response, status

from app.core import errors
from app.core.database import after_commit
from app.http.authentication import Admin, Engineer, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.pagination import Page, PageDep
from app.http.problems import problem_response, request_id, responses
from app.http.routing import Route
from app.predictions.provider import PredictionsDep
from app.registry import gates, promotion, reports, service
from app.registry.gate_schemas import GatesOut
from app.registry.schemas import AliasIn, AliasOut, ModelOut, MoveOut, ReportOut, RollbackIn
from models.errors import BadName
from models.language import LanguageCode, accepted

router = APIRouter(prefix="/v1", tags=["models"], route_class=Route)

_LOOK_SECONDS = 0.5

# Nothing is loaded and nothing is run, whatever a class is called.
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


def _as(media_type: str, schema: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": schema}}}}


@router.get(
    "/projects/{project}/models",
    summary="List a project's model versions",
    responses=responses(errors.NotFound),
)
def list_models(
    project: UUID, principal: Viewer, session: ReaderDep, page: PageDep
) -> Page[ModelOut]:
    """List versions in their order, each with its aliases and its accuracy."""
    found = service.list_versions(session, principal, project, after=page.after, limit=page.fetch)
    return page.page(found, ModelOut.of)


@router.get("/models/{model}", summary="Show a model version", responses=responses(errors.NotFound))
def show(model: UUID, principal: Viewer, session: ReaderDep) -> ModelOut:
    """Show a version, its aliases and its accuracy."""
    return ModelOut.of(service.get_version(session, principal, model))


@router.delete(
    "/models/{model}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a model version that never served",
    responses=responses(errors.Conflict, errors.Forbidden, errors.NotFound),
)
def delete(model: UUID, principal: Admin, session: SessionDep, predictions: PredictionsDep) -> None:
    """Delete a version that no alias ever named and that decided on nothing; its tuning stays."""
    # Asked before the database: what is not waiting any more is in there.
    decided = predictions.records.waits_for(model)
    service.delete_version(session, principal, model, decided=decided)
    after_commit(session, predictions.models.refresh)


@router.get(
    "/models/{model}/report",
    summary="A version's report",
    response_model=ReportOut,
    responses=_as("text/html", {"type": "string"}) | responses(errors.NotFound, errors.Damaged),
)
def report(
    model: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    format: Annotated[  # noqa: A002 - what the caller writes
        Literal["json", "html"] | None, Query(description="Counts more than Accept.")
    ] = None,
    language: Annotated[
        LanguageCode | None, Query(description="Counts more than Accept-Language.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
    accept_language: Annotated[str, Header(include_in_schema=False)] = "en",
) -> Response:
    """Answer all figures as JSON, or one self-contained page for `Accept: text/html`.

    In English or Japanese.
    """
    found = service.get_version(session, principal, model)
    spoken = language or accepted(accept_language)
    headers = {"Content-Language": spoken, "Vary": "Accept, Accept-Language"}
    if format == "html" or (format is None and "text/html" in accept):
        page = reports.page(session, gateway.storage, found, spoken)
        headers["Content-Security-Policy"] = _REPORT_POLICY
        return Response(page, headers=headers, media_type="text/html; charset=utf-8")
    whole = ReportOut.of(found, reports.document(session, gateway.storage, found, spoken))
    return Response(whole.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/models/{model}/artifact",
    summary="Download a version",
    response_class=Response,
    responses=_as("application/octet-stream", {"type": "string", "format": "binary"})
    | responses(errors.NotFound, errors.Damaged),
)
def artifact(model: UUID, principal: Viewer, session: ReaderDep, gateway: GatewayDep) -> Response:
    """Answer the artifact, a safetensors file that `shotline predict` reads too."""
    row = service.get_version(session, principal, model).row
    headers = {
        "Content-Disposition": f'attachment; filename="shotline-v{row.number}.safetensors"',
        "ETag": f'"{row.artifact_sha256}"',
    }
    data = gateway.storage.read(row.artifact_sha256)
    return Response(data, headers=headers, media_type="application/octet-stream")


@router.get(
    "/models/{model}/gates",
    summary="A version's gates",
    responses=responses(errors.NotFound),
)
async def show_gates(
    model: UUID,
    principal: Viewer,
    gateway: GatewayDep,
    wait: Annotated[
        float, Query(ge=0, le=300, description="Seconds to wait for a run that is under way.")
    ] = 0,
) -> GatesOut:
    """Show what stands between a version and production, with the numbers."""
    give_up_at = time.monotonic() + wait
    while True:
        shown = await gateway.read(
            lambda reader: GatesOut.of(gates.look(reader, principal, model, gateway.settings.gates))
        )
        if shown.state not in {"queued", "running"} or time.monotonic() >= give_up_at:
            return shown
        await anyio.sleep(_LOOK_SECONDS)


@router.post(
    "/models/{model}/gates",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Run a version's gates",
    responses=responses(errors.Forbidden, errors.NotFound, errors.ProjectFrozen),
)
def run_gates(
    model: UUID, principal: Engineer, session: SessionDep, gateway: GatewayDep
) -> GatesOut:
    """Measure a version against what is in production now, on the images as they are now.

    A tuning that succeeds does it by itself. Nothing is started where it is under way.
    """
    found = gates.start(
        session, principal, model, settings=gateway.settings.gates, queue=gateway.queue
    )
    return GatesOut.of(found)


@router.get(
    "/projects/{project}/aliases",
    summary="List a project's aliases",
    responses=responses(errors.NotFound),
)
def list_aliases(project: UUID, principal: Viewer, session: ReaderDep) -> list[AliasOut]:
    """List what each alias names."""
    return [AliasOut.of(found) for found in service.list_aliases(session, principal, project)]


@router.put(
    "/projects/{project}/aliases/{alias}",
    summary="Promote a version",
    response_model=AliasOut,
    responses=responses(
        BadName, errors.Forbidden, errors.GatesNotPassed, errors.NotFound, errors.ProjectFrozen
    ),
)
def promote(
    project: UUID,
    alias: str,
    body: AliasIn,
    principal: Engineer,
    session: SessionDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
    request: Request,
) -> AliasOut | Response:
    """Let an alias name a version; `production` is what predictions are answered by.

    That needs to have passed its gates: else the answer says what stands in the way, and starts
    them where they were not run. This gateway serves it from the answer on, others within a second.
    """
    try:
        found = promotion.promote(
            session,
            principal,
            project,
            alias,
            body.version,
            settings=gateway.settings.gates,
            reason=body.reason,
            override=body.override,
        )
    except errors.GatesNotPassed as error:
        model = UUID(error.gates["model"])
        if error.gates["state"] in {None, "failed", "cancelled"}:
            gates.start(
                session, principal, model, settings=gateway.settings.gates, queue=gateway.queue
            )
        # Answered and not raised: the transaction that starts them is to be committed.
        return problem_response(error, request_id(request))
    after_commit(session, predictions.models.refresh)
    return AliasOut.of(found)


@router.get(
    "/projects/{project}/aliases/{alias}/moves",
    summary="An alias's history",
    responses=responses(BadName, errors.NotFound),
)
def list_moves(
    project: UUID, alias: str, principal: Viewer, session: ReaderDep, page: PageDep
) -> Page[MoveOut]:
    """List every promotion and rollback of an alias, and which key made it."""
    rows = service.list_moves(
        session, principal, project, alias, after=page.after, limit=page.fetch
    )
    return page.page(rows, MoveOut.of)


@router.post(
    "/projects/{project}/rollback",
    summary="Take back a promotion",
    responses=responses(BadName, errors.Conflict, errors.Forbidden, errors.NotFound),
)
def rollback(
    project: UUID,
    body: Annotated[RollbackIn, Body(default_factory=RollbackIn)],
    principal: Engineer,
    session: SessionDep,
    predictions: PredictionsDep,
) -> AliasOut:
    """Let `production`, or another alias, name what it named before; again goes back further."""
    found = service.rollback(session, principal, project, body.alias, reason=body.reason)
    after_commit(session, predictions.models.refresh)
    return AliasOut.of(found)
