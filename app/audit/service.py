"""Reading the record of changes, and going on after its end was lost."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.audit import repository
from app.core.access import Principal
from app.core.audit import key_file_of, record, usable_key
from app.core.database import Database
from app.core.errors import Damaged
from app.core.seal import Head, head_file, keep_head, load_key, read_head
from app.core.tables import AuditEntry, AuditHead
from models.errors import BadInput, file_errors
from models.names import clean_text, printable

# The largest number that the column holds.
_MOST = 2**63 - 1


@dataclass(frozen=True)
class EntryView:
    """An entry, as lists page through it."""

    row: AuditEntry

    @property
    def id(self) -> UUID:
        """The number in the form of the other lists' ids, for cursors."""
        return UUID(int=self.row.sequence)


def head(session: Session) -> Head:
    """Return the chain's end as the database has it: sequence 0 and zeros before the first entry.

    Raises:
        Damaged: the row that holds it is gone.
    """
    row = head_row(session)
    return Head(row.sequence, row.mac)


def head_row(session: Session) -> AuditHead:
    """Return the row that holds the chain's end.

    Raises:
        Damaged: it is gone.
    """
    row = repository.head_row(session)
    if row is None:
        raise Damaged(
            "The row that holds the head of the audit chain is gone.",
            fix="Restore the database from a backup.",
        )
    return row


def list_entries(
    session: Session,
    principal: Principal,
    *,
    project_id: UUID | None = None,
    action: str | None = None,
    since: datetime | None = None,
    after: UUID | None,
    limit: int,
) -> Sequence[EntryView]:
    """Return entries in their order: all that the key sees, or those that fit.

    Raises:
        NotFound: a project that is not for this key. One that was deleted has entries still.
    """
    if project_id is not None:
        principal.require_project(project_id, "project", project_id)
    rows = repository.page(
        session,
        project_id=project_id or principal.project_id,
        action=action,
        since=since,
        after=0 if after is None else min(after.int, _MOST),
        limit=limit,
    )
    return [EntryView(row) for row in rows]


def state_of(text: str | None) -> Any:
    """Return `before` or `after` of an entry as JSON; text that is none stays text."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def check_key(database: Database) -> None:
    """Raise where changes could not be recorded.

    Raises:
        Unavailable: no key, one that cannot be used, or another than that of the entries.
    """
    path = key_file_of(database)
    with database.reading() as session:
        row = head_row(session)
    if row.sequence or load_key(path) is not None:  # else the first change makes it
        usable_key(path, Head(row.sequence, row.mac), row.key_id)


def accept_head(database: Database, reason: str) -> Head:
    """Let the chain go on from where the database has it, and record that this was accepted.

    For a database that was restored from a backup: what was added since is not in it, but is what
    the head beside the key speaks of.

    Args:
        database: with the chain.
        reason: why its end is another, for those who read the record.

    Returns:
        The new end, which is kept beside the key from here on.

    Raises:
        BadName: a reason that cannot be used.
    """
    why = clean_text(reason, "reason", max_length=500)
    path = head_file(key_file_of(database))
    with database.unit_of_work() as session:
        before, after = {"kept": _shown(path)}, {"head": str(head(session)), "reason": why}
        record(session, "audit.accept", "head", before=before, after=after)
    with database.reading() as session:
        last = head(session)
    with file_errors(path, "written"):
        keep_head(path, last, replace=True)
    return last


def _shown(path: Path) -> str:
    try:
        return str(read_head(path))
    except (OSError, BadInput) as error:
        return printable(str(error))
