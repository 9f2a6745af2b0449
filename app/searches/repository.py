"""SQL of searches that changes no state; the transitions are in `app.core.jobs`."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, undefer

from app.core.database import database_now
from app.core.jobs import FINAL
from app.core.tables import SearchTrial


def trials(session: Session, tuning_id: UUID, *, hits: bool = False) -> Sequence[SearchTrial]:
    """Return the trials of a tuning's search in the order of their numbers.

    Args:
        session: the transaction.
        tuning_id: the tuning.
        hits: whether that column is read with them.
    """
    query = (
        select(SearchTrial)
        .where(SearchTrial.tuning_id == tuning_id)
        .order_by(SearchTrial.number)
        .execution_options(populate_existing=True)
    )
    return session.scalars(query.options(undefer(SearchTrial.hits)) if hits else query).all()


class OpenTrial(NamedTuple):
    """A trial that is queued or running, and who holds its lease."""

    id: UUID
    attempt: int
    lease_owner: str | None


def open_trials(session: Session, tuning_id: UUID) -> list[OpenTrial]:
    """Return the trials that are queued or running."""
    query = select(SearchTrial.id, SearchTrial.attempt, SearchTrial.lease_owner).where(
        SearchTrial.tuning_id == tuning_id, SearchTrial.state.not_in(FINAL)
    )
    return [OpenTrial._make(row) for row in session.execute(query)]


def next_queued(session: Session, tuning_id: UUID) -> SearchTrial | None:
    """Return the queued trial to run next: one that was never lost, then the one that is oldest."""
    query = (
        select(SearchTrial)
        .where(SearchTrial.tuning_id == tuning_id, SearchTrial.state == "queued")
        .order_by(SearchTrial.losses, SearchTrial.number)
        .limit(1)
    )
    return session.scalars(query).one_or_none()


def count_queued(session: Session, tuning_id: UUID) -> int:
    """Return how many trials wait for a worker."""
    query = select(func.count()).where(
        SearchTrial.tuning_id == tuning_id, SearchTrial.state == "queued"
    )
    return session.scalar(query) or 0


def end_leases(session: Session, tuning_id: UUID, owner: str) -> None:
    """Let the leases of an owner that is known to be gone run out, for the reaper to find."""
    session.execute(
        update(SearchTrial)
        .where(
            SearchTrial.tuning_id == tuning_id,
            SearchTrial.state == "running",
            SearchTrial.lease_owner == owner,
        )
        .values(lease_until=database_now(-1.0))
    )
