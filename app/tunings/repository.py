"""SQL of tunings that changes no state; the transitions are in `app.core.jobs`."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.core.tables import ModelVersion, Snapshot, Tuning


class TuningRow(NamedTuple):
    """A tuning, what it runs on, and the version it led to."""

    tuning: Tuning
    snapshot: Snapshot
    version: ModelVersion | None

    @property
    def id(self) -> UUID:
        """The tuning's id."""
        return self.tuning.id


def add(session: Session, tuning: Tuning) -> None:
    """Insert `tuning`, and read back what the database filled in."""
    session.add(tuning)
    session.flush()
    session.refresh(tuning)


def get(session: Session, tuning_id: UUID) -> TuningRow | None:
    """Return the tuning, read anew."""
    row = session.execute(
        _rows().where(Tuning.id == tuning_id).execution_options(populate_existing=True)
    ).one_or_none()
    return None if row is None else TuningRow._make(row)


def page(
    session: Session, project_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[TuningRow]:
    """Return the project's tunings in the order they were asked for."""
    query = _rows().where(Tuning.project_id == project_id).order_by(Tuning.id).limit(limit)
    if after is not None:
        query = query.where(Tuning.id > after)
    return [TuningRow._make(row) for row in session.execute(query)]


def _rows() -> Select[Tuning, Snapshot, ModelVersion]:
    return (
        select(Tuning, Snapshot, ModelVersion)
        .join(Snapshot, Snapshot.id == Tuning.snapshot_id)
        .outerjoin(ModelVersion, ModelVersion.tuning_id == Tuning.id)
    )
