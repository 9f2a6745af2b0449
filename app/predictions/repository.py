"""SQL of predictions, and of what the gateway serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, and_, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from app.core.tables import (
    Alias,
    Decision,
    KeepImages,
    ModelVersion,
    PredictionRecord,
    Project,
    Serving,
    ShadowAnswer,
    Table,
)
from app.registry.service import CANDIDATE, PRODUCTION
from models.trust.policy import DEFAULT_POLICY, DecisionPolicy

# Names in one IN list; SQLite takes 32,766 at most.
_MANY = 1000


class Version(NamedTuple):
    """A version, and where its artifact is."""

    id: UUID
    project_id: UUID
    number: int
    artifact_sha256: str


class Served(NamedTuple):
    """What predictions need to know of a project.

    `shadow` answers beside `production`, and its answers are only kept.
    """

    keep_images: KeepImages
    production: Version | None
    decisions: DecisionPolicy = DEFAULT_POLICY
    shadow: Version | None = None


class Revision(NamedTuple):
    """Which change was the last one, and which the last to delete something."""

    last: int
    deleted: int


class Expired(NamedTuple):
    """What one portion of a sweep took.

    Attributes:
        rows: that it looked at; fewer than it was allowed to where there are no more.
        predictions: records that are gone.
        images: kept with them, and not any more.
    """

    rows: int
    predictions: int
    images: int


@dataclass(frozen=True)
class Filter:
    """Which predictions of a project to list; `since` and `until` are of `created_at`."""

    part_id: str | None = None
    image_id: str | None = None
    station: str | None = None
    decision: Decision | None = None
    reason: str | None = None
    label: str | None = None
    version: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    captured_since: datetime | None = None
    captured_until: datetime | None = None


def revision(session: Session) -> Revision:
    """Return how far what gateways serve has changed; one row is read."""
    return Revision(*session.execute(select(Serving.revision, Serving.deleted)).one())


def served(session: Session, *, since: int | None = None) -> dict[UUID, Served]:
    """Return every project, or those that changed after the revision `since`."""
    beside, other = aliased(Alias), aliased(ModelVersion)
    query = (
        select(
            Project.id,
            Project.keep_images,
            Project.decisions,
            ModelVersion.id,
            ModelVersion.number,
            ModelVersion.artifact_sha256,
            other.id,
            other.number,
            other.artifact_sha256,
        )
        .outerjoin(Alias, and_(Alias.project_id == Project.id, Alias.name == PRODUCTION))
        .outerjoin(ModelVersion, ModelVersion.id == Alias.version_id)
        .outerjoin(
            beside,
            and_(
                beside.project_id == Project.id,
                beside.name == CANDIDATE,
                Project.shadow.is_(True),
            ),
        )
        .outerjoin(other, other.id == beside.version_id)
    )
    if since is not None:
        query = query.where(Project.revision > since)
    return {
        project: Served(
            keep,
            _version(project, *versions[:3]),
            DecisionPolicy.model_validate(decisions) if decisions else DEFAULT_POLICY,
            _version(project, *versions[3:]),
        )
        for project, keep, decisions, *versions in session.execute(query)
    }


def _version(
    project: UUID, found: UUID | None, number: int | None, sha256: str | None
) -> Version | None:
    if found is None or number is None or sha256 is None:
        return None
    return Version(found, project, number, sha256)


def version(session: Session, version_id: UUID) -> Version | None:
    """Return the version."""
    query = select(
        ModelVersion.id,
        ModelVersion.project_id,
        ModelVersion.number,
        ModelVersion.artifact_sha256,
    ).where(ModelVersion.id == version_id)
    found = session.execute(query).one_or_none()
    return None if found is None else Version(*found)


def existing(session: Session, version_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the versions that are there."""
    found: set[UUID] = set()
    for start in range(0, len(version_ids), _MANY):
        some = version_ids[start : start + _MANY]
        found.update(session.scalars(select(ModelVersion.id).where(ModelVersion.id.in_(some))))
    return found


def add_all(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert predictions; one that is there already stays.

    A commit whose answer was lost with the connection may have happened: it is tried again.
    """
    _insert_new(session, PredictionRecord, "id", rows)


def add_shadows(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert what the candidate said of predictions; see `add_all`."""
    _insert_new(session, ShadowAnswer, "prediction_id", rows)


def _insert_new(
    session: Session, table: type[Table], key: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).on_conflict_do_nothing(index_elements=[key])
    session.execute(statement, [dict(row) for row in rows])


def get(session: Session, prediction_id: UUID) -> PredictionRecord | None:
    """Return the prediction."""
    return session.get(PredictionRecord, prediction_id)


def page(
    session: Session, project_id: UUID, wanted: Filter, *, after: UUID | None, limit: int
) -> Sequence[PredictionRecord]:
    """Return the project's predictions in the order they were made."""
    row = PredictionRecord
    conditions = {
        row.part_id: wanted.part_id,
        row.image_id: wanted.image_id,
        row.station: wanted.station,
        row.decision: wanted.decision,
        row.reason: wanted.reason,
        row.label: wanted.label,
        row.model_number: wanted.version,
    }
    query = select(row).where(row.project_id == project_id).order_by(row.id).limit(limit)
    query = query.where(*(column == value for column, value in conditions.items() if value))
    for column, since, until in (
        (row.created_at, wanted.since, wanted.until),
        (row.captured_at, wanted.captured_since, wanted.captured_until),
    ):
        if since is not None:
            query = query.where(column >= since)
        if until is not None:
            query = query.where(column < until)
    if after is not None:
        query = query.where(row.id > after)
    return session.scalars(query).all()


def kept_bytes(session: Session, project_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many bytes each project's kept images have."""
    row = PredictionRecord
    query = (
        select(row.project_id, func.sum(row.image_bytes))
        .where(row.project_id.in_(project_ids), row.image_sha256.is_not(None))
        .group_by(row.project_id)
    )
    found = {project_id: int(total or 0) for project_id, total in session.execute(query)}
    return {project_id: found.get(project_id, 0) for project_id in project_ids}


def drop_oldest_images(session: Session, project_id: UUID, surplus: int) -> int:
    """Forget the project's oldest kept images until `surplus` bytes are gone.

    The blobs themselves are swept once nothing names them.

    Returns:
        How many bytes are gone.
    """
    gone = 0
    while gone < surplus:
        oldest = _oldest_images(session, project_id)
        if not oldest:
            break
        names = []
        for prediction_id, size in oldest:
            if gone >= surplus:
                break
            gone += size
            names.append(prediction_id)
        session.execute(
            update(PredictionRecord)
            .where(PredictionRecord.id.in_(names))
            .values(image_sha256=None, image_bytes=None)
            .execution_options(synchronize_session=False)
        )
    return gone


def _oldest_images(session: Session, project_id: UUID) -> list[tuple[UUID, int]]:
    row = PredictionRecord
    query = (
        select(row.id, row.image_bytes)
        .where(row.project_id == project_id, row.image_sha256.is_not(None))
        .order_by(row.id)
        .limit(_MANY)
    )
    return [(prediction_id, size or 0) for prediction_id, size in session.execute(query)]


def delete_expired(session: Session, project_id: UUID, before: UUID, *, limit: int) -> Expired:
    """Delete the project's oldest predictions with ids below `before`, at most `limit`."""
    row = PredictionRecord
    query = select(row.id).where(row.project_id == project_id, row.id < before)
    names = _some_of_the_oldest(session, query, limit)
    gone = session.execute(
        delete(row)
        .where(row.id.in_(names))
        .returning(row.image_sha256)
        .execution_options(synchronize_session=False)
    ).scalars()
    kept = [sha256 is not None for sha256 in gone]
    return Expired(len(names), len(kept), sum(kept))


def drop_expired_images(session: Session, project_id: UUID, before: UUID, *, limit: int) -> Expired:
    """Forget the images kept with the project's predictions below `before`, at most `limit`."""
    row = PredictionRecord
    query = select(row.id).where(
        row.project_id == project_id, row.id < before, row.image_sha256.is_not(None)
    )
    names = _some_of_the_oldest(session, query, limit)
    forgotten = session.execute(
        update(row)
        .where(row.id.in_(names), row.image_sha256.is_not(None))
        .values(image_sha256=None, image_bytes=None)
        .returning(row.id)
        .execution_options(synchronize_session=False)
    ).all()
    return Expired(len(names), 0, len(forgotten))


def _some_of_the_oldest(session: Session, query: Select[UUID], limit: int) -> Sequence[UUID]:
    """Return ids in their order; those that another gateway is at are left to it."""
    query = query.order_by(PredictionRecord.id).limit(limit)
    return session.scalars(query.with_for_update(skip_locked=True)).all()
