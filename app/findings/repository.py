"""SQL of examinations and findings."""

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.core.jobs import FINAL
from app.core.tables import Examination, FoundFinding, Image
from models.findings.finding import Finding, Kind, Severity

# Names in one IN list; SQLite takes 32,766 at most.
_MANY = 1000


def add(session: Session, examination: Examination) -> None:
    """Insert the examination, and read back what the database filled in."""
    session.add(examination)
    session.flush()
    session.refresh(examination)


def last(session: Session, project_id: UUID) -> Examination | None:
    """Return the last examination that succeeded: the one whose findings stand."""
    query = (
        select(Examination)
        .where(Examination.project_id == project_id, Examination.state == "succeeded")
        .order_by(Examination.finished_at.desc(), Examination.id.desc())
        .limit(1)
    )
    return session.scalars(query).one_or_none()


def latest_asked(session: Session, project_id: UUID) -> Examination | None:
    """Return the examination that was asked for last."""
    query = (
        select(Examination)
        .where(Examination.project_id == project_id, Examination.tuning_id.is_(None))
        .order_by(Examination.id.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return session.scalars(query).one_or_none()


def drop_older(session: Session, examination: Examination) -> None:
    """Delete the project's other examinations that have ended, with their findings."""
    session.execute(
        delete(Examination).where(
            Examination.project_id == examination.project_id,
            Examination.id != examination.id,
            Examination.state.in_(sorted(FINAL)),
        )
    )


def add_findings(session: Session, examination_id: UUID, found: Sequence[Finding]) -> None:
    """Insert findings in their order."""
    session.add_all(
        FoundFinding(
            examination_id=examination_id,
            kind=one.kind,
            severity=one.severity,
            content=one.model_dump(mode="json"),
        )
        for one in found
    )
    session.flush()


def page(
    session: Session,
    examination_id: UUID,
    *,
    kind: Kind | None,
    severity: Severity | None,
    after: UUID | None,
    limit: int,
) -> Sequence[FoundFinding]:
    """Return findings, the serious first."""
    query = (
        select(FoundFinding)
        .where(FoundFinding.examination_id == examination_id)
        .order_by(FoundFinding.id)
        .limit(limit)
    )
    if kind is not None:
        query = query.where(FoundFinding.kind == kind)
    if severity is not None:
        query = query.where(FoundFinding.severity == severity)
    if after is not None:
        query = query.where(FoundFinding.id > after)
    return session.scalars(query).all()


def counts(session: Session, examination_id: UUID) -> Counter[str]:
    """Return how many findings there are of each severity."""
    query = (
        select(FoundFinding.severity, func.count().label("times"))
        .where(FoundFinding.examination_id == examination_id)
        .group_by(FoundFinding.severity)
    )
    return Counter({row.severity: row.times for row in session.execute(query)})


def delete_naming(session: Session, project_id: UUID, sha256: str) -> None:
    """Delete the project's findings that name the image."""
    query = (
        select(FoundFinding)
        .join(Examination, Examination.id == FoundFinding.examination_id)
        .where(Examination.project_id == project_id)
    )
    for row in session.scalars(query):
        if any(ref["sha256"] == sha256 for ref in row.content["images"]):
            session.delete(row)
    session.flush()


def image_ids(session: Session, project_id: UUID, digests: Collection[str]) -> dict[str, UUID]:
    """Return the ids of those of the project's images that have one of the sha256."""
    listed = sorted(digests)
    found: dict[str, UUID] = {}
    for start in range(0, len(listed), _MANY):
        query = select(Image.sha256, Image.id).where(
            Image.project_id == project_id,
            Image.deleted_at.is_(None),
            Image.sha256.in_(listed[start : start + _MANY]),
        )
        found |= {row.sha256: row.id for row in session.execute(query)}
    return found
