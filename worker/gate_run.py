"""The child: measures a version against what it is to replace.

`python -m worker.gate_run RUN ATTEMPT`, started by `worker.supervisor`. Every write is conditional
on the lease, so a child that outlives its claim can change nothing.
"""

import math
import sys
import time
from typing import NamedTuple

import structlog
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.jobs import GATES, Lease
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import ModelVersion, Project, Tuning
from app.core.types import as_json
from app.predictions.model import read_artifact_of
from app.predictions.repository import Version
from app.snapshots.service import labelled_images, read_snapshot
from models.artifact import Artifact
from models.backbone import Backbone
from models.contest import Contender, Contest
from models.dataset import LabelledImage
from models.evaluation.contest import GateResult
from models.features import FolderFeatureStore
from models.tuning import TuningProgress
from worker.backbone import load_for_job
from worker.child import HandedBack, LeaseLost, main, patiently, run_job
from worker.observer import note, progress_as_json

log = structlog.get_logger(__name__)


class Side(NamedTuple):
    """A version, and the images that it was tuned on."""

    number: int
    artifact: Artifact
    train: list[LabelledImage]


class Job(NamedTuple):
    """What is to be done: the labelled images as they are now, and the two versions."""

    images: list[LabelledImage]
    candidate: Side
    production: Side | None


class GateChild:
    """Runs the gates that `lease` gives a right to, and records what was found."""

    def __init__(
        self, lease: Lease, settings: Settings, database: Database, storage: Storage
    ) -> None:
        self._lease, self._settings = lease, settings
        self._database, self._storage = database, storage
        self._told_at = -math.inf
        self._stopping = False

    def run(self) -> int:
        """Return an exit code, see `worker.exit_codes`."""
        return run_job(self._work, GATES, self._lease, self._database)

    def stop(self) -> None:
        """Give the run back; only features are kept."""
        self._stopping = True

    def _work(self) -> None:
        job = patiently(self._read)
        result = self._measure(job)
        patiently(lambda: self._succeed(result))
        log.info("succeeded", version=job.candidate.number, seconds=result.seconds)

    def _read(self) -> Job:
        with self._database.reading() as session:
            row = GATES.held(session, self._lease)
            if row is None:
                raise LeaseLost
            against = row.against_id
            project = session.get_one(Project, row.project_id)
            candidate = self._side(session, session.get_one(ModelVersion, row.version_id))
            return Job(
                labelled_images(session, project, self._storage).labelled,
                candidate,
                None
                if against is None
                else self._side(session, session.get_one(ModelVersion, against)),
            )

    def _side(self, session: Session, row: ModelVersion) -> Side:
        version = Version(row.id, row.project_id, row.number, row.artifact_sha256)
        snapshot = session.get_one(Tuning, row.tuning_id).snapshot_id
        content = read_snapshot(session, self._storage, snapshot)
        train = [image for image in content.images if image.split == "train"]
        return Side(row.number, read_artifact_of(version, self._storage), train)

    def _measure(self, job: Job) -> GateResult:
        loaded: dict[str, Backbone] = {}

        def contender(side: Side) -> Contender:
            header = side.artifact.header
            if header.backbone_digest not in loaded:
                loaded[header.backbone_digest] = load_for_job(
                    header.backbone, self._settings.backbone
                )
            backbone = loaded[header.backbone_digest]
            return Contender(f"version {side.number}", side.artifact, backbone, side.train)

        contest = Contest(
            job.images,
            contender(job.candidate),
            None if job.production is None else contender(job.production),
            store=FolderFeatureStore(self._settings.feature_folder),
            told=self._told,
        )
        return contest.run()

    def _told(self, progress: TuningProgress) -> None:
        """Write how far the run is, unless that was done a moment ago.

        Raises:
            LeaseLost: the run is not ours any more.
            HandedBack: the worker was told to stop.
        """
        if self._stopping:
            raise HandedBack("The worker was told to stop.")
        now = time.monotonic()
        if now - self._told_at < self._settings.tuning.progress_seconds:
            return
        self._told_at = now
        note(self._database, GATES, self._lease, progress=progress_as_json(progress))

    def _succeed(self, result: GateResult) -> None:
        with self._database.unit_of_work() as session:
            standing = GATES.note(session, self._lease, result=as_json(result))
            if standing != "held" or not GATES.complete(session, self._lease):
                raise LeaseLost


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], GATES.noun, GateChild))
