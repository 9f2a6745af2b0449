"""The child: runs one tuning. Knows nothing of Celery, and alone touches torch and the device.

`python -m worker.tuning_run TUNING ATTEMPT`, started by `worker.supervisor`. Every write is
conditional on the lease, so a child that outlives its claim can change nothing.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

import structlog
import torch

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.logging import configure_logging
from app.core.settings import Settings
from app.core.storage import LocalStorage, Storage
from app.core.tables import Project
from app.core.tables import Tuning as TuningRow
from app.registry.service import NewVersion, add_version
from app.snapshots.service import SnapshotContent, read_snapshot
from app.tunings import repository, states
from app.tunings.states import Failure, Lease
from models.artifact import Artifact
from models.backbone import Backbone, Device
from models.backbone_source import load_backbone
from models.checkpoint import Checkpoint
from models.errors import ShotlineError
from models.features import FolderFeatureStore
from models.imaging import View
from models.recipe import Recipe
from models.report import ReportData, render_report
from models.tuning import Tuning
from worker import exit_codes
from worker.observer import HandedBack, LeaseLost, RowObserver

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

# A result that took minutes to compute is worth waiting for a database that restarts.
_PATIENCE_SECONDS, _RETRY_SECONDS = 600.0, 1.0


class Job(NamedTuple):
    """What is to be done: the row, what it runs on, and the project's name."""

    row: TuningRow
    snapshot: SnapshotContent
    title: str


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
        try:
            job = patiently(self._read)
            artifact = self._tune(job.row, job.snapshot)
            self._record(artifact, job.title)
        except LeaseLost:
            log.info("lease_lost")
            return exit_codes.LEASE_LOST
        except (HandedBack, Unavailable) as error:
            log.info("handed_back", reason=str(error))
            return exit_codes.HANDED_BACK
        except ShotlineError as error:
            log.warning("failed", error=str(error))
            return self._fail(states.failure_of(error))
        except Exception as error:
            log.exception("unforeseen_error")
            return self._fail(_unforeseen(error))
        return exit_codes.DONE

    def stop(self) -> None:
        """Write a checkpoint at the end of this epoch, then give the tuning back."""
        self._observer.stopping = True

    def _read(self) -> Job:
        with self._database.reading() as session:
            row = repository.held(session, self._lease)
            if row is None:
                raise LeaseLost
            project = session.get_one(Project, row.project_id)
            snapshot = read_snapshot(session, self._storage, row.snapshot_id)
            return Job(row, snapshot, project.name)

    def _tune(self, row: TuningRow, snapshot: SnapshotContent) -> Artifact:
        recipe = Recipe.model_validate(row.recipe)
        tuning = Tuning(
            snapshot.classes,
            snapshot.images,
            self._backbone(row.backbone),
            recipe,
            seed=row.seed,
            view=View.model_validate(row.view),
            store=FolderFeatureStore(self._settings.feature_folder),
            observer=self._observer,
            checkpoint=self._checkpoint(row.checkpoint),
        )
        return tuning.run()

    def _backbone(self, source: str) -> Backbone:
        settings = self._settings.backbone
        return load_backbone(
            source,
            device=cast("Device", settings.device),
            precision=settings.precision,
            offline=settings.offline,
        )

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
            row = repository.held(session, self._lease)
            if row is None or not states.complete(session, self._lease):
                raise LeaseLost
            return add_version(session, row, new).number

    def _fail(self, failure: Failure) -> int:
        def write() -> bool:
            with self._database.unit_of_work() as session:
                return states.fail(session, self._lease, failure)

        try:
            return exit_codes.DONE if patiently(write) else exit_codes.LEASE_LOST
        except Unavailable:
            return exit_codes.HANDED_BACK


def patiently(action: Callable[[], Result]) -> Result:
    """Return what `action` does, trying again while the database is away.

    Raises:
        Unavailable: it stayed away for ten minutes.
    """
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return action()
        except Unavailable:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_RETRY_SECONDS)


def _unforeseen(error: Exception) -> Failure:
    if isinstance(error, torch.OutOfMemoryError):
        return Failure(
            problem="The device ran out of memory.",
            fix="Use a smaller backbone, or free the device of other work, then start it again.",
        )
    return Failure(
        problem=f"The tuning met an error that nobody foresaw ({type(error).__name__}).",
        fix="Look for the tuning's id in the worker's log, and report what it says there.",
    )


def _end_with_supervisor() -> None:
    """Kill this process when the supervisor, who holds our standard input open, has gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(exit_codes.HANDED_BACK)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run the tuning that the command line names."""
    settings = Settings()
    configure_logging(settings.log)
    _end_with_supervisor()
    os.nice(settings.tuning.nice)
    lease = Lease(UUID(arguments[0]), int(arguments[1]))
    database = Database.of(settings)
    run = TuningRun(lease, settings, database, LocalStorage(settings.blob_folder))
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    with structlog.contextvars.bound_contextvars(
        tuning_id=str(lease.tuning_id), attempt=lease.attempt
    ):
        try:
            return run.run()
        finally:
            database.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
