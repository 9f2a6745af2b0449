"""What rows must say of each other, beside what the database itself sees to."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.jobs import FINAL, KINDS
from app.core.tables import (
    Alias,
    AliasMove,
    AuditEntry,
    AuditHead,
    Batch,
    BatchImage,
    BatchPart,
    Examination,
    Feedback,
    GateRun,
    Image,
    Job,
    ModelVersion,
    PredictionRecord,
    Project,
    ProjectClass,
    Review,
    SearchTrial,
    Serving,
    ShadowAnswer,
    Snapshot,
    SnapshotImage,
    Table,
    Tuning,
)
from app.maintenance.findings import Finding

_RESTORE = "Restore a backup; no code of Shotline writes such a row."
_MOST = 50  # findings of one kind; a damaged table has thousands of the same


class _Owned(NamedTuple):
    """A column that refers to something which has to be of the same project."""

    column: InstrumentedAttribute[Any]
    parent: Any
    says: str
    fix: str = _RESTORE


_OWNED: Final = (
    _Owned(Image.class_id, ProjectClass, "its class"),
    _Owned(Tuning.snapshot_id, Snapshot, "its snapshot"),
    _Owned(SearchTrial.tuning_id, Tuning, "its tuning"),
    _Owned(ModelVersion.tuning_id, Tuning, "its tuning"),
    _Owned(
        Alias.version_id,
        ModelVersion,
        "the version that it names",
        "Promote a version of its own project in its place.",
    ),
    _Owned(AliasMove.to_version_id, ModelVersion, "the version that it moved to"),
    _Owned(AliasMove.from_version_id, ModelVersion, "the version that it moved from"),
    _Owned(PredictionRecord.model_version_id, ModelVersion, "its version"),
    _Owned(Batch.model_version_id, ModelVersion, "its version"),
    _Owned(GateRun.version_id, ModelVersion, "its version"),
    _Owned(GateRun.against_id, ModelVersion, "the version that it was measured against"),
    _Owned(ShadowAnswer.prediction_id, PredictionRecord, "its prediction"),
    _Owned(ShadowAnswer.version_id, ModelVersion, "its version"),
    _Owned(Feedback.prediction_id, PredictionRecord, "its prediction"),
    _Owned(Review.prediction_id, PredictionRecord, "its prediction"),
    _Owned(Review.image_id, Image, "the image that it added"),
    _Owned(Examination.tuning_id, Tuning, "its tuning"),
)


def check_rows(session: Session) -> Iterator[Finding]:
    """Yield what rows of the present revision contradict each other in."""
    yield from _owners(session)
    yield from _jobs(session)
    yield from _versions(session)
    yield from _snapshots(session)
    yield from _batches(session)
    yield from _serving(session)
    yield from _audit(session)


def _owners(session: Session) -> Iterator[Finding]:
    for owned in _OWNED:
        child, parent = owned.column.class_, owned.parent
        query = (
            sa.select(*sa.inspect(child).primary_key)
            .join(parent, parent.id == owned.column)
            .where(parent.project_id != child.project_id)
            .limit(_MOST)
        )
        kind = "alias" if child is Alias else "owner"
        for key in session.execute(query):
            problem = f"{owned.says[0].upper()}{owned.says[1:]} belongs to another project."
            yield Finding(kind, _where(child, key), problem, owned.fix)
    query = (
        sa.select(SnapshotImage.snapshot_id, SnapshotImage.position)
        .join(Snapshot, Snapshot.id == SnapshotImage.snapshot_id)
        .join(Image, Image.id == SnapshotImage.image_id)
        .where(Image.project_id != Snapshot.project_id)
        .limit(_MOST)
    )
    for key in session.execute(query):
        yield Finding(
            "owner",
            _where(SnapshotImage, key),
            "Its image belongs to another project.",
            _RESTORE,
        )


def _where(table: type[Table], key: Any) -> str:
    return f"{table.__tablename__} {', '.join(str(value) for value in key)}"


def _jobs(session: Session) -> Iterator[Finding]:
    for kind in KINDS:
        job = kind.table
        for says, wrong in _impossible(job).items():
            for (job_id,) in session.execute(sa.select(job.id).where(wrong).limit(_MOST)):
                yield Finding(
                    "job",
                    f"{kind.noun} {job_id}",
                    f"Its state is impossible: {says}.",
                    f"Cancel the {kind.noun} and ask for it again.",
                )


def _impossible(job: type[Job]) -> dict[str, sa.ColumnElement[bool]]:
    """Return what no transition of `app.core.jobs` leads to, by what a finding says of it."""
    leased = sa.or_(job.lease_until.is_not(None), job.lease_owner.is_not(None))
    unleased = sa.or_(job.lease_until.is_(None), job.lease_owner.is_(None))
    ended = job.state.in_(sorted(FINAL))
    return {
        "running, and nobody holds a lease": sa.and_(job.state == "running", unleased),
        "running, and it was never claimed": sa.and_(
            job.state == "running", sa.or_(job.attempt < 1, job.started_at.is_(None))
        ),
        "queued, and somebody holds a lease": sa.and_(job.state == "queued", leased),
        "ended, and somebody holds a lease": sa.and_(ended, leased),
        "ended, and nobody knows when": sa.and_(ended, job.finished_at.is_(None)),
        "not ended, and it has a time of its end": sa.and_(
            job.state.not_in(sorted(FINAL)), job.finished_at.is_not(None)
        ),
        "failed, and for no reason": sa.and_(job.state == "failed", job.failure.is_(sa.null())),
    }


def _versions(session: Session) -> Iterator[Finding]:
    query = (
        sa.select(ModelVersion.id)
        .join(Tuning, Tuning.id == ModelVersion.tuning_id)
        .where(Tuning.state != "succeeded")
        .limit(_MOST)
    )
    for key in session.execute(query):
        yield Finding(
            "job", _where(ModelVersion, key), "The tuning that made it did not succeed.", _RESTORE
        )


def _snapshots(session: Session) -> Iterator[Finding]:
    entries = (
        sa.select(SnapshotImage.snapshot_id, sa.func.count().label("found"))
        .group_by(SnapshotImage.snapshot_id)
        .subquery()
    )
    found = sa.func.coalesce(entries.c.found, 0)
    query = (
        sa.select(Snapshot.id, Snapshot.image_count, found)
        .outerjoin(entries, entries.c.snapshot_id == Snapshot.id)
        .where(Snapshot.image_count != found)
        .limit(_MOST)
    )
    for snapshot_id, expected, count in session.execute(query):
        yield Finding(
            "snapshot",
            f"snapshots {snapshot_id}",
            f"It has {count} images; it was frozen with {expected}.",
            "Restore a backup: tunings on it cannot be repeated.",
        )


def _batches(session: Session) -> Iterator[Finding]:
    images = (
        sa.select(sa.func.count())
        .where(BatchImage.batch_id == Batch.id)
        .correlate(Batch)
        .scalar_subquery()
    )
    query = sa.select(Batch.id, Batch.image_count, images).where(Batch.image_count != images)
    for batch_id, expected, count in session.execute(query.limit(_MOST)):
        yield Finding(
            "batch", f"batch {batch_id}", f"It has {count} of its {expected} images.", _RESTORE
        )
    parts = session.execute(
        sa.select(
            BatchPart.batch_id, BatchPart.position, BatchPart.count, Batch.state, Batch.image_count
        )
        .join(Batch, Batch.id == BatchPart.batch_id)
        .order_by(BatchPart.batch_id, BatchPart.position)
    )
    for batch_id, group in groupby(parts, key=lambda part: part.batch_id):
        done, whole = 0, True
        for part in group:
            whole, done = whole and part.position == done, part.position + part.count
            ended, expected = part.state == "succeeded", part.image_count
        if not whole or done > expected or (ended and done != expected):
            yield Finding(
                "batch",
                f"batch {batch_id}",
                "The parts of its result leave something out, or have it twice.",
                "Ask for the batch again.",
            )
    query = sa.select(Batch.id).where(
        Batch.state == "succeeded",
        Batch.image_count > 0,
        ~sa.exists().where(BatchPart.batch_id == Batch.id),
    )
    for (batch_id,) in session.execute(query.limit(_MOST)):
        yield Finding("batch", f"batch {batch_id}", "It has no result.", "Ask for the batch again.")


def _serving(session: Session) -> Iterator[Finding]:
    revision = session.scalar(sa.select(Serving.revision))
    last = session.scalar(sa.select(sa.func.max(Project.revision)))
    if revision is None:
        problem = "Its one row is gone."
    elif last is not None and last > revision:
        problem = f"It is at {revision}, and a project was last changed at {last}."
    else:
        return
    yield Finding(
        "serving",
        "serving",
        f"{problem} Gateways would not learn of changes.",
        "Restore a backup; until then start gateways anew after each promotion.",
    )


def _audit(session: Session) -> Iterator[Finding]:
    """Look at the numbers of the record of changes; its seals need the key, see `app.audit`."""
    head = session.execute(sa.select(AuditHead.sequence, AuditHead.mac)).one_or_none()
    if head is None:
        problem = "The row that holds its end is gone."
    else:
        count, last = session.execute(
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(AuditEntry.sequence), 0))
        ).one()
        mac = session.scalar(sa.select(AuditEntry.mac).where(AuditEntry.sequence == head.sequence))
        if count == last == head.sequence and mac in (None, head.mac):
            return
        problem = f"It has {count} entries up to number {last}; its end is number {head.sequence}."
    yield Finding(
        "audit",
        "record of changes",
        problem,
        "Run `shotline audit verify`; then restore a backup from before.",
    )
