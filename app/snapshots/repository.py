"""SQL of snapshots."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.tables import Image, Snapshot, SnapshotImage


def get(session: Session, snapshot_id: UUID) -> Snapshot | None:
    """Return the snapshot."""
    return session.get(Snapshot, snapshot_id)


def find(session: Session, project_id: UUID, digest: str) -> Snapshot | None:
    """Return the project's snapshot with that digest."""
    query = select(Snapshot).where(Snapshot.project_id == project_id, Snapshot.digest == digest)
    return session.scalars(query).one_or_none()


def add(session: Session, snapshot: Snapshot, entries: Sequence[SnapshotImage]) -> None:
    """Insert the snapshot and its entries."""
    session.add(snapshot)
    session.flush()
    session.add_all(entries)
    session.flush()


def entries(session: Session, snapshot_id: UUID) -> list[tuple[SnapshotImage, str]]:
    """Return the entries in their order, each with the name that its image was sent under."""
    query = (
        select(SnapshotImage, Image.file_name)
        .join(Image, Image.id == SnapshotImage.image_id)
        .where(SnapshotImage.snapshot_id == snapshot_id)
        .order_by(SnapshotImage.position)
    )
    return [(row, name) for row, name in session.execute(query)]
