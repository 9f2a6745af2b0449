"""`/v1/tunings/{tuning}/search` and `/v1/models/{model}/learning-curve`."""

from uuid import UUID

from fastapi import APIRouter

from app.core import errors
from app.http.authentication import Viewer
from app.http.gateway import ReaderDep
from app.http.problems import responses
from app.http.routing import Route
from app.searches import service
from models.learning_curve import LearningCurve
from models.search.result import SearchResult

router = APIRouter(prefix="/v1", route_class=Route)


@router.get(
    "/tunings/{tuning}/search",
    tags=["tunings"],
    summary="Show the search for a tuning's recipe",
    responses=responses(errors.NotFound),
)
def search(tuning: UUID, principal: Viewer, session: ReaderDep) -> SearchResult:
    """Show every recipe that was tried, the best so far, and, at the end, which one was taken.

    Accuracies are out of fold inside the training images; the holdout is never looked at.
    """
    return service.get_search(session, principal, tuning)


@router.get(
    "/models/{model}/learning-curve",
    tags=["models"],
    summary="What more images would bring",
    responses=responses(errors.NotFound),
)
def learning_curve(model: UUID, principal: Viewer, session: ReaderDep) -> LearningCurve:
    """Show for each class what 10 more images would probably bring, and which to photograph next.

    From sub-samples of the training images, extrapolated, with 90 % intervals.
    """
    return service.get_learning_curve(session, principal, model)
