"""The table of jobs against a model of it: whoever comes in whatever order, also late ones."""

from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from app.core.database import Database, database_now
from app.core.jobs import FINAL, TUNINGS, Failure, Lease
from app.core.tables import Project, Snapshot, Tuning

FAILURE = Failure(problem="It broke.", fix="Mend it.")
LOSSES, LEASE = 3, 30.0


class Table(RuleBasedStateMachine):
    """Some tunings, workers who hold leases, and workers who only believe that they do."""

    database: ClassVar[Database]
    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[UUID, tuple[Any, ...]] = {}
        self.holders: dict[UUID, Lease] = {}
        self.attempts: dict[UUID, int] = {}
        self.cancelled: set[UUID] = set()

    @initialize(target=jobs, count=st.integers(1, 3))
    def ask(self, count: int) -> Any:
        with self.database.unit_of_work() as session:
            session.query(Project).delete()
            project = Project(name="p", name_key="p", view={})
            session.add(project)
            session.flush()
            snapshot = Snapshot(project_id=project.id, digest="d", classes=[], image_count=0)
            session.add(snapshot)
            session.flush()
            tunings = [
                Tuning(
                    project_id=project.id, snapshot_id=snapshot.id, recipe={}, seed=n, view={},
                    backbone="b", queued_at=database_now(),
                )
                for n in range(count)
            ]  # fmt: skip
            session.add_all(tunings)
            session.flush()
            self.attempts = dict.fromkeys([tuning.id for tuning in tunings], 0)
        return multiple(*self.attempts)

    @rule(target=leases, job=jobs, seconds=st.sampled_from([LEASE, -1.0]))
    def claim(self, job: UUID, seconds: float) -> Any:
        """A message is delivered, the first time or once more."""
        before = self.row(job)
        with self.database.unit_of_work() as session:
            lease = TUNINGS.claim(session, job, owner="w", seconds=seconds)
        assert (lease is not None) == (before.state == "queued")
        if lease is None:
            return multiple()
        assert lease.attempt == before.attempt + 1
        self.holders[job] = lease
        return lease

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        with self.database.unit_of_work() as session:
            standing = TUNINGS.renew(session, lease, seconds=LEASE)
        assert standing == self.standing(lease)

    @rule(lease=leases, keeps=st.booleans())
    def note(self, lease: Lease, keeps: bool) -> None:
        values: dict[str, Any] = {"progress": {"done": lease.attempt}}
        if keeps:
            values |= {"checkpoint": "0" * 64, "losses": 0}
        with self.database.unit_of_work() as session:
            standing = TUNINGS.note(session, lease, **values)
        assert standing == self.standing(lease)

    @rule(lease=leases)
    def complete(self, lease: Lease) -> None:
        with self.database.unit_of_work() as session:
            done = TUNINGS.complete(session, lease)
        assert done == (self.standing(lease) == "held")
        if done:
            self.let_go(lease.job_id, "succeeded")

    @rule(lease=leases)
    def fail(self, lease: Lease) -> None:
        standing = self.standing(lease)
        with self.database.unit_of_work() as session:
            assert TUNINGS.fail(session, lease, FAILURE) == (standing != "lost")
        if standing != "lost":
            self.let_go(lease.job_id, "cancelled" if standing == "cancel" else "failed")

    @rule(lease=leases, counts=st.booleans())
    def give_back(self, lease: Lease, counts: bool) -> None:
        standing, before = self.standing(lease), self.row(lease.job_id)
        with self.database.unit_of_work() as session:
            most = LOSSES if counts else None
            state = TUNINGS.give_back(session, lease, FAILURE, max_attempts=most)
        assert state == self.expected(standing, before.losses, counts=counts)
        if state is not None:
            self.let_go(lease.job_id, state)

    @rule(job=jobs)
    def cancel(self, job: UUID) -> None:
        before = self.row(job)
        with self.database.unit_of_work() as session:
            state = TUNINGS.cancel(session, job)
        expected = {"queued": "cancelled", "running": "running"}.get(before.state)
        assert state == expected
        if state is not None:
            self.cancelled.add(job)

    @rule()
    def reap(self) -> None:
        """Who is still in time keeps what he holds; who is not loses it."""
        before = {job: self.row(job) for job in self.attempts}
        with self.database.unit_of_work() as session:
            now = session.scalar(select(database_now()))
            queued = TUNINGS.take_back_lost(session, FAILURE, max_attempts=LOSSES)
        assert now is not None
        for job, row in before.items():
            late = row.state == "running" and row.lease_until < now
            if late:
                standing = "cancel" if job in self.cancelled else "held"
                state = self.expected(standing, row.losses, counts=True)
                assert state is not None
                self.let_go(job, state)
                assert (job in queued) == (state == "queued")
            else:
                assert job not in queued
                assert self.row(job).state == row.state

    @rule()
    def send_again(self) -> None:
        with self.database.unit_of_work() as session:
            unheard = TUNINGS.take_unheard(session, seconds=60)
            assert TUNINGS.take_unheard(session, seconds=60) == []
        assert {self.row(job).state for job in unheard} <= {"queued"}

    @rule(seconds=st.sampled_from([-7200.0, -40.0, 40.0, 7200.0]))
    def clock_jumps(self, seconds: float) -> None:
        """To the database, everything is so many seconds longer ago."""
        with self.database.unit_of_work() as session:
            for job in self.attempts:
                row = session.get_one(Tuning, job)
                row.queued_at -= timedelta(seconds=seconds)
                if row.lease_until is not None:
                    row.lease_until -= timedelta(seconds=seconds)

    @invariant()
    def holds(self) -> None:
        for job, attempt in self.attempts.items():
            row = self.row(job)
            assert row.attempt >= attempt
            self.attempts[job] = row.attempt
            assert (row.state == "running") == (row.lease_until is not None)
            assert (row.state == "running") == (row.lease_owner is not None)
            assert (row.state == "running") == (job in self.holders)
            assert (row.state in FINAL) == (row.finished_at is not None)
            assert (row.state == "failed") == (row.failure is not None)
            assert row.state != "succeeded" or job not in self.cancelled
            assert row.state != "cancelled" or job in self.cancelled
            assert row.losses <= LOSSES
            if job in self.ended:
                assert self.terms(row) == self.ended[job]
            elif row.state in FINAL:
                self.ended[job] = self.terms(row)
                assert row.checkpoint is None

    def teardown(self) -> None:
        """If nobody does anything but look, everything comes to an end."""
        for _ in range(LOSSES + 1):
            for job in self.attempts:
                with self.database.unit_of_work() as session:
                    TUNINGS.claim(session, job, owner="dies", seconds=-1)
            with self.database.unit_of_work() as session:
                session.execute(
                    update(Tuning)
                    .where(Tuning.state == "running")
                    .values(lease_until=database_now(-1))
                )
                TUNINGS.take_back_lost(session, FAILURE, max_attempts=LOSSES)
        assert {self.row(job).state for job in self.attempts} <= FINAL

    @staticmethod
    def terms(row: Tuning) -> tuple[Any, ...]:
        return row.state, row.attempt, row.losses, row.finished_at, row.failure, row.progress

    def row(self, job: UUID) -> Tuning:
        with self.database.reading() as session:
            return session.scalars(select(Tuning).where(Tuning.id == job)).one()

    def standing(self, lease: Lease) -> str:
        if self.holders.get(lease.job_id) != lease:
            return "lost"
        return "cancel" if lease.job_id in self.cancelled else "held"

    def expected(self, standing: str, losses: int, *, counts: bool) -> str | None:
        if standing != "held":
            return None if standing == "lost" else "cancelled"
        return "failed" if counts and losses + 1 >= LOSSES else "queued"

    def let_go(self, job: UUID, state: str) -> None:
        del self.holders[job]
        assert self.row(job).state == state


EXAMPLES = {"sqlite": 60, "postgresql": 15}


def test_the_table_keeps_its_promises(database: Database, database_kind: str) -> None:
    run_state_machine_as_test(
        type("Table", (Table,), {"database": database}),
        settings=settings(
            max_examples=EXAMPLES[database_kind],
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
