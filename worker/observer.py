"""What a running tuning tells its row: progress and checkpoints, each conditional on the lease."""

import math
import time
from dataclasses import asdict
from typing import Any

import structlog
from torch import Tensor

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.jobs import TUNINGS, JobStates, Lease
from app.core.settings import TuningSettings
from app.core.storage import Storage
from models.checkpoint import Checkpoint
from models.errors import StorageFull
from models.features import FeatureKey, FeatureStore
from models.loss import EpochRecord
from models.tuning import TuningProgress
from worker.child import HandedBack, LeaseLost

log = structlog.get_logger(__name__)

_NC = ("text_nc2", "text_to_image_nc3", "lc", "mi")


class RowObserver:
    """Writes throttled progress and checkpoints; stops the tuning when the lease is gone.

    A database that is away for a while is no reason to stop: the next report says the same and
    more.

    What is kept for the next attempt clears the tuning of losses: it got further. An attempt that
    could not go on from where the last one stood is no nearer to the end, whatever it keeps.

    Attributes:
        stopping: set it to have a checkpoint written at the end of the epoch, and the work stopped.
        gets_further: set it to False where the attempt begins anew.
        keeps_features: set it where a feature was computed and stored.
    """

    def __init__(
        self, lease: Lease, settings: TuningSettings, database: Database, storage: Storage
    ) -> None:
        self._lease, self._settings = lease, settings
        self._database, self._storage = database, storage
        self._progress_at = self._checkpoint_at = -math.inf
        self._phase = ""
        self.stopping = self.keeps_features = False
        self.gets_further = True

    def on_progress(self, progress: TuningProgress) -> None:
        """Write how far the tuning is, unless that was done a moment ago.

        Raises:
            LeaseLost: the tuning is not ours any more.
            HandedBack: the worker was told to stop, and there is nothing to keep.
        """
        if self.stopping and progress.phase == "features" and progress.done < progress.total:
            raise HandedBack("The worker was told to stop.")  # what is done is in the store
        now = time.monotonic()
        due = now - self._progress_at >= self._settings.progress_seconds
        if due or progress.phase != self._phase or progress.done == progress.total:
            self._progress_at, self._phase = now, progress.phase
            values: dict[str, Any] = {"progress": progress_as_json(progress)}
            if self.keeps_features:
                values["losses"], self.keeps_features = 0, False
            note(self._database, TUNINGS, self._lease, **values)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep the checkpoint, unless one was kept a moment ago.

        Raises:
            LeaseLost: the tuning is not ours any more.
            HandedBack: the worker was told to stop.
        """
        now = time.monotonic()
        if now - self._checkpoint_at >= self._settings.checkpoint_seconds or self.stopping:
            self._checkpoint_at = now
            self._keep(checkpoint)
        if self.stopping:
            raise HandedBack("The worker was told to stop.")

    def _keep(self, checkpoint: Checkpoint) -> None:
        try:
            sha256 = self._storage.put(checkpoint.to_bytes())
        except StorageFull as error:  # the tuning itself needs little; it may yet succeed
            log.warning("checkpoint_not_kept", error=str(error))
            return
        values: dict[str, Any] = {"checkpoint": sha256}
        if self.gets_further:
            values["losses"] = 0
        note(self._database, TUNINGS, self._lease, **values)


def note(database: Database, jobs: JobStates[Any], lease: Lease, **values: Any) -> None:
    """Write into a job's row how far it is; a database that is away is told the next time.

    Raises:
        LeaseLost: the job is not ours any more.
    """
    try:
        with database.unit_of_work() as session:
            standing = jobs.note(session, lease, **values)
    except Unavailable as error:
        log.warning("report_not_written", error=str(error))
        return
    if standing != "held":
        raise LeaseLost


class NotedFeatures:
    """A feature store that tells the observer of what it keeps."""

    def __init__(self, store: FeatureStore, observer: RowObserver) -> None:
        self._store, self._observer = store, observer

    def get(self, key: FeatureKey) -> Tensor | None:
        """Return the feature, or `None` where it has not been computed."""
        return self._store.get(key)

    def put(self, key: FeatureKey, feature: Tensor) -> None:
        """Keep the feature."""
        self._store.put(key, feature)
        self._observer.keeps_features = True


def progress_as_json(progress: TuningProgress) -> dict[str, Any]:
    """Return progress as `app.tunings.schemas.ProgressOut` reads it; what is not finite is None."""
    shown: dict[str, Any] = {
        "phase": progress.phase,
        "done": progress.done,
        "total": progress.total,
        "seconds_left": _finite(progress.seconds_left),
    }
    if progress.record is not None:
        shown |= _record_as_json(progress.record)
    return shown


def _record_as_json(record: EpochRecord) -> dict[str, Any]:
    values = asdict(record)
    return {
        "epoch": record.epoch,
        "loss": _finite(record.loss),
        "nc": {name: _finite(values[name]) for name in _NC},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
