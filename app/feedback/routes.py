"""Feedback on predictions, the review queue, and tuning again on what was gathered."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response, status

from app.core import errors
from app.feedback import service
from app.feedback.schemas import (
    FeedbackIn,
    FeedbackOut,
    QueueOut,
    ReviewIn,
    ReviewOut,
    TuneAgainIn,
)
from app.http.authentication import Engineer, Operator, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.numbers import Whole
from app.http.problems import responses
from app.http.routing import Route
from app.predictions.provider import PredictionsDep
from app.tunings.schemas import TuningOut
from models.errors import BadDataset, BadInput, BadName, BadRecipe

router = APIRouter(prefix="/v1", tags=["feedback"], route_class=Route)

# What was just answered is written within a second; whoever speaks of it at once waits for that.
_WRITTEN_SECONDS = 3.0


@router.post(
    "/predictions/{prediction}/feedback",
    summary="Say what an image truly shows",
    responses=responses(
        BadName, errors.BadReference, errors.Conflict, errors.Forbidden, errors.NotFound
    ),
)
def give(
    prediction: UUID,
    body: FeedbackIn,
    principal: Operator,
    session: SessionDep,
    predictions: PredictionsDep,
) -> FeedbackOut:
    """Say the true label.

    The same one again changes nothing; another one replaces it, and both are kept.
    """
    predictions.records.wait_until_written(prediction, _WRITTEN_SECONDS)
    found = service.give(
        session, principal, predictions.records, prediction, label=body.label, note=body.note
    )
    return FeedbackOut.of(found)


@router.get(
    "/predictions/{prediction}/feedback",
    summary="What was said of an image",
    responses=responses(errors.NotFound),
)
def list_feedback(
    prediction: UUID, principal: Viewer, session: ReaderDep, predictions: PredictionsDep
) -> list[FeedbackOut]:
    """List what was said, the first one first; the one that was not replaced counts."""
    rows = service.history(session, principal, predictions.records, prediction)
    return [FeedbackOut.of(row) for row in rows]


@router.get(
    "/projects/{project}/review",
    summary="Predictions that somebody should look at",
    responses=responses(errors.NotFound),
)
def show_queue(
    project: UUID,
    principal: Viewer,
    session: ReaderDep,
    limit: Annotated[Whole, Query(ge=1, le=500, description="Predictions to list.")] = 50,
    with_image: Annotated[
        bool, Query(description="Only those whose image is kept, and can be tuned on.")
    ] = True,
) -> QueueOut:
    """List predictions that are undecidable, disagreed with or unlike what the version knows.

    Most informative first; what was reviewed is not in it any more.
    """
    found = service.queue(session, principal, project, limit=limit, with_image=with_image)
    return QueueOut.of(found)


@router.post(
    "/predictions/{prediction}/review",
    summary="Keep, relabel or discard an image",
    responses=responses(
        BadInput,
        errors.BadReference,
        errors.Conflict,
        errors.Damaged,
        errors.Forbidden,
        errors.NotFound,
        errors.ProjectFrozen,
    ),
)
def review(
    prediction: UUID,
    body: ReviewIn,
    principal: Engineer,
    session: SessionDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
) -> ReviewOut:
    """Take a prediction out of the queue.

    The image that was kept with it becomes one of the project's, for training, or does not.
    """
    predictions.records.wait_until_written(prediction, _WRITTEN_SECONDS)
    made = service.review(
        session,
        principal,
        predictions.records,
        gateway.storage,
        gateway.disk.guarded(gateway.storage),
        prediction,
        action=body.action,
        label=body.label,
    )
    return ReviewOut.of(made)


@router.post(
    "/projects/{project}/review/tune",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Tune again on what was gathered",
    responses=responses(
        BadDataset,
        BadName,
        BadRecipe,
        errors.Conflict,
        errors.Forbidden,
        errors.NotFound,
        errors.ProjectFrozen,
    ),
)
def tune(
    project: UUID,
    body: Annotated[TuneAgainIn, Body(default_factory=TuneAgainIn)],
    principal: Engineer,
    session: SessionDep,
    gateway: GatewayDep,
    response: Response,
) -> TuningOut:
    """Queue a tuning of all images, those that reviews added among them.

    By the recipe and the seed of what is in production; what comes of it is the next candidate.
    """
    row = service.tune(
        session,
        principal,
        project,
        recipe=body.recipe,
        seed=body.seed,
        backbone=gateway.settings.backbone.name,
        storage=gateway.storage,
        queue=gateway.queue,
    )
    response.headers["Location"] = f"/v1/tunings/{row.id}"
    return TuningOut.of(row)
