"""SQL of what the candidate said of live images."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Subquery, func, select
from sqlalchemy.orm import Session, aliased

from app.core.tables import Decision, Feedback, PredictionRecord, ShadowAnswer

# So many of the last answers are summarised.
WINDOW = 10_000


class Pair(NamedTuple):
    """How often production said one thing and the candidate another."""

    production: Decision
    candidate: Decision
    differs: bool
    images: int


class Example(NamedTuple):
    """An image of which the two say different things, and what somebody says is true."""

    prediction: PredictionRecord
    answer: ShadowAnswer
    feedback: str | None


class Right(NamedTuple):
    """Of the images on which the two differ and somebody said what is true: who was right."""

    production: int
    candidate: int
    neither: int


def pairs(session: Session, project_id: UUID, candidate: UUID, production: UUID) -> list[Pair]:
    """Count what the two said of the last images that both answered."""
    last = _last(project_id, candidate, production)
    query = select(last.c.ours, last.c.theirs, last.c.differs, func.count()).group_by(
        last.c.ours, last.c.theirs, last.c.differs
    )
    return [Pair(*row) for row in session.execute(query)]


def first_id(session: Session, project_id: UUID, candidate: UUID, production: UUID) -> UUID | None:
    """Return the first of the predictions that are counted."""
    last = _last(project_id, candidate, production)
    query = select(last.c.prediction_id).order_by(last.c.prediction_id).limit(1)
    return session.scalar(query)


def examples(
    session: Session, project_id: UUID, candidate: UUID, production: UUID, limit: int
) -> Sequence[Example]:
    """Return the last images of which the two say different things, the latest first."""
    record, answer = PredictionRecord, ShadowAnswer
    query = (
        select(record, answer, Feedback.label)
        .join(answer, answer.prediction_id == record.id)
        .outerjoin(Feedback, (Feedback.prediction_id == record.id) & Feedback.replaced_at.is_(None))
        .where(
            answer.version_id == candidate,
            answer.differs.is_(True),
            answer.project_id == project_id,
            record.model_version_id == production,
        )
        .order_by(record.id.desc())
        .limit(limit)
    )
    return [Example(*row) for row in session.execute(query)]


def right(session: Session, project_id: UUID, candidate: UUID, production: UUID) -> Right:
    """Count who was right of the images on which the two differ, as far as it is known."""
    record, answer = aliased(PredictionRecord), aliased(ShadowAnswer)
    query = (
        select(record.label, answer.label, Feedback.label)
        .join(answer, answer.prediction_id == record.id)
        .join(Feedback, (Feedback.prediction_id == record.id) & Feedback.replaced_at.is_(None))
        .where(
            answer.version_id == candidate,
            answer.differs.is_(True),
            answer.project_id == project_id,
            record.model_version_id == production,
        )
        .limit(WINDOW)
    )
    ours = theirs = neither = 0
    for said, other, true in session.execute(query):
        ours += said == true
        theirs += other == true
        neither += true not in {said, other}
    return Right(ours, theirs, neither)


def _last(project_id: UUID, candidate: UUID, production: UUID) -> Subquery:
    record, answer = PredictionRecord, ShadowAnswer
    return (
        select(
            answer.prediction_id,
            record.decision.label("ours"),
            answer.decision.label("theirs"),
            answer.differs,
        )
        .join(record, record.id == answer.prediction_id)
        .where(
            answer.project_id == project_id,
            answer.version_id == candidate,
            record.model_version_id == production,
        )
        .order_by(answer.prediction_id.desc())
        .limit(WINDOW)
        .subquery()
    )
