"""SQL of audit entries that reads; `app.core.audit` alone writes."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.core.tables import AuditEntry, AuditHead

# Entries read at once; that of an upload of 10,000 files has 670 kB.
_MANY = 200


def head_row(session: Session) -> AuditHead | None:
    """Return the row that holds the chain's end."""
    return session.get(AuditHead, 1, populate_existing=True)


def page(
    session: Session,
    *,
    project_id: UUID | None,
    action: str | None,
    since: datetime | None,
    after: int,
    limit: int,
) -> Sequence[AuditEntry]:
    """Return entries with numbers above `after`, in their order."""
    query = (
        select(AuditEntry)
        .where(AuditEntry.sequence > after)
        .order_by(AuditEntry.sequence)
        .limit(limit)
    )
    if project_id is not None:
        query = query.where(AuditEntry.project_id == project_id)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    return session.scalars(query).all()


def every_entry(session: Session) -> Iterator[dict[str, Any]]:
    """Yield the columns of each entry, in the order of the numbers, a page at a time."""
    table = AuditEntry.__table__
    query = select(*table.columns).order_by(table.c.sequence).limit(_MANY)
    rows: Sequence[Row[Any]] = session.execute(query).all()
    while rows:
        for row in rows:
            yield dict(row._mapping)
        query_on = query.where(table.c.sequence > rows[-1].sequence)
        rows = session.execute(query_on).all()
