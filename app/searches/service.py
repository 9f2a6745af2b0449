"""Searches and learning curves, looked at."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.core.access import Principal
from app.core.errors import NotFound
from app.registry import service as registry
from app.searches import repository
from app.searches.states import result_of, search_of
from app.tunings import service as tunings
from models.learning_curve import LearningCurve
from models.search.result import SearchResult


def get_search(session: Session, principal: Principal, tuning_id: UUID) -> SearchResult:
    """Return the search of a tuning as it stands.

    Raises:
        NotFound: no such tuning, not for this key, or one that searched for nothing.
    """
    tuning = tunings.get_tuning(session, principal, tuning_id).tuning
    search = search_of(tuning)
    if search is None:
        raise NotFound(
            f"The tuning {str(tuning_id)!r} was given its recipe and searched for none.",
            fix='Start one with `{"recipe": "search"}`.',
            field="tuning",
        )
    return result_of(search, repository.trials(session, tuning_id))


def get_learning_curve(session: Session, principal: Principal, model_id: UUID) -> LearningCurve:
    """Return what more images would bring, as it was found when the version was tuned.

    Raises:
        NotFound: no such version, not for this key, or one that was tuned before there were curves.
    """
    row = registry.get_version(session, principal, model_id).row
    found = row.metrics.get("learning_curve")
    if found is None:
        raise NotFound(
            f"The version {row.number} has no learning curve.",
            fix="It was tuned by an older Shotline, or without enough images: tune again.",
            field="model",
        )
    return LearningCurve.model_validate(found)
