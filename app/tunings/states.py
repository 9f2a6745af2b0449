"""The life of a tuning: every transition in one place, each one conditional UPDATE.

    queued ── claim ──▶ running ── complete ──▶ succeeded
     ▲  │                │  │ └──── fail ─────▶ failed
     │  └── cancel ──┐   │  └─ cancelled ─────▶ cancelled
     │               └───│────────────────────▶
     └── give back, lost ┘  (failed after the last attempt)

Whoever works on a tuning holds a `Lease`: the tuning and the number of the attempt. The number only
ever grows, so a worker that was given up for lost can change nothing any more, however late it
wakes. Times are the database's (`database_now`): a clock that jumps on some machine harms nothing.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, literal, null, update
from sqlalchemy.orm import Session

from app.core.database import database_now
from app.core.tables import Tuning, TuningState
from app.core.types import Json
from models.errors import ShotlineError

FINAL: frozenset[TuningState] = frozenset({"succeeded", "failed", "cancelled"})

Standing = Literal["held", "cancel", "lost"]


class Failure(TypedDict):
    """Why a tuning failed, in sentences that a person understands."""

    problem: str
    fix: str


class Lease(NamedTuple):
    """The right to work on a tuning: the number of the attempt that its row must still have."""

    tuning_id: UUID
    attempt: int


def failure_of(error: ShotlineError) -> Failure:
    """Return what the row says of an error of the tree."""
    return Failure(problem=error.problem, fix=error.fix)


def claim(session: Session, tuning_id: UUID, *, owner: str, seconds: float) -> Lease | None:
    """Take a queued tuning, for `seconds` at first; None where there is nothing to take.

    A message that is delivered twice finds nothing the second time.
    """
    attempt = session.scalar(
        update(Tuning)
        .where(Tuning.id == tuning_id, Tuning.state == "queued", Tuning.cancel_requested.is_(False))
        .values(
            state="running",
            attempt=Tuning.attempt + 1,
            lease_owner=owner,
            lease_until=database_now(seconds),
            started_at=database_now(),
        )
        .returning(Tuning.attempt)
    )
    return None if attempt is None else Lease(tuning_id, attempt)


def renew(session: Session, lease: Lease, *, seconds: float) -> Standing:
    """Hold the tuning for `seconds` from now, and say whether it is still to be worked on."""
    cancel = session.scalar(
        update(Tuning)
        .where(_held(lease))
        .values(lease_until=database_now(seconds))
        .returning(Tuning.cancel_requested)
    )
    return _standing(cancel)


def note_progress(session: Session, lease: Lease, progress: dict[str, Any]) -> Standing:
    """Write how far the tuning is."""
    cancel = session.scalar(
        update(Tuning)
        .where(_held(lease))
        .values(progress=progress)
        .returning(Tuning.cancel_requested)
    )
    return _standing(cancel)


def note_checkpoint(session: Session, lease: Lease, sha256: str) -> Standing:
    """Write which blob holds the last checkpoint."""
    cancel = session.scalar(
        update(Tuning)
        .where(_held(lease))
        .values(checkpoint=sha256)
        .returning(Tuning.cancel_requested)
    )
    return _standing(cancel)


def complete(session: Session, lease: Lease) -> bool:
    """Running to succeeded; False where the lease is gone or someone asked for it to stop."""
    return _changed(
        session,
        and_(_held(lease), Tuning.cancel_requested.is_(False)),
        state="succeeded",
        checkpoint=None,
        **_ended(),
    )


def fail(session: Session, lease: Lease, failure: Failure) -> bool:
    """Running to failed, or to cancelled where that was asked for; False where it is not held."""
    return _changed(
        session,
        _held(lease),
        state=case((Tuning.cancel_requested, "cancelled"), else_="failed"),
        failure=case((Tuning.cancel_requested, null()), else_=literal(dict(failure), Json)),
        checkpoint=None,
        **_ended(),
    )


def give_back(
    session: Session, lease: Lease, failure: Failure, *, max_attempts: int | None
) -> TuningState | None:
    """End a claim without a result; None where it is not held any more.

    Args:
        session: the transaction.
        lease: the claim.
        failure: the reason, kept where this was the last attempt.
        max_attempts: None for a worker that was told to stop, which is not the tuning's fault.

    Returns:
        `cancelled` where that was asked for, `failed` after the last attempt, else `queued`.
    """
    state: TuningState | None = session.scalar(
        update(Tuning)
        .where(_held(lease))
        .values(_let_go(failure, max_attempts))
        .returning(Tuning.state)
    )
    return state


def take_back_lost(session: Session, failure: Failure, *, max_attempts: int) -> Sequence[UUID]:
    """End every claim whose lease has run out; return the tunings that are queued again."""
    ended = session.execute(
        update(Tuning)
        .where(Tuning.state == "running", Tuning.lease_until < database_now())
        .values(_let_go(failure, max_attempts))
        .returning(Tuning.id, Tuning.state)
    )
    return [tuning_id for tuning_id, state in ended if state == "queued"]


def take_unheard(session: Session, *, seconds: float) -> Sequence[UUID]:
    """Return the tunings that have been queued for `seconds` since they were last sent.

    They count as sent now, so that of many who look only one sends each again.
    """
    return session.scalars(
        update(Tuning)
        .where(Tuning.state == "queued", Tuning.queued_at < database_now(-seconds))
        .values(queued_at=database_now())
        .returning(Tuning.id)
    ).all()


def cancel(session: Session, tuning_id: UUID) -> TuningState | None:
    """Cancel a queued tuning, or ask whoever runs it to stop.

    Returns:
        `cancelled` or `running`; None where it has already ended.
    """
    queued = Tuning.state == "queued"
    state: TuningState | None = session.scalar(
        update(Tuning)
        .where(Tuning.id == tuning_id, Tuning.state.in_(("queued", "running")))
        .values(
            cancel_requested=True,
            state=case((queued, "cancelled"), else_=Tuning.state),
            checkpoint=case((queued, null()), else_=Tuning.checkpoint),
            finished_at=case((queued, database_now()), else_=null()),
        )
        .returning(Tuning.state)
    )
    return state


def _let_go(failure: Failure, max_attempts: int | None) -> dict[str, Any]:
    cancelled = Tuning.cancel_requested
    spent = literal(False) if max_attempts is None else Tuning.attempt >= max_attempts
    ended = cancelled | spent
    return {
        "state": case((cancelled, "cancelled"), (spent, "failed"), else_="queued"),
        "failure": case((spent & ~cancelled, literal(dict(failure), Json)), else_=null()),
        "finished_at": case((ended, database_now()), else_=null()),
        "checkpoint": case((ended, null()), else_=Tuning.checkpoint),
        "queued_at": case((ended, Tuning.queued_at), else_=database_now()),
        "lease_owner": None,
        "lease_until": None,
    }


def _ended() -> dict[str, Any]:
    return {"finished_at": database_now(), "lease_owner": None, "lease_until": None}


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        Tuning.id == lease.tuning_id, Tuning.state == "running", Tuning.attempt == lease.attempt
    )


def _changed(session: Session, where: ColumnElement[bool], **values: Any) -> bool:
    changed = session.scalar(update(Tuning).where(where).values(values).returning(Tuning.id))
    return changed is not None


def _standing(cancel_requested: bool | None) -> Standing:
    if cancel_requested is None:
        return "lost"
    return "cancel" if cancel_requested else "held"
