"""Predictions that were made: found, shown, exported."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from app.core.access import Principal
from app.core.database import Database
from app.core.errors import NotFound
from app.core.media_types import MEDIA_TYPES
from app.core.spreadsheet import cell, csv_bytes
from app.core.storage import Storage
from app.core.tables import PredictionRecord
from app.predictions import repository
from app.predictions.records import RecordWriter
from app.predictions.repository import Filter
from app.projects import service as projects
from models.imaging import check_image

COLUMNS = (
    "prediction_id",
    "created_at",
    "image_id",
    "part_id",
    "station",
    "captured_at",
    "decision",
    "reason",
    "label",
    "probability",
    "version",
    "model_digest",
)
_PORTION = 1000


def get_prediction(
    session: Session, principal: Principal, writer: RecordWriter, prediction_id: UUID
) -> PredictionRecord:
    """Return a prediction, written yet or not.

    Raises:
        NotFound: no such prediction, or not for this key.
    """
    row = writer.pending(prediction_id) or repository.get(session, prediction_id)
    if row is None:
        raise NotFound.of("prediction", prediction_id)
    principal.require_project(row.project_id, "prediction", prediction_id)
    return row


def list_predictions(
    session: Session,
    principal: Principal,
    project_id: UUID,
    wanted: Filter,
    *,
    after: UUID | None,
    limit: int,
) -> Sequence[PredictionRecord]:
    """Return the project's predictions in the order they were made.

    Raises:
        NotFound: no such project, or not for this key.
    """
    projects.get_project(session, principal, project_id)
    return repository.page(session, project_id, wanted, after=after, limit=limit)


def export_csv(database: Database, project_id: UUID, wanted: Filter) -> Iterator[bytes]:
    """Yield the project's predictions as CSV (RFC 4180) in UTF-8, some hundred at a time."""
    yield csv_bytes([COLUMNS])
    after: UUID | None = None
    while True:
        with database.reading() as session:
            rows = repository.page(session, project_id, wanted, after=after, limit=_PORTION)
            portion = csv_bytes([_line(row) for row in rows])
        if portion:
            yield portion
        if len(rows) < _PORTION:
            return
        after = rows[-1].id


def kept_image(storage: Storage, row: PredictionRecord) -> tuple[bytes, str]:
    """Return the bytes and the media type of the image that was kept with a prediction.

    Raises:
        NotFound: none was, or not any more.
    """
    if row.image_sha256 is None:
        raise NotFound(
            f"No image is kept with the prediction {str(row.id)!r}.",
            fix="See keep_images of the project: none, undecidable or all, under a quota.",
            field="prediction",
        )
    data = storage.read(row.image_sha256)
    return data, MEDIA_TYPES[check_image(data).format]


def _line(row: PredictionRecord) -> list[str]:
    return [
        str(row.id),
        row.created_at.isoformat(),
        cell(row.image_id),
        cell(row.part_id),
        cell(row.station),
        row.captured_at.isoformat() if row.captured_at else "",
        row.decision,
        row.reason or "",
        cell(row.label),
        f"{row.probability:.6f}",
        str(row.model_number),
        row.model_digest,
    ]
