"""The life of a job that a worker does: every transition in one place, each one conditional UPDATE.

    queued ── claim ──▶ running ── complete ──▶ succeeded
     ▲  │                │  │ └──── fail ─────▶ failed
     │  └── cancel ──┐   │  └─ cancelled ─────▶ cancelled
     │               └───│────────────────────▶
     └── give back, lost ┘  (failed after the last loss)

Whoever works on a job holds a `Lease`: the job and the number of the attempt. The number only ever
grows, so a worker that was given up for lost can change nothing any more, however late it wakes.
Times are the database's (`database_now`): a clock that jumps on some machine harms nothing.
"""

from collections.abc import Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, literal, null, select, update
from sqlalchemy.orm import Session

from app.core import audit
from app.core.database import database_now
from app.core.queue import BATCH, EXAMINE, GATE, TRIAL, TUNE
from app.core.tables import Batch, Examination, GateRun, Job, JobState, SearchTrial, Tuning
from app.core.types import Json
from models.errors import ShotlineError

FINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})

Standing = Literal["held", "cancel", "lost"]
Row = TypeVar("Row", bound=Job)


class Failure(TypedDict):
    """Why a job failed, in sentences that a person understands."""

    problem: str
    fix: str


class Lease(NamedTuple):
    """The right to work on a job: the number of the attempt that its row must still have."""

    job_id: UUID
    attempt: int


class _Outcome(NamedTuple):
    """What a row says of a job that was let go."""

    job_id: UUID
    state: JobState
    project_id: UUID
    failure: dict[str, Any] | None


def failure_of(error: ShotlineError) -> Failure:
    """Return what the row says of an error of the tree."""
    return Failure(problem=error.problem, fix=error.fix)


class JobStates(Generic[Row]):
    """The transitions of one kind of job.

    Args:
        table: holds the rows.
        noun: what people call such a job.
        task: the name of the task that a worker is woken by.
        dropped_at_end: columns that are emptied when the job ends.
        resumable: a claim that takes too long is one loss, not the end: another one goes on.
        audited: what becomes of such a job is recorded; not of one that is a part of another.
    """

    def __init__(
        self,
        table: type[Row],
        *,
        noun: str,
        task: str,
        dropped_at_end: Sequence[str] = (),
        resumable: bool = False,
        audited: bool = True,
    ) -> None:
        self.table, self.noun, self.task = table, noun, task
        self.resumable, self._audited = resumable, audited
        self._dropped = dropped_at_end

    def claim(self, session: Session, job_id: UUID, *, owner: str, seconds: float) -> Lease | None:
        """Take a queued job, for `seconds` at first; None where there is nothing to take.

        A message that is delivered twice finds nothing the second time.
        """
        job = self.table
        attempt = session.scalar(
            update(job)
            .where(job.id == job_id, job.state == "queued", job.cancel_requested.is_(False))
            .values(
                state="running",
                attempt=job.attempt + 1,
                lease_owner=owner,
                lease_until=database_now(seconds),
                started_at=database_now(),
            )
            .returning(job.attempt)
        )
        return None if attempt is None else Lease(job_id, attempt)

    def held(self, session: Session, lease: Lease) -> Row | None:
        """Return the job where the lease still holds."""
        return session.scalars(select(self.table).where(self._held(lease))).one_or_none()

    def renew(self, session: Session, lease: Lease, *, seconds: float) -> Standing:
        """Hold the job for `seconds` from now, and say whether it is still to be worked on."""
        return self.note(session, lease, lease_until=database_now(seconds))

    def note(self, session: Session, lease: Lease, **values: Any) -> Standing:
        """Write `values` into the row where the lease still holds."""
        cancel = session.scalar(
            update(self.table)
            .where(self._held(lease))
            .values(values)
            .returning(self.table.cancel_requested)
        )
        if cancel is None:
            return "lost"
        return "cancel" if cancel else "held"

    def complete(self, session: Session, lease: Lease) -> bool:
        """Running to succeeded; False where the lease is gone or someone asked for it to stop."""
        where = and_(self._held(lease), self.table.cancel_requested.is_(False))
        return self._end(session, where, state="succeeded")

    def fail(self, session: Session, lease: Lease, failure: Failure) -> bool:
        """Running to failed, or cancelled where that was asked for; False where it is not held."""
        cancelled = self.table.cancel_requested
        return self._end(
            session,
            self._held(lease),
            state=case((cancelled, "cancelled"), else_="failed"),
            failure=case((cancelled, null()), else_=literal(dict(failure), Json)),
        )

    def give_back(
        self, session: Session, lease: Lease, failure: Failure, *, max_attempts: int | None
    ) -> JobState | None:
        """End a claim without a result; None where it is not held any more.

        Args:
            session: the transaction.
            lease: the claim.
            failure: the reason, kept where this was the last loss.
            max_attempts: None for a worker that wants to stop, which is not the job's fault.

        Returns:
            `cancelled` where that was asked for, `failed` after the last loss, else `queued`.
        """
        ended = session.execute(
            update(self.table)
            .where(self._held(lease))
            .values(self._let_go(failure, max_attempts))
            .returning(*self._outcome())
        ).one_or_none()
        return None if ended is None else self._note_end(session, _Outcome._make(ended))

    def take_back_lost(
        self, session: Session, failure: Failure, *, max_attempts: int
    ) -> Sequence[UUID]:
        """End every claim whose lease has run out; return the jobs that are queued again."""
        job = self.table
        ended = session.execute(
            update(job)
            .where(job.state == "running", job.lease_until < database_now())
            .values(self._let_go(failure, max_attempts))
            .returning(*self._outcome())
        ).all()
        outcomes = [_Outcome._make(row) for row in ended]
        return [row.job_id for row in outcomes if self._note_end(session, row) == "queued"]

    def take_unheard(self, session: Session, *, seconds: float) -> Sequence[UUID]:
        """Return the jobs that have been queued for `seconds` since they were last sent.

        They count as sent now, so that of many who look only one sends each again.
        """
        job = self.table
        return session.scalars(
            update(job)
            .where(job.state == "queued", job.queued_at < database_now(-seconds))
            .values(queued_at=database_now())
            .returning(job.id)
        ).all()

    def oldest_queued(self, session: Session) -> UUID | None:
        """Return the job that has waited longest for a worker."""
        job = self.table
        query = select(job.id).where(job.state == "queued").order_by(job.id).limit(1)
        return session.scalar(query)

    def cancel(self, session: Session, job_id: UUID) -> JobState | None:
        """Cancel a queued job, or ask whoever runs it to stop.

        Returns:
            `cancelled` or `running`; None where it has already ended.
        """
        job = self.table
        queued = job.state == "queued"
        found = session.execute(
            update(job)
            .where(job.id == job_id, job.state.in_(("queued", "running")))
            .values(
                cancel_requested=True,
                state=case((queued, "cancelled"), else_=job.state),
                finished_at=case((queued, database_now()), else_=null()),
                **self._dropped_where(queued),
            )
            .returning(job.state, job.project_id)
        ).one_or_none()
        if found is None:
            return None
        state: JobState = found.state
        if self._audited:
            audit.record(
                session,
                f"{self.noun}.cancel",
                job_id,
                project=found.project_id,
                before={"state": "queued" if state == "cancelled" else state},
                after={"state": state, "cancel_requested": True},
            )
        return state

    def _let_go(self, failure: Failure, max_attempts: int | None) -> dict[str, Any]:
        job = self.table
        cancelled, losses = job.cancel_requested, job.losses
        spent = literal(False) if max_attempts is None else losses + 1 >= max_attempts
        ended = cancelled | spent
        return {
            "state": case((cancelled, "cancelled"), (spent, "failed"), else_="queued"),
            "failure": case((spent & ~cancelled, literal(dict(failure), Json)), else_=null()),
            "losses": losses if max_attempts is None else losses + 1,
            "finished_at": case((ended, database_now()), else_=null()),
            "queued_at": case((ended, job.queued_at), else_=database_now()),
            "lease_owner": None,
            "lease_until": None,
            **self._dropped_where(ended),
        }

    def _end(self, session: Session, where: ColumnElement[bool], **values: Any) -> bool:
        values |= {"finished_at": database_now(), "lease_owner": None, "lease_until": None}
        values |= dict.fromkeys(self._dropped)
        changed = update(self.table).where(where).values(values).returning(*self._outcome())
        ended = session.execute(changed).one_or_none()
        if ended is not None:
            self._note_end(session, _Outcome._make(ended))
        return ended is not None

    def _outcome(self) -> tuple[Any, ...]:
        job = self.table
        return job.id, job.state, job.project_id, job.failure

    def _note_end(self, session: Session, ended: _Outcome) -> JobState:
        if self._audited and ended.state in FINAL:
            audit.record(
                session,
                f"{self.noun}.end",
                ended.job_id,
                project=ended.project_id,
                before={"state": "running"},
                after={"state": ended.state, "failure": ended.failure},
            )
        return ended.state

    def _dropped_where(self, ended: ColumnElement[bool]) -> dict[str, Any]:
        columns = {name: getattr(self.table, name) for name in self._dropped}
        return {name: case((ended, null()), else_=column) for name, column in columns.items()}

    def _held(self, lease: Lease) -> ColumnElement[bool]:
        job = self.table
        return and_(job.id == lease.job_id, job.state == "running", job.attempt == lease.attempt)


TUNINGS: Final = JobStates(Tuning, noun="tuning", task=TUNE, dropped_at_end=("checkpoint",))
BATCHES: Final = JobStates(Batch, noun="batch", task=BATCH, resumable=True)
TRIALS: Final = JobStates(SearchTrial, noun="trial", task=TRIAL, audited=False)
GATES: Final = JobStates(GateRun, noun="gate", task=GATE)
EXAMINATIONS: Final = JobStates(Examination, noun="examination", task=EXAMINE)
# In the order in which they go first, see `ahead_of`.
KINDS: Final[tuple[JobStates[Any], ...]] = (TUNINGS, TRIALS, GATES, EXAMINATIONS, BATCHES)


def ahead_of(jobs: JobStates[Any]) -> Sequence[JobStates[Any]]:
    """Return the kinds of jobs that a long one of this kind gives way to."""
    return KINDS[: KINDS.index(jobs)]
