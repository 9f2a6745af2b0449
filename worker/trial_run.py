"""The child: does one trial of a search, for the worker that has the tuning and others to come.

`python -m worker.trial_run TRIAL ATTEMPT`, started by `worker.supervisor`. Like a tuning's child it
knows nothing of Celery, and alone touches torch and the device.
"""

import sys
from typing import NamedTuple

import structlog

from app.core.database import Database
from app.core.jobs import FINAL, TRIALS, Failure, Lease
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import SearchTrial, Tuning
from app.searches.states import search_of
from app.snapshots.service import SnapshotContent, read_snapshot
from models.features import FolderFeatureStore
from models.imaging import View
from models.search.budget import SearchBudget
from models.search.data import training_data
from models.search.trial import Trials
from worker.backbone import load_for_job
from worker.child import HandedBack, LeaseLost, main, patiently, run_job
from worker.trial import TrialWork

log = structlog.get_logger(__name__)

_NOT_WANTED = Failure(
    problem="The tuning that searched ended before this trial.", fix="Start another tuning."
)


class Job(NamedTuple):
    """What is to be done: the trial, the tuning whose search it is part of, and its images."""

    trial: SearchTrial
    tuning: Tuning
    snapshot: SnapshotContent


class TrialRun:
    """Does the trial that `lease` gives a right to."""

    def __init__(
        self, lease: Lease, settings: Settings, database: Database, storage: Storage
    ) -> None:
        self._lease, self._settings = lease, settings
        self._database, self._storage = database, storage
        self._stopping = False

    def run(self) -> int:
        """Return an exit code, see `worker.exit_codes`."""
        return run_job(self._work, TRIALS, self._lease, self._database)

    def stop(self) -> None:
        """Give the trial back at the end of this epoch; it is begun anew then."""
        self._stopping = True

    def _work(self) -> None:
        job = patiently(self._read)
        search = search_of(job.tuning)
        if search is None or search["choice"] is not None or job.tuning.state in FINAL:
            patiently(self._withdraw)
            return
        backbone = load_for_job(job.tuning.backbone, self._settings.backbone)
        data = training_data(
            job.snapshot.classes,
            job.snapshot.images,
            backbone,
            View.model_validate(job.tuning.view),
            FolderFeatureStore(self._settings.feature_folder),
        )
        budget = SearchBudget.model_validate(search["budget"])
        runner = Trials(backbone, data, job.tuning.seed)
        work = TrialWork(self._database, job.tuning.id, budget, runner, self._look_up)
        work.do(job.trial, self._lease)

    def _read(self) -> Job:
        with self._database.reading() as session:
            trial = TRIALS.held(session, self._lease)
            if trial is None:
                raise LeaseLost
            tuning = session.get_one(Tuning, trial.tuning_id)
            snapshot = read_snapshot(session, self._storage, tuning.snapshot_id)
            return Job(trial, tuning, snapshot)

    def _look_up(self) -> None:
        """The supervisor looks whether the trial is still wanted, and ends this process if not."""
        if self._stopping:
            raise HandedBack("The worker was told to stop.")

    def _withdraw(self) -> None:
        """End a trial that nobody waits for any more."""
        with self._database.unit_of_work() as session:
            TRIALS.cancel(session, self._lease.job_id)
            TRIALS.fail(session, self._lease, _NOT_WANTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], TRIALS.noun, TrialRun))
