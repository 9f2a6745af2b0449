"""The child: runs one tuning. Knows nothing of Celery, and alone touches torch and the device.

`python -m worker.tuning_run TUNING ATTEMPT`, started by `worker.supervisor`. Every write is
conditional on the lease, so a child that outlives its claim can change nothing.
"""

import json
import sys
from typing import Any, NamedTuple, cast

import structlog

from app.core.database import Database
from app.core.jobs import TUNINGS, Lease
from app.core.queue import CeleryQueue
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Project
from app.core.tables import Tuning as TuningRow
from app.registry.service import NewVersion, add_version
from app.snapshots.service import SnapshotContent, read_snapshot
from models.artifact import Artifact
from models.backbone import Backbone
from models.checkpoint import Checkpoint
from models.errors import CheckpointMismatch, ShotlineError
from models.features import FeatureStore, FolderFeatureStore
from models.imaging import View
from models.recipe import Recipe
from models.report import ReportData, render_report
from models.search.data import training_data
from models.search.result import SearchResult
from models.search.trial import Trials
from models.tuning import Tuning, TuningProgress
from worker.backbone import load_for_job
from worker.child import LeaseLost, main, patiently, run_job
from worker.observer import NotedFeatures, RowObserver
from worker.search import Found, SearchLead

log = structlog.get_logger(__name__)


class Job(NamedTuple):
    """What is to be done.

    Attributes:
        row: of the tuning.
        snapshot: what it runs on.
        title: the project's name.
        recipe: the hyperparameters, in the end.
        search: how they were found, where a search found them.
    """

    row: TuningRow
    snapshot: SnapshotContent
    title: str
    recipe: Recipe
    search: SearchResult | None = None


class TuningRun:
    """Runs the tuning that `lease` gives a right to, and records how it ended."""

    def __init__(
        self, lease: Lease, settings: Settings, database: Database, storage: Storage
    ) -> None:
        self._lease, self._settings = lease, settings
        self._database, self._storage = database, storage
        self._observer = RowObserver(lease, settings.tuning, database, storage)

    def run(self) -> int:
        """Return an exit code, see `worker.exit_codes`."""
        return run_job(self._work, TUNINGS, self._lease, self._database)

    def stop(self) -> None:
        """Write a checkpoint at the end of this epoch, then give the tuning back."""
        self._observer.stopping = True

    def _work(self) -> None:
        job = patiently(self._read)
        if job.row.search is not None:
            found = self._search(job)
            job = job._replace(recipe=found.recipe, search=found.result)
        artifact = self._tune(job)
        self._record(artifact, job.title)

    def _read(self) -> Job:
        with self._database.reading() as session:
            row = TUNINGS.held(session, self._lease)
            if row is None:
                raise LeaseLost
            project = session.get_one(Project, row.project_id)
            snapshot = read_snapshot(session, self._storage, row.snapshot_id)
            return Job(row, snapshot, project.name, Recipe.model_validate(row.recipe))

    def _search(self, job: Job) -> Found:
        """Return the recipe that is best for these images, by trials on all workers."""
        queue = CeleryQueue(self._settings.queue)
        lead = SearchLead(
            job.row,
            self._lease,
            self._database,
            queue,
            self._settings.tuning,
            stopping=lambda: self._observer.stopping,
        )
        try:
            return patiently(lead.found) or self._lead(lead, job)
        finally:
            queue.close()

    def _lead(self, lead: SearchLead, job: Job) -> Found:
        backbone = self._backbone(job.row.backbone)
        data = training_data(
            job.snapshot.classes,
            job.snapshot.images,
            backbone,
            View.model_validate(job.row.view),
            self._features(),
            progress=self._encoded,
        )
        return lead.run(Trials(backbone, data, job.row.seed), data)

    def _encoded(self, done: int, total: int) -> None:
        self._observer.on_progress(TuningProgress("features", done, total))

    def _features(self) -> FeatureStore:
        return NotedFeatures(FolderFeatureStore(self._settings.feature_folder), self._observer)

    def _tune(self, job: Job) -> Artifact:
        kept = job.row.checkpoint
        checkpoint = self._checkpoint(kept)
        self._observer.gets_further = kept is None or checkpoint is not None
        try:
            artifact = self._run_core(job, checkpoint)
        except CheckpointMismatch as error:
            # Another kind of machine rounds otherwise: its work cannot be gone on with here.
            log.warning("checkpoint_unusable", error=str(error))
            self._observer.gets_further = False
            artifact = self._run_core(job, None)
        return artifact

    def _run_core(self, job: Job, checkpoint: Checkpoint | None) -> Artifact:
        row, snapshot = job.row, job.snapshot
        tuning = Tuning(
            snapshot.classes,
            snapshot.images,
            self._backbone(row.backbone),
            job.recipe,
            seed=row.seed,
            view=View.model_validate(row.view),
            store=self._features(),
            observer=self._observer,
            checkpoint=checkpoint,
        )
        return tuning.run().with_search(job.search)

    def _backbone(self, source: str) -> Backbone:
        return load_for_job(source, self._settings.backbone)

    def _checkpoint(self, sha256: str | None) -> Checkpoint | None:
        """Return where an earlier attempt stood; without one that can be read, start anew."""
        if sha256 is None:
            return None
        try:
            return Checkpoint.from_bytes(self._storage.read(sha256))
        except (ShotlineError, OSError) as error:
            log.warning("checkpoint_unusable", error=str(error))
            return None

    def _record(self, artifact: Artifact, title: str) -> None:
        """Store the artifact first, then record the version and the success in one transaction."""
        new = NewVersion(
            digest=artifact.digest,
            artifact_sha256=self._storage.put(artifact.to_bytes()),
            report_sha256=self._report(artifact, title),
            backbone=artifact.header.backbone,
            backbone_digest=artifact.header.backbone_digest,
            classes=[spec.model_dump() for spec in artifact.header.classes],
            # By way of text: what is not a number becomes null, which every database can keep.
            metrics=cast("dict[str, Any]", json.loads(artifact.header.metrics.model_dump_json())),
        )
        number = patiently(lambda: self._succeed(new))
        log.info("succeeded", version=number, digest=artifact.digest)

    def _report(self, artifact: Artifact, title: str) -> str | None:
        """Store the HTML report; a version without one is better than none."""
        try:
            page = render_report(ReportData.from_artifact(artifact, title=title))
            return self._storage.put(page.encode())
        except Exception:
            log.exception("report_failed")
            return None

    def _succeed(self, new: NewVersion) -> int:
        with self._database.unit_of_work() as session:
            row = TUNINGS.held(session, self._lease)
            if row is None or not TUNINGS.complete(session, self._lease):
                raise LeaseLost
            return add_version(session, row, new).number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], TUNINGS.noun, TuningRun))
