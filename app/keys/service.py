"""API keys: 256 random bits, shown once, kept as their SHA-256."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.clock import utc_now
from app.core.errors import NotFound
from app.core.tables import ApiKey, KeyRole, Project
from app.keys import repository
from models.errors import BadInput
from models.names import NAME_LENGTH, clean_text

# `sl_` + 8 characters that people see in lists + `_` + 256 random bits.
_MARK = "sl_"
_PREFIX_BYTES, _SECRET_BYTES = 5, 32
PREFIX_LENGTH = len(_MARK) + 8


class NewKey(NamedTuple):
    """A key just made; `plaintext` is known here and nowhere else."""

    row: ApiKey
    plaintext: str


def create_key(
    session: Session,
    *,
    name: str,
    role: KeyRole,
    project_id: UUID | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key and store its hash.

    Raises:
        BadName: a name that cannot be used.
        BadInput: an expiry in the past.
        NotFound: an unknown project.
    """
    if expires_at is not None and expires_at <= utc_now():
        raise BadInput(
            f"expires_at {expires_at.isoformat()} is in the past.",
            fix="Give a later time, or none for a key that does not expire.",
            field="expires_at",
        )
    if project_id is not None and session.get(Project, project_id) is None:
        raise NotFound.of("project", project_id)
    plaintext = _plaintext()
    row = ApiKey(
        name=clean_text(name, "name", max_length=NAME_LENGTH),
        prefix=plaintext[:PREFIX_LENGTH],
        sha256=digest(plaintext),
        role=role,
        project_id=project_id,
        expires_at=expires_at,
    )
    repository.add(session, row)
    audit.record(session, "key.create", row.id, project=project_id, after=_recorded(row))
    return NewKey(row, plaintext)


def create_first_key(session: Session) -> str | None:
    """Make an admin key where no key was ever made and return it; None otherwise."""
    if repository.count(session):
        return None
    return create_key(session, name="first admin", role="admin").plaintext


def list_keys(
    session: Session, principal: Principal, *, after: UUID | None, limit: int
) -> Sequence[ApiKey]:
    """Return the keys that `principal` may see, revoked ones too."""
    return repository.page(session, project_id=principal.project_id, after=after, limit=limit)


def revoke_key(session: Session, principal: Principal, key_id: UUID) -> None:
    """Revoke a key; doing it again changes nothing.

    Raises:
        NotFound: no such key, or one beyond the principal's project.
    """
    key = repository.get(session, key_id)
    if key is None or principal.project_id not in (None, key.project_id):
        raise NotFound.of("key", key_id)
    if repository.revoke(session, key_id, utc_now()):
        audit.record(session, "key.revoke", key_id, project=key.project_id, before=_recorded(key))


def _recorded(row: ApiKey) -> dict[str, Any]:
    """Return what an entry says of a key: nothing that lets anyone in."""
    return audit.columns(row, "name", "prefix", "role", "expires_at")


def digest(plaintext: str) -> str:
    """Return what is stored. A slow hash buys nothing against 256 random bits."""
    return hashlib.sha256(plaintext.encode()).hexdigest()


def parse_uuid(value: object) -> UUID | None:
    """Return the UUID that a path parameter spells, None where it is none."""
    try:
        return UUID(str(value))
    except ValueError:
        return None


def _plaintext() -> str:
    prefix = base64.b32encode(secrets.token_bytes(_PREFIX_BYTES)).decode().lower()
    return f"{_MARK}{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
