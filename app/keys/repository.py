"""SQL of API keys."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.tables import ApiKey


def add(session: Session, key: ApiKey) -> None:
    """Insert `key`."""
    session.add(key)
    session.flush()


def get(session: Session, key_id: UUID) -> ApiKey | None:
    """Return the key, revoked or not."""
    return session.get(ApiKey, key_id)


def page(
    session: Session, *, project_id: UUID | None, after: UUID | None, limit: int
) -> Sequence[ApiKey]:
    """Return keys in the order they were made; of one project where `project_id` is given."""
    query = select(ApiKey).order_by(ApiKey.id).limit(limit)
    if project_id is not None:
        query = query.where(ApiKey.project_id == project_id)
    if after is not None:
        query = query.where(ApiKey.id > after)
    return session.scalars(query).all()


def usable(session: Session) -> Sequence[ApiKey]:
    """Return every key that is not revoked, expired ones too."""
    return session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None))).all()


def count(session: Session) -> int:
    """Return how many keys were ever made."""
    return session.scalar(select(func.count()).select_from(ApiKey)) or 0


def revoke(session: Session, key_id: UUID, when: datetime) -> bool:
    """Mark the key revoked; False where it was already."""
    query = (
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=when)
        .returning(ApiKey.id)
    )
    return session.scalar(query) is not None
