"""What has expired: records of predictions and the images kept with them, by the project's rules.

A rule is a number of days, or None for ever; a project has its own, or the box's. Labelled images,
snapshots and versions never expire. A record goes with its image; the bytes themselves go by the
sweep of orphans, once nothing names them: what a snapshot or a labelled image holds stays.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import select

from app.core.background import Repeater
from app.core.clock import utc_now
from app.core.database import Database, database_now
from app.core.ids import first_id_at
from app.core.settings import RetentionSettings
from app.core.tables import Project
from app.predictions import repository

log = structlog.get_logger(__name__)

# So many rows go in one transaction, and so many seconds pass before the next: on SQLite it holds
# up every other writer.
_PORTION = 500
_PAUSE_SECONDS = 0.05
# Clocks that differ by more than this cannot both be right, and what is deleted is gone.
_CLOCKS_APART = timedelta(days=1)


class Rules(NamedTuple):
    """Days for which a project's records and the images kept with them stay; None: for ever."""

    predictions_days: int | None
    images_days: int | None

    @classmethod
    def of(cls, stored: Mapping[str, Any], settings: RetentionSettings) -> "Rules":
        """Return a project's rules: its own, else those of the box."""
        return cls(
            stored.get("predictions_days", settings.predictions_days),
            stored.get("images_days", settings.images_days),
        )


class Swept(NamedTuple):
    """What a sweep took of one project."""

    project: UUID
    predictions: int
    images: int


class RetentionSweep:
    """Looks again and again for what has expired; many gateways may.

    Args:
        database: holds the rules and the records.
        settings: the box's rules, and how often to look.
        registry: of the metrics.
    """

    def __init__(
        self, database: Database, settings: RetentionSettings, registry: CollectorRegistry
    ) -> None:
        self._database, self._settings = database, settings
        self._stopped = threading.Event()
        self._repeater = Repeater("retention", self.sweep, settings.sweep_seconds)
        self._predictions = Counter(
            "shotline_retention_predictions_deleted",
            "Records of predictions that expired and were deleted.",
            registry=registry,
        )
        self._images = Counter(
            "shotline_retention_images_dropped",
            "Images kept with predictions that expired.",
            registry=registry,
        )

    def start(self) -> None:
        """Start to look."""
        self._repeater.start()

    def stop(self) -> None:
        """Stop after the transaction that is under way."""
        self._stopped.set()
        self._repeater.stop()

    def sweep(self) -> list[Swept]:
        """Delete what has expired now; return what was taken of each project.

        Raises:
            Unavailable, StorageFull: the database; what was taken before stays taken.
        """
        with self._database.reading() as session:
            now = session.execute(select(database_now())).scalar_one()
            rules = {
                project: Rules.of(stored, self._settings)
                for project, stored in session.execute(select(Project.id, Project.retention))
            }
        if abs(now - utc_now()) > _CLOCKS_APART:
            log.warning("retention_waits", database=str(now), gateway=str(utc_now()))
            return []
        swept = [self._sweep_project(project, rule, now) for project, rule in rules.items()]
        return [one for one in swept if one.predictions or one.images]

    def _sweep_project(self, project: UUID, rules: Rules, now: datetime) -> Swept:
        predictions = images = 0
        for days, take in (
            (rules.predictions_days, repository.delete_expired),
            (rules.images_days, repository.drop_expired_images),
        ):
            for taken in () if days is None else self._portions(project, days, now, take):
                predictions += taken.predictions
                images += taken.images
        if predictions or images:
            log.info(
                "retention_swept", project=str(project), predictions=predictions, images=images
            )
        return Swept(project, predictions, images)

    def _portions(
        self, project: UUID, days: int, now: datetime, take: Callable[..., repository.Expired]
    ) -> Iterator[repository.Expired]:
        """Take one portion after the other until there are no more, each in its transaction."""
        before = first_id_at(now - timedelta(days=days))
        while not self._stopped.is_set():
            with self._database.unit_of_work() as session:
                taken = take(session, project, before, limit=_PORTION)
            self._predictions.inc(taken.predictions)
            self._images.inc(taken.images)
            yield taken
            if taken.rows < _PORTION:
                return
            self._stopped.wait(_PAUSE_SECONDS)
