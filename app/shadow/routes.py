"""`/v1/projects/{project}/shadow`."""

from uuid import UUID

from fastapi import APIRouter

from app.core import errors
from app.core.database import after_commit
from app.http.authentication import Engineer, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.problems import responses
from app.http.routing import Route
from app.predictions.provider import PredictionsDep
from app.predictions.service import Predictions
from app.shadow import service
from app.shadow.schemas import ShadowIn, ShadowOut
from models.errors import ArtifactMismatch, ShotlineError

router = APIRouter(prefix="/v1/projects/{project}", tags=["models"], route_class=Route)


@router.get(
    "/shadow",
    summary="The candidate beside production",
    responses=responses(errors.NotFound),
)
def show(
    project: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
) -> ShadowOut:
    """Show what the candidate said of live images, how it differs, and whether images drift."""
    found = service.look(
        session,
        principal,
        project,
        backbone_digest=_digest(predictions),
        settings=gateway.settings.gates,
    )
    return ShadowOut.of(found)


@router.put(
    "/shadow",
    summary="Let the candidate answer beside production",
    responses=responses(
        ArtifactMismatch, errors.Conflict, errors.Forbidden, errors.NotFound, errors.ProjectFrozen
    ),
)
def switch(
    project: UUID,
    body: ShadowIn,
    principal: Engineer,
    session: SessionDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
) -> ShadowOut:
    """Switch it on or off; what it says is kept, and counts for nothing.

    The line does not wait for it: an image is encoded once, and the candidate scores the same
    features afterwards.
    """
    digest = _digest(predictions)
    service.switch(session, principal, project, enabled=body.enabled, backbone_digest=digest)
    after_commit(session, predictions.models.refresh)
    found = service.look(
        session, principal, project, backbone_digest=digest, settings=gateway.settings.gates
    )
    return ShadowOut.of(found)


def _digest(predictions: Predictions) -> str | None:
    """Return the digest of the gateway's backbone, None where it is not loaded."""
    try:
        return predictions.batcher.encoder().digest
    except ShotlineError:
        return None
