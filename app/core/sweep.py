"""The sweep of orphans: blobs that no row names."""

from collections.abc import Iterator

import structlog
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from app.core.database import Database
from app.core.storage import Storage
from app.core.tables import (
    BatchImage,
    BatchPart,
    Image,
    ModelVersion,
    PredictionRecord,
    SnapshotImage,
    Tuning,
)

log = structlog.get_logger(__name__)

# Every column that names a blob; a new one must be added here before anything is stored for it.
REFERENCES: tuple[InstrumentedAttribute[str] | InstrumentedAttribute[str | None], ...] = (
    Image.sha256,
    SnapshotImage.sha256,
    Tuning.checkpoint,
    ModelVersion.artifact_sha256,
    ModelVersion.report_sha256,
    PredictionRecord.image_sha256,
    BatchImage.sha256,
    BatchPart.sha256,
)


def sweep_orphans(database: Database, storage: Storage, *, min_age: float) -> int:
    """Remove the blobs that no row names and that were not put for `min_age` seconds.

    A blob is stored before its row is committed: the age protects what is under way. Safe to run in
    many copies.

    Returns:
        How many were removed.
    """
    storage.tidy(min_age)
    old = [blob.sha256 for blob in storage.blobs() if blob.age >= min_age]
    if not old:
        return 0
    named = set(_named(database))
    removed = sum(storage.remove_old(sha256, min_age) for sha256 in old if sha256 not in named)
    if removed:
        log.info("orphans_swept", blobs=removed)
    return removed


def _named(database: Database) -> Iterator[str | None]:
    with database.reading() as session:
        for column in REFERENCES:
            yield from session.scalars(select(column).where(column.is_not(None)).distinct())
