"""What the line was told, written behind its back: predictions never wait for the database.

A bounded queue and one thread. While the database is away the queue fills; what does not fit is
lost and counted. Images that are to be kept travel with their record, under a limit of their own.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.disk import Puts
from app.core.errors import Unavailable
from app.core.settings import PredictionSettings
from app.core.storage import keep_young
from app.core.tables import PredictionRecord
from app.predictions import repository
from app.predictions.metrics import PredictionMetrics
from app.shadow.scoring import Shadow, answers
from models.errors import ShotlineError, StorageFull

log = structlog.get_logger(__name__)

_BATCH = 200
# A transaction for each prediction would cost as much as the rest of its request.
_GATHER_SECONDS = 0.25
_RETRY_SECONDS = 0.5
# A database that answers nothing must not hold up the end.
_STOP_SECONDS = 10.0
# Another gateway may keep images of the same project: its total is read again after so long.
_TOTAL_SECONDS = 60.0
# Down to so much of the quota, so that a full one is not counted anew for every image.
_KEPT_SHARE = 0.95


@dataclass
class NewRecord:
    """A prediction to be recorded, and the image to be kept with it.

    Attributes:
        values: the record.
        image: to be kept.
        shadow: what scores it by the candidate, until that is done.
        only_if_differs: the image is kept where the candidate says something else.
        beside: what the candidate said, as a row.
    """

    values: dict[str, Any]
    image: bytes | None = None
    shadow: Shadow | None = None
    only_if_differs: bool = False
    beside: dict[str, Any] | None = None

    @property
    def id(self) -> UUID:
        """The prediction's id."""
        found: UUID = self.values["id"]
        return found


class RecordWriter:
    """Writes predictions in the background, within a second of the answer."""

    def __init__(
        self,
        database: Database,
        storage: Puts,
        settings: PredictionSettings,
        metrics: PredictionMetrics,
    ) -> None:
        self._database, self._storage = database, storage
        self._settings, self._metrics = settings, metrics
        self._waiting: deque[NewRecord] = deque()
        self._pending: dict[UUID, NewRecord] = {}
        self._image_bytes = 0
        self._totals: dict[UUID, tuple[int, float]] = {}
        lock = threading.RLock()
        self._changed, self._written = threading.Condition(lock), threading.Condition(lock)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, if the database can be reached, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def add(self, record: NewRecord) -> None:
        """Have a prediction recorded; never waits, and never fails."""
        with self._changed:
            if len(self._pending) >= self._settings.record_queue:
                self._metrics.records_lost.inc()
                return
            self._make_room(record)
            self._waiting.append(record)
            self._pending[record.id] = record
            self._metrics.records_waiting.set(len(self._pending))
            if len(self._waiting) in (1, _BATCH):  # else the writer has no need to look
                self._changed.notify()

    def pending(self, prediction_id: UUID) -> PredictionRecord | None:
        """Return a prediction that is not in the database yet."""
        found = self._pending.get(prediction_id)
        return None if found is None else PredictionRecord(**found.values)

    def wait_until_written(self, prediction_id: UUID, seconds: float) -> None:
        """Wait until a prediction is in the database, or cannot be, or `seconds` are over."""
        with self._written:
            self._written.wait_for(lambda: prediction_id not in self._pending, seconds)

    def waits_for(self, version_id: UUID) -> bool:
        """Say whether a prediction by the version is not in the database yet."""
        with self._changed:
            return any(
                record.values["model_version_id"] == version_id for record in self._pending.values()
            )

    def _make_room(self, record: NewRecord) -> None:
        if record.image is None:
            return
        room = self._settings.record_image_bytes
        if record.only_if_differs:  # it may not be wanted: others that are have half of the room
            room //= 2
        if self._image_bytes + len(record.image) > room:
            record.image = None
            self._metrics.images_lost.inc(not record.only_if_differs)
        else:
            self._image_bytes += len(record.image)

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._score(batch)
                self._keep_images(batch)
                self._keep_quota(self._write(batch))
            except (Unavailable, StorageFull) as error:
                self._try_again(batch, error)
            except Exception:  # a thread that dies would lose all that comes
                log.exception("records_lost", records=len(batch))
                self._metrics.records_lost.inc(len(batch))
                self._forget(batch)
            else:
                self._forget(batch)

    def _take(self) -> list[NewRecord]:
        """Return what came within a moment, nothing when stopping; blocks while nothing does."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            self._changed.wait_for(
                lambda: len(self._waiting) >= _BATCH or self._stopping, _GATHER_SECONDS
            )
            return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]

    def _forget(self, batch: Sequence[NewRecord]) -> None:
        with self._changed:
            for record in batch:
                self._pending.pop(record.id, None)
            self._written.notify_all()
            self._metrics.records_waiting.set(len(self._pending))

    def _try_again(self, batch: Sequence[NewRecord], error: ShotlineError) -> None:
        with self._changed:
            if self._stopping:
                log.warning("records_lost", records=len(self._pending), error=str(error))
                self._metrics.records_lost.inc(len(self._pending))
                self._waiting.clear()
                return
            self._waiting.extendleft(reversed(batch))
            self._changed.wait_for(lambda: self._stopping, _RETRY_SECONDS)

    def _score(self, batch: Sequence[NewRecord]) -> None:
        """Have the candidate answer what it is to answer; whatever happens, the records stay."""
        asked = [(record, record.shadow) for record in batch if record.shadow is not None]
        if not asked:
            return
        try:
            found = answers([shadow for _, shadow in asked], [record.values for record, _ in asked])
        except Exception:
            log.exception("shadow_failed", images=len(asked))
            self._metrics.shadow_failed.inc(len(asked))
            found = []
        for record, _ in asked:
            record.shadow = None
        for (record, _), beside in zip(asked, found, strict=False):
            record.beside = beside
            self._metrics.shadow.labels("no" if beside["differs"] else "yes").inc()
        for record, _ in asked:
            differs = record.beside is not None and record.beside["differs"]
            if record.only_if_differs and not differs and record.image is not None:
                with self._changed:
                    self._image_bytes -= len(record.image)
                record.image = None

    def _keep_images(self, batch: Sequence[NewRecord]) -> None:
        for record in batch:
            if record.image is None:
                self._hold_image(record)
                continue
            image, record.image = record.image, None
            with self._changed:
                self._image_bytes -= len(image)
            try:
                sha256 = self._storage.put(image)
            except StorageFull:  # that the disk is full is logged once, and not for every image
                self._metrics.images_lost.inc()
            except Exception:
                log.warning("image_not_kept", exc_info=True)
                self._metrics.images_lost.inc()
            else:
                record.values |= {"image_sha256": sha256, "image_bytes": len(image)}

    def _hold_image(self, record: NewRecord) -> None:
        """See to the image of a record that is tried again: it may wait longer than the sweep."""
        sha256 = record.values["image_sha256"]
        try:
            gone = sha256 is not None and keep_young(self._storage, [sha256])
        except OSError:  # nobody can say: the record itself must not be lost for that
            log.warning("image_not_held", exc_info=True)
            return
        if gone:
            record.values |= {"image_sha256": None, "image_bytes": None}
            self._metrics.images_lost.inc()

    def _write(self, batch: Sequence[NewRecord]) -> Sequence[NewRecord]:
        """Return what was written: all, where none among them is one that no database takes.

        Raises:
            Unavailable, StorageFull: to be tried again.
        """
        try:
            self._insert(batch)
        except (Unavailable, StorageFull):
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the others must not be lost with it
            if len(batch) == 1:  # a project was deleted under it, for example
                self._lose(batch[0])
                return []
            return [record for one in batch for record in self._write([one])]
        return batch

    def _lose(self, record: NewRecord) -> None:
        """Count a record that no database takes, once although it may be tried again."""
        if record.id in self._pending:
            log.warning("record_lost", prediction_id=str(record.id), exc_info=True)
            self._metrics.records_lost.inc()
            self._forget([record])

    def _insert(self, batch: Sequence[NewRecord]) -> None:
        beside = [record.beside for record in batch if record.beside is not None]
        with self._database.unit_of_work() as session:
            repository.add_all(session, [record.values for record in batch])
            if beside:
                self._insert_beside(session, beside)

    def _insert_beside(self, session: Session, rows: Sequence[dict[str, Any]]) -> None:
        try:
            with session.begin_nested():
                repository.add_shadows(session, rows)
        except IntegrityError:  # the candidate was deleted meanwhile: the records stay
            log.warning("shadow_not_kept", images=len(rows), exc_info=True)
            self._metrics.shadow_failed.inc(len(rows))

    def _keep_quota(self, batch: Sequence[NewRecord]) -> None:
        added: dict[UUID, int] = {}
        for record in batch:
            if size := record.values.get("image_bytes"):
                project = record.values["project_id"]
                added[project] = added.get(project, 0) + size
        try:
            self._keep_quota_of(added)
        except Exception:  # the next image kept looks again
            log.warning("quota_not_kept", exc_info=True)

    def _keep_quota_of(self, added: Mapping[UUID, int]) -> None:
        """Drop the oldest images of projects that have too many bytes of them now.

        One look for all projects of a batch: it may have as many as it has images.
        """
        now, quota = time.monotonic(), self._settings.image_quota_bytes
        asked = []
        for project, size in added.items():
            total, read_at = self._totals.get(project, (0, -_TOTAL_SECONDS))
            self._totals[project] = (total + size, read_at)
            if total + size > quota or now - read_at >= _TOTAL_SECONDS:
                asked.append(project)
        if not asked:
            return
        with self._database.unit_of_work() as session:
            found = repository.kept_bytes(session, asked)
            for project, total in found.items():
                if total > quota:
                    surplus = total - int(quota * _KEPT_SHARE)
                    found[project] -= repository.drop_oldest_images(session, project, surplus)
        self._totals.update({project: (total, now) for project, total in found.items()})
