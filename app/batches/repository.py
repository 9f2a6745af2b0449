"""SQL of batches that changes no state; the transitions are in `app.core.jobs`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, delete, insert, select
from sqlalchemy.orm import Session

from app.core.jobs import FINAL
from app.core.tables import Batch, BatchImage, BatchPart, ModelVersion


class BatchRow(NamedTuple):
    """A batch and the version that decides."""

    batch: Batch
    version: ModelVersion

    @property
    def id(self) -> UUID:
        """The batch's id."""
        return self.batch.id


def add(session: Session, batch: Batch, images: Iterable[Mapping[str, Any]]) -> None:
    """Insert `batch` with its images, and read back what the database filled in."""
    session.add(batch)
    session.flush()
    rows = [{"batch_id": batch.id} | dict(image) for image in images]
    session.execute(insert(BatchImage), rows)
    session.refresh(batch)


def get(session: Session, batch_id: UUID) -> BatchRow | None:
    """Return the batch, read anew."""
    query = _rows().where(Batch.id == batch_id).execution_options(populate_existing=True)
    row = session.execute(query).one_or_none()
    return None if row is None else BatchRow._make(row)


def page(
    session: Session, project_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[BatchRow]:
    """Return the project's batches in the order they were asked for."""
    query = _rows().where(Batch.project_id == project_id).order_by(Batch.id).limit(limit)
    if after is not None:
        query = query.where(Batch.id > after)
    return [BatchRow._make(row) for row in session.execute(query)]


def remove_finished(session: Session, batch_id: UUID) -> bool:
    """Delete the batch with its images and results; False where it has not ended."""
    query = delete(Batch).where(Batch.id == batch_id, Batch.state.in_(FINAL)).returning(Batch.id)
    return session.scalar(query) is not None


def images(session: Session, batch_id: UUID, *, start: int, count: int) -> Sequence[BatchImage]:
    """Return `count` images from the place `start` on."""
    query = (
        select(BatchImage)
        .where(
            BatchImage.batch_id == batch_id,
            BatchImage.position >= start,
            BatchImage.position < start + count,
        )
        .order_by(BatchImage.position)
    )
    return session.scalars(query).all()


def parts(session: Session, batch_id: UUID) -> Sequence[BatchPart]:
    """Return the parts of the result that there are, in their order."""
    query = select(BatchPart).where(BatchPart.batch_id == batch_id).order_by(BatchPart.position)
    return session.scalars(query).all()


def _rows() -> Select[Batch, ModelVersion]:
    return select(Batch, ModelVersion).join(ModelVersion, ModelVersion.id == Batch.model_version_id)
