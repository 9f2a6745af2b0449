"""SQL of feedback and of the review queue."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased

from app.core.tables import (
    Feedback,
    PredictionRecord,
    Review,
    ShadowAnswer,
    Tuning,
)

# Of so many of a project's last predictions the queue is made, and so many of them are ranked.
LOOKED_AT, RANKED = 20_000, 2_000


class Waiting(NamedTuple):
    """A prediction that somebody should look at, and what others said of its image."""

    prediction: PredictionRecord
    candidate: ShadowAnswer | None
    feedback: str | None


def standing(session: Session, prediction_id: UUID) -> Feedback | None:
    """Return the feedback that counts."""
    query = select(Feedback).where(
        Feedback.prediction_id == prediction_id, Feedback.replaced_at.is_(None)
    )
    return session.scalars(query).one_or_none()


def history(session: Session, prediction_id: UUID) -> Sequence[Feedback]:
    """Return all feedback on a prediction, the first one first."""
    query = select(Feedback).where(Feedback.prediction_id == prediction_id).order_by(Feedback.id)
    return session.scalars(query).all()


def add(session: Session, row: Feedback | Review) -> None:
    """Insert `row`."""
    session.add(row)
    session.flush()


def review(session: Session, prediction_id: UUID) -> Review | None:
    """Return what became of a prediction that waited."""
    return session.get(Review, prediction_id)


def waiting(
    session: Session, project_id: UUID, *, low_probability: float, with_image: bool
) -> Sequence[Waiting]:
    """Return predictions that nobody has reviewed and somebody should, the latest first.

    Args:
        session: the transaction.
        project_id: the project.
        low_probability: what is less sure counts as drifting.
        with_image: only those whose image is kept.
    """
    row = PredictionRecord
    last = (
        select(row.id)
        .where(row.project_id == project_id)
        .order_by(row.id.desc())
        .limit(LOOKED_AT)
        .subquery()
    )
    recent = aliased(row)
    query = (
        select(recent, ShadowAnswer, Feedback.label)
        .join(last, last.c.id == recent.id)
        .outerjoin(ShadowAnswer, ShadowAnswer.prediction_id == recent.id)
        .outerjoin(Feedback, (Feedback.prediction_id == recent.id) & Feedback.replaced_at.is_(None))
        .outerjoin(Review, Review.prediction_id == recent.id)
        .where(
            Review.prediction_id.is_(None),
            or_(
                recent.decision == "undecidable",
                ShadowAnswer.differs.is_(True),
                Feedback.label != recent.label,
                recent.probability < low_probability,
            ),
        )
        .order_by(recent.id.desc())
        .limit(RANKED)
    )
    if with_image:
        query = query.where(recent.image_sha256.is_not(None))
    return [Waiting(*found) for found in session.execute(query)]


def gathered(session: Session, project_id: UUID) -> int:
    """Count the images that reviews added since the last tuning that has not failed."""
    last = (
        select(func.max(Tuning.created_at))
        .where(Tuning.project_id == project_id, Tuning.state.not_in(("failed", "cancelled")))
        .scalar_subquery()
    )
    query = select(func.count()).where(
        Review.project_id == project_id,
        Review.image_id.is_not(None),
        or_(last.is_(None), Review.reviewed_at > last),
    )
    return session.scalar(query) or 0
