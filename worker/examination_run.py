"""The child: looks at one project's images for what is wrong with them. Alone touches the device.

`python -m worker.examination_run EXAMINATION ATTEMPT`, started by `worker.supervisor`.
"""

import sys
from typing import NamedTuple

from app.core.database import Database
from app.core.jobs import EXAMINATIONS, Lease, ahead_of
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Examination, Project
from app.findings.service import ImageSet, complete, image_set
from models.features import FolderFeatureStore
from models.findings.finding import Finding
from models.findings.trait_store import FolderTraitStore
from models.imaging import View
from worker.backbone import load_for_job
from worker.child import GaveWay, HandedBack, LeaseLost, main, patiently, run_job
from worker.examining import examine_images


class Job(NamedTuple):
    """What is to be done: the row, and the images as they are now."""

    row: Examination
    looked_at: ImageSet


class ExaminationRun:
    """Runs the examination that `lease` gives a right to, and records what was found.

    A tuning that waits for this worker goes first: what is measured and encoded by then is kept.
    """

    def __init__(
        self, lease: Lease, settings: Settings, database: Database, storage: Storage
    ) -> None:
        self._lease, self._settings = lease, settings
        self._database, self._storage = database, storage
        self._stopping = False

    def run(self) -> int:
        """Return an exit code, see `worker.exit_codes`."""
        return run_job(self._work, EXAMINATIONS, self._lease, self._database)

    def stop(self) -> None:
        """Give the examination back after the next image."""
        self._stopping = True

    def _work(self) -> None:
        job = patiently(self._read)
        found = self._examine(job)

        def record() -> bool:
            with self._database.unit_of_work() as session:
                return complete(session, self._lease, job.looked_at, found)

        if not patiently(record):
            raise LeaseLost

    def _read(self) -> Job:
        with self._database.reading() as session:
            row = EXAMINATIONS.held(session, self._lease)
            if row is None:
                raise LeaseLost
            project = session.get_one(Project, row.project_id)
            return Job(row, image_set(session, project, self._storage))

    def _examine(self, job: Job) -> list[Finding]:
        backbone = load_for_job(job.row.backbone, self._settings.backbone)
        return examine_images(
            job.looked_at.classes,
            job.looked_at.images,
            backbone,
            View.model_validate(job.row.view),
            FolderFeatureStore(self._settings.feature_folder),
            FolderTraitStore(self._settings.feature_folder),
            progress=self._on_progress,
        )

    def _on_progress(self, done: int, total: int) -> None:
        if self._stopping:
            raise HandedBack("The worker was told to stop.")
        if done % _LOOK_EVERY == 0 and done < total:
            with self._database.reading() as session:
                if any(jobs.oldest_queued(session) for jobs in ahead_of(EXAMINATIONS)):
                    raise GaveWay("A job waits that goes first.")


_LOOK_EVERY = 64  # images


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], EXAMINATIONS.noun, ExaminationRun))
