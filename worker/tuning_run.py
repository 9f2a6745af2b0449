"""The child: runs one tuning. Knows nothing of Celery, and alone touches torch and the device.

`python -m worker.tuning_run TUNING ATTEMPT`, started by `worker.supervisor`. Every write is
conditional on the lease, so a child that outlives its claim can change nothing.
"""

import sys
from typing import NamedTuple

import structlog

from app.core.database import Database
from app.core.jobs import TUNINGS, Lease
from app.core.queue import CeleryQueue
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Project
from app.core.tables import Tuning as TuningRow
from app.core.types import as_json
from app.findings import service as findings_service
from app.projects.gate_policy import GatePolicy
from app.registry import gates
from app.registry.service import NewVersion, add_version, become_candidate
from app.snapshots.service import SnapshotContent, read_snapshot
from models.artifact import Artifact
from models.backbone import Backbone
from models.checkpoint import Checkpoint
from models.errors import Cancelled, CheckpointMismatch, ShotlineError
from models.faults import fault_of
from models.features import FeatureStore, FolderFeatureStore
from models.findings.finding import Finding, FindingSummary, summaries
from models.findings.trait_store import FolderTraitStore
from models.imaging import View
from models.recipe import Recipe
from models.report import Mistake
from models.report.kept import KeptReport
from models.report.pictures import draw_mistakes
from models.search.data import training_data
from models.search.result import SearchResult
from models.search.trial import Trials
from models.threads import fixed_threads
from models.tuning import Tuning, TuningProgress
from worker.backbone import load_for_job
from worker.child import LeaseLost, main, patiently, run_job
from worker.examining import examine_images
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
        backbone = load_for_job(job.row.backbone, self._settings.backbone)
        found = self._examine(job, backbone)
        if job.row.search is not None:
            chosen = self._search(job, backbone)
            job = job._replace(recipe=chosen.recipe, search=chosen.result)
        artifact = self._tune(job, backbone)
        self._record(artifact.with_metrics(search=job.search, findings=found), job, backbone)

    def _read(self) -> Job:
        with self._database.reading() as session:
            row = TUNINGS.held(session, self._lease)
            if row is None:
                raise LeaseLost
            project = session.get_one(Project, row.project_id)
            snapshot = read_snapshot(session, self._storage, row.snapshot_id)
            return Job(row, snapshot, project.name, Recipe.model_validate(row.recipe))

    def _examine(self, job: Job, backbone: Backbone) -> list[FindingSummary] | None:
        """Have the data doctor look at the snapshot, unless an earlier attempt has.

        A tuning without its findings is better than none: whatever goes wrong here is only logged.
        """
        row, snapshot = job.row, job.snapshot
        if row.findings is not None:
            return [FindingSummary.model_validate(one) for one in row.findings]
        try:
            found = examine_images(
                snapshot.classes,
                snapshot.images,
                backbone,
                View.model_validate(row.view),
                self._features(),
                FolderTraitStore(self._settings.feature_folder),
                recipe=job.recipe,
                progress=self._on_features,
            )
            summary = summaries(found)
            patiently(lambda: self._note_findings(snapshot, found, summary))
        except Cancelled:
            raise
        except Exception as error:
            if fault_of(error) == "lost":
                raise
            log.exception("examination_failed")
            return None
        return summary

    def _on_features(self, done: int, total: int) -> None:
        self._observer.on_progress(TuningProgress("features", done, total))

    def _note_findings(
        self, snapshot: SnapshotContent, found: list[Finding], summary: list[FindingSummary]
    ) -> None:
        shown = [one.model_dump(mode="json") for one in summary]
        with self._database.unit_of_work() as session:
            row = TUNINGS.held(session, self._lease)
            if row is None or TUNINGS.note(session, self._lease, findings=shown) == "lost":
                raise LeaseLost
            findings_service.record_for_tuning(
                session, row, snapshot.digest, len(snapshot.images), found
            )

    def _search(self, job: Job, backbone: Backbone) -> Found:
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
            return patiently(lead.found) or self._lead(lead, job, backbone)
        finally:
            queue.close()

    def _lead(self, lead: SearchLead, job: Job, backbone: Backbone) -> Found:
        data = training_data(
            job.snapshot.classes,
            job.snapshot.images,
            backbone,
            View.model_validate(job.row.view),
            self._features(),
            progress=self._on_features,
        )
        return lead.run(Trials(backbone, data, job.row.seed), data)

    def _features(self) -> FeatureStore:
        return NotedFeatures(FolderFeatureStore(self._settings.feature_folder), self._observer)

    def _tune(self, job: Job, backbone: Backbone) -> Artifact:
        kept = job.row.checkpoint
        checkpoint = self._checkpoint(kept)
        self._observer.gets_further = kept is None or checkpoint is not None
        try:
            artifact = self._run_core(job, backbone, checkpoint)
        except CheckpointMismatch as error:
            # Another kind of machine rounds otherwise: its work cannot be gone on with here.
            log.warning("checkpoint_unusable", error=str(error))
            self._observer.gets_further = False
            artifact = self._run_core(job, backbone, None)
        return artifact

    def _run_core(self, job: Job, backbone: Backbone, checkpoint: Checkpoint | None) -> Artifact:
        row, snapshot = job.row, job.snapshot
        tuning = Tuning(
            snapshot.classes,
            snapshot.images,
            backbone,
            job.recipe,
            seed=row.seed,
            view=View.model_validate(row.view),
            store=self._features(),
            observer=self._observer,
            checkpoint=checkpoint,
        )
        return tuning.run()

    def _checkpoint(self, sha256: str | None) -> Checkpoint | None:
        """Return where an earlier attempt stood; without one that can be read, start anew."""
        if sha256 is None:
            return None
        try:
            return Checkpoint.from_bytes(self._storage.read(sha256))
        except (ShotlineError, OSError) as error:
            log.warning("checkpoint_unusable", error=str(error))
            return None

    def _record(self, artifact: Artifact, job: Job, backbone: Backbone) -> None:
        """Store the artifact first, then record the version and the success in one transaction."""
        new = NewVersion(
            digest=artifact.digest,
            artifact_sha256=self._storage.put(artifact.to_bytes()),
            report_sha256=self._report(artifact, job, backbone),
            backbone=artifact.header.backbone,
            backbone_digest=artifact.header.backbone_digest,
            classes=[spec.model_dump() for spec in artifact.header.classes],
            metrics=as_json(artifact.header.metrics),
        )
        number = patiently(lambda: self._succeed(new))
        log.info("succeeded", version=number, digest=artifact.digest)

    def _report(self, artifact: Artifact, job: Job, backbone: Backbone) -> str | None:
        """Store what the report needs beside the artifact; a version is there without it, too."""
        try:
            kept = KeptReport(title=job.title, mistakes=self._mistakes(artifact, job, backbone))
            return self._storage.put(kept.to_bytes())
        except Exception:
            log.exception("report_failed")
            return None

    def _mistakes(self, artifact: Artifact, job: Job, backbone: Backbone) -> list[Mistake]:
        """Draw the mistakes; no pictures where the device or a photograph does not allow it."""
        try:
            with fixed_threads(artifact.header.recipe.threads):
                return draw_mistakes(artifact, job.snapshot.images, backbone)
        except Exception:
            log.exception("pictures_failed")
            return [Mistake(**one.model_dump()) for one in artifact.header.metrics.wrong or ()]

    def _succeed(self, new: NewVersion) -> int:
        with self._database.unit_of_work() as session:
            row = TUNINGS.held(session, self._lease)
            if row is None or not TUNINGS.complete(session, self._lease):
                raise LeaseLost
            version = add_version(session, row, new)
            become_candidate(session, version)
            project = session.get_one(Project, row.project_id)
            if GatePolicy.of(project.gates, self._settings.gates).enabled:
                gates.queue_run(session, version)  # the supervisor wakes a worker for it
            return version.number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], TUNINGS.noun, TuningRun))
