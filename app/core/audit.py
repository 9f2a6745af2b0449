"""The record of changes: who changed what, written in the transaction that changes it.

Services call `record` where they change something. The entries are sealed (`app.core.seal`) and
written as the last thing before the commit: whoever adds to the chain holds the row of its head, so
that numbers have no gaps and no two entries follow the same one; taken last, that lock waits for no
other, and no two transactions can wait for each other.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.core.database import (
    AUDIT_KEY_FILE,
    Database,
    after_commit,
    before_commit,
    database_now,
)
from app.core.errors import Damaged, Unavailable
from app.core.seal import (
    AuditKey,
    Head,
    canonical,
    head_file,
    keep_head,
    load_key,
    make_key,
    read_head,
)
from app.core.tables import AuditEntry, AuditHead
from models.errors import BadInput

log = structlog.get_logger(__name__)

_PENDING = "audit"


@dataclass(frozen=True)
class Actor:
    """Who makes changes.

    Attributes:
        key_id: the API key; None for what needs none.
        name: the key's, or that of a part of Shotline.
        request_id: the request that asks for it.
    """

    key_id: UUID | None
    name: str
    request_id: str | None = None


_ITSELF = Actor(None, "Shotline itself")
_actor: ContextVar[Actor] = ContextVar("actor", default=_ITSELF)


def act_as(actor: Actor) -> None:
    """Let `actor` be who makes changes, to the end of this request, task or process."""
    _actor.set(actor)


@contextmanager
def acting(name: str) -> Iterator[None]:
    """Let a part of Shotline be who makes changes within the `with` block."""
    token = _actor.set(Actor(None, name))
    try:
        yield
    finally:
        _actor.reset(token)


class _Change(NamedTuple):
    actor: Actor
    action: str
    object_id: str
    project_id: UUID | None
    before: str | None
    after: str | None


def record(
    session: Session,
    action: str,
    object_id: UUID | str,
    *,
    project: UUID | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Have an entry written with the session's transaction, for whoever acts (`act_as`).

    Args:
        session: of `Database.unit_of_work`.
        action: such as `project.create`; what stands before the dot is the kind of the object.
        object_id: what is changed.
        project: whose it is; None where it is no project's.
        before: the state that was, as JSON; None where there was none. Never a secret.
        after: the state that is, likewise.
    """
    changes: list[_Change] | None = session.info.get(_PENDING)
    if changes is None:
        changes = session.info[_PENDING] = []
        before_commit(session, lambda: _write(session))
    shown = [None if state is None else canonical(state) for state in (before, after)]
    changes.append(_Change(_actor.get(), action, str(object_id), project, *shown))


def columns(row: object, *names: str) -> dict[str, Any]:
    """Return columns of a row as an entry shows them."""
    return {name: getattr(row, name) for name in names}


def _write(session: Session) -> None:
    changes: list[_Change] = session.info.pop(_PENDING)
    session.flush()  # every other lock comes before that of the head
    last, key, at = _hold_head(session, len(changes))
    path = _key_file(session)
    kept = _kept_in_order(session, path, last)
    rows = []
    for change in changes:
        row = _columns(change, last.sequence + 1, at)
        last = Head(last.sequence + 1, key.mac(row, last.mac))
        rows.append(row | {"mac": last.mac})
    session.execute(insert(AuditEntry), rows)
    session.execute(update(AuditHead).values(mac=last.mac, key_id=key.id))
    if kept:
        after_commit(session, lambda: keep_head(head_file(path), last))


def _columns(change: _Change, sequence: int, at: Any) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "at": at,
        "actor_id": change.actor.key_id,
        "actor": change.actor.name,
        "action": change.action,
        "kind": change.action.partition(".")[0],
        "object_id": change.object_id,
        "project_id": change.project_id,
        "before": change.before,
        "after": change.after,
        "request_id": change.actor.request_id,
    }


def _hold_head(session: Session, count: int) -> tuple[Head, AuditKey, Any]:
    """Hold others back from the chain, reserve `count` numbers, return the head before them.

    Also the key, made here where the chain has no entry yet, and the database's time.
    """
    row = session.execute(
        update(AuditHead)
        .values(sequence=AuditHead.sequence + count)
        .returning(AuditHead.sequence, AuditHead.mac, AuditHead.key_id, database_now())
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise Damaged(
            "The row that holds the head of the audit chain is gone; without it no change is made.",
            fix="Run `shotline audit verify`, then restore the database from a backup.",
        )
    sequence, mac, key_id, at = row
    last = Head(sequence - count, mac)
    return last, usable_key(_key_file(session), last, key_id, make=True), at


def usable_key(path: Path, last: Head, key_id: str | None, *, make: bool = False) -> AuditKey:
    """Return the key that goes on with the chain.

    Args:
        path: its file.
        last: the chain's end.
        key_id: that of the key which sealed it so far.
        make: make a new one where there is neither a file nor an entry.

    Raises:
        Unavailable: the file is missing while there are entries, cannot be used, or is another.
    """
    key = load_key(path)
    if key is None:
        if last.sequence or not make:
            raise Unavailable(
                f"The audit key {path} is missing, and the database holds {last.sequence} entries"
                " that it sealed.",
                fix="Put the file back, from where the gateway runs or from a backup; no new one is"
                " made, since nothing could be verified by it. SHOTLINE_AUDIT_KEY_FILE names it.",
            )
        return make_key(path)
    if last.sequence and key.id != key_id:
        raise Unavailable(
            f"The audit key {path} is not the one that sealed the entries in the database.",
            fix="Let gateway, worker and command line share one file: SHOTLINE_AUDIT_KEY_FILE.",
        )
    return key


def key_file_of(database: Database) -> Path:
    """Return the file of the key that seals the record in `database`.

    Raises:
        Unavailable: the database was opened without one.
    """
    return _named(database.audit_key_file)


def prepare(database: Database) -> None:
    """Make the key where there is neither a file nor an entry yet.

    Raises:
        Unavailable: the database is away, or the key is missing or cannot be used.
    """
    with database.unit_of_work() as session:
        last, key, _ = _hold_head(session, 0)
        if not last.sequence:
            session.execute(update(AuditHead).values(key_id=key.id))


def _key_file(session: Session) -> Path:
    return _named(session.info.get(AUDIT_KEY_FILE))


def _named(path: Path | None) -> Path:
    if path is None:
        raise Unavailable(
            "This connection to the database was opened without the audit key.",
            fix="Open it by the settings, as gateway, worker and command line do.",
        )
    return path


def _kept_in_order(session: Session, path: Path, last: Head) -> bool:
    """Say whether the head kept beside the key is in the chain; it is written over only then.

    What was kept is of a commit that happened, and nobody else adds to the chain now. Where it is
    not there, entries were cut off or the database is a restored one: `verify` is to find it.
    """
    try:
        kept = read_head(head_file(path))
    except (OSError, BadInput) as error:
        log.warning("audit_head_unreadable", error=str(error))
        return False
    if kept is None or kept.sequence == 0 or kept == last:
        return True
    query = select(AuditEntry.mac).where(AuditEntry.sequence == kept.sequence)
    if kept.sequence < last.sequence and session.scalar(query) == kept.mac:
        return True
    log.error("audit_head_conflict", kept=str(kept), database=str(last))
    return False
