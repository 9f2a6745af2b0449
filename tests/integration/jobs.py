"""Jobs done in this process: what a worker's child does, without the worker."""

from typing import Any
from uuid import UUID

from app.core.database import Database
from app.core.jobs import GATES, TUNINGS, JobStates
from app.core.settings import Settings
from app.core.storage import LocalStorage
from worker.child import MakeRun
from worker.gate_run import GateChild
from worker.tuning_run import TuningRun


def run_tuning(settings: Settings, database: Database, tuning: UUID) -> None:
    _run(TUNINGS, TuningRun, settings, database, tuning)


def run_gates(settings: Settings, database: Database) -> UUID:
    """Run the gates that have waited longest; return the run's id."""
    with database.reading() as session:
        run = GATES.oldest_queued(session)
    assert run is not None
    _run(GATES, GateChild, settings, database, run)
    return run


def _run(
    jobs: JobStates[Any], make: MakeRun, settings: Settings, database: Database, job: UUID
) -> None:
    with database.unit_of_work() as session:
        lease = jobs.claim(session, job, owner="a test", seconds=600)
    assert lease is not None
    assert make(lease, settings, database, LocalStorage(settings.blob_folder)).run() == 0
