"""SQL of model versions and aliases."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.tables import Alias, AliasMove, Batch, ModelVersion, PredictionRecord


def get(session: Session, version_id: UUID) -> ModelVersion | None:
    """Return the version."""
    return session.get(ModelVersion, version_id)


def by_number(session: Session, project_id: UUID, number: int) -> ModelVersion | None:
    """Return the project's version of that number."""
    query = select(ModelVersion).where(
        ModelVersion.project_id == project_id, ModelVersion.number == number
    )
    return session.scalars(query).one_or_none()


def next_number(session: Session, project_id: UUID) -> int:
    """Return the number of the next version; the transaction holds the project locked."""
    last = session.scalar(
        select(func.max(ModelVersion.number)).where(ModelVersion.project_id == project_id)
    )
    return (last or 0) + 1


def add(session: Session, version: ModelVersion) -> None:
    """Insert `version`."""
    session.add(version)
    session.flush()


def page(
    session: Session, project_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[ModelVersion]:
    """Return the project's versions in their order."""
    query = (
        select(ModelVersion)
        .where(ModelVersion.project_id == project_id)
        .order_by(ModelVersion.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(ModelVersion.id > after)
    return session.scalars(query).all()


def names_of(session: Session, version_ids: Iterable[UUID]) -> dict[UUID, list[str]]:
    """Return the aliases of the versions, in alphabetical order."""
    query = select(Alias).where(Alias.version_id.in_(list(version_ids))).order_by(Alias.name)
    names: dict[UUID, list[str]] = defaultdict(list)
    for alias in session.scalars(query):
        names[alias.version_id].append(alias.name)
    return names


def alias(session: Session, project_id: UUID, name: str) -> Alias | None:
    """Return the alias."""
    return session.get(Alias, (project_id, name))


def aliases(session: Session, project_id: UUID) -> Sequence[tuple[Alias, ModelVersion]]:
    """Return the project's aliases and what they name, in alphabetical order."""
    query = (
        select(Alias, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Alias.version_id)
        .where(Alias.project_id == project_id)
        .order_by(Alias.name)
    )
    return [(row, version) for row, version in session.execute(query)]


def move(session: Session, record: AliasMove) -> Alias:
    """Let the alias name `record.to_version_id` and record the move."""
    row = alias(session, record.project_id, record.alias)
    if row is None:
        row = Alias(project_id=record.project_id, name=record.alias)
        session.add(row)
    row.version_id = record.to_version_id
    row.moved_at = utc_now()
    session.add(record)
    session.flush()
    return row


def moves(session: Session, project_id: UUID, name: str) -> Sequence[AliasMove]:
    """Return every move of the alias, the first one first."""
    query = (
        select(AliasMove)
        .where(AliasMove.project_id == project_id, AliasMove.alias == name)
        .order_by(AliasMove.id)
    )
    return session.scalars(query).all()


def move_page(
    session: Session, project_id: UUID, name: str, *, after: UUID | None, limit: int
) -> Sequence[AliasMove]:
    """Return moves of the alias, the first one first."""
    query = (
        select(AliasMove)
        .where(AliasMove.project_id == project_id, AliasMove.alias == name)
        .order_by(AliasMove.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(AliasMove.id > after)
    return session.scalars(query).all()


def was_ever_named(session: Session, version_id: UUID) -> bool:
    """Say whether an alias names or ever named the version by somebody's wish.

    What a tuning made the candidate goes with its alias.
    """
    named = or_(AliasMove.to_version_id == version_id, AliasMove.from_version_id == version_id)
    return bool(session.scalar(select(exists().where(named, AliasMove.automatic.is_(False)))))


def has_predictions(session: Session, version_id: UUID) -> bool:
    """Say whether anything was predicted by the version."""
    return bool(
        session.scalar(select(exists().where(PredictionRecord.model_version_id == version_id)))
    )


def has_batches(session: Session, version_id: UUID) -> bool:
    """Say whether a batch was or is to be decided on by the version."""
    return bool(session.scalar(select(exists().where(Batch.model_version_id == version_id))))
