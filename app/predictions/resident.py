"""The models in memory: what every project's `production` is, and the class embeddings behind it.

A background thread reads projects and aliases from the database every second and loads whatever is
new before it swaps the index in one assignment: no prediction waits for the database or for a file,
none sees half a promotion, and all go on from memory while the database is away.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import structlog
from jaxtyping import Float

from app.core.database import Database
from app.core.errors import Conflict, Damaged, NotFound, Unavailable
from app.core.storage import Storage
from app.core.tables import ModelVersion
from app.predictions import repository
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.metrics import PredictionMetrics
from app.predictions.repository import Served
from models.artifact import Artifact
from models.classes import ClassSpec
from models.errors import ArtifactMismatch, ShotlineError
from models.imaging import View

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ResidentModel:
    """A version as predictions need it: a few kilobytes."""

    id: UUID
    project_id: UUID
    number: int
    digest: str
    backbone: str
    backbone_digest: str
    classes: list[ClassSpec]
    view: View
    embeddings: Float[np.ndarray, "n_classes embed_dim"]
    logit_scale: float

    def check_encoder(self, encoder: ImageEncoder) -> None:
        """Raise `ArtifactMismatch` where the gateway's backbone is not this version's."""
        if self.backbone_digest != encoder.digest:
            raise ArtifactMismatch(
                f"Version {self.number} was tuned for the backbone {self.backbone!r}"
                f" ({self.backbone_digest[:19]}…); this gateway has {encoder.source!r}"
                f" ({encoder.digest[:19]}…).",
                fix="Set SHOTLINE_BACKBONE_SOURCE to the one it was tuned for, or tune again.",
                field="backbone",
            )


@dataclass
class _Residents:
    """Versions by id; one that could not be loaded is its error, and is tried again."""

    by_id: dict[UUID, ResidentModel | ShotlineError] = field(default_factory=dict)

    def lacks(self, version_id: UUID) -> bool:
        return not isinstance(self.by_id.get(version_id), ResidentModel)

    def get(self, version_id: UUID) -> ResidentModel:
        found = self.by_id.get(version_id)
        if found is None:
            raise NotFound.of("model", version_id)
        if isinstance(found, ShotlineError):
            raise found.with_traceback(None)  # or it would grow with every raise
        return found


class ModelCache:
    """Finds the model for a prediction; `refresh` runs in the background."""

    def __init__(self, database: Database, storage: Storage, metrics: PredictionMetrics) -> None:
        self._database, self._storage, self._metrics = database, storage, metrics
        self._projects: Mapping[UUID, Served] | None = None
        self._residents = _Residents()
        self._refreshing = threading.Lock()

    def refresh(self) -> None:
        """Read what each project serves, and load what is not in memory.

        Raises:
            Unavailable: the database is away; all stays as it was.
        """
        with self._refreshing:
            with self._database.reading() as session:
                served = repository.served(session)
                wanted = {entry.production for entry in served.values() if entry.production}
                missing = [one for one in wanted if self._residents.lacks(one)]
                rows = repository.versions(session, missing)
                others = [one for one in self._residents.by_id if one not in wanted]
                there = wanted | repository.existing(session, others)
            for row in rows:
                self._load(row)
            self._projects = served
            self._evict(there)

    def knows(self, project_id: UUID) -> bool:
        """Say whether the project was there when `refresh` last looked."""
        return self._projects is not None and project_id in self._projects

    def check(self) -> None:
        """Raise `Unavailable` where the database was never read."""
        self._loaded()

    def _loaded(self) -> Mapping[UUID, Served]:
        if self._projects is None:
            raise Unavailable(
                "The gateway has not been able to read its projects yet.",
                fix="Try again in a moment; if it stays so, see /readyz.",
            )
        return self._projects

    def project(self, project_id: UUID) -> Served:
        """Return what predictions need to know of a project, from memory.

        Raises:
            Unavailable: the database was never read.
            NotFound: no such project.
        """
        found = self._loaded().get(project_id)
        if found is None:
            raise NotFound.of("project", project_id)
        return found

    def production(self, project_id: UUID) -> ResidentModel:
        """Return the version that `production` names, from memory.

        Raises:
            Unavailable, NotFound: see `project`.
            Conflict: nothing was promoted yet.
            Damaged, DamagedArtifact, ArtifactMismatch: its artifact cannot be used.
        """
        version_id = self.project(project_id).production
        if version_id is None:
            raise Conflict(
                f"The project {str(project_id)!r} has no version in production yet.",
                fix="Tune it, then promote a version: PUT …/aliases/production.",
                field="project",
            )
        return self._residents.get(version_id)

    def resident(self, version_id: UUID) -> ResidentModel | None:
        """Return a version from memory, None where it is not there or its project is gone."""
        if self._residents.lacks(version_id):
            return None
        found = self._residents.get(version_id)
        return found if self.knows(found.project_id) else None

    def fetch(self, version_id: UUID) -> ResidentModel:
        """Return a version, loaded where it is not in memory; waits for the database.

        Raises:
            NotFound: no such version.
            Unavailable: the database is away.
            Damaged, DamagedArtifact, ArtifactMismatch: its artifact cannot be used.
        """
        with self._refreshing:
            with self._database.reading() as session:
                rows = repository.versions(session, [version_id])
            if not rows:
                raise NotFound.of("model", version_id)
            self._load(rows[0])
        return self._residents.get(version_id)

    def _evict(self, there: Collection[UUID]) -> None:
        for gone in [one for one in self._residents.by_id if one not in there]:
            del self._residents.by_id[gone]
        self._metrics.models.set(len(self._residents.by_id))

    def _load(self, row: ModelVersion) -> None:
        known = self._residents.by_id.get(row.id)
        try:
            self._residents.by_id[row.id] = _resident(row, self._storage)
        except ShotlineError as error:
            if known is None:  # one line, not one for every second that it stays so
                log.error("model_unusable", model=str(row.id), error=str(error))  # noqa: TRY400
            self._residents.by_id[row.id] = error
        self._metrics.models.set(len(self._residents.by_id))


def _resident(row: ModelVersion, storage: Storage) -> ResidentModel:
    name = f"The artifact of version {row.number}"
    try:
        data = storage.read(row.artifact_sha256)
    except (NotFound, OSError) as error:
        raise Damaged(
            f"{name} cannot be read from storage ({type(error).__name__}).",
            fix="Check the disk, and restore the blobs from a backup.",
        ) from error
    artifact = Artifact.from_bytes(data, name=name)
    header = artifact.header
    return ResidentModel(
        id=row.id,
        project_id=row.project_id,
        number=row.number,
        digest=artifact.digest,
        backbone=header.backbone,
        backbone_digest=header.backbone_digest,
        classes=header.classes,
        view=header.view,
        embeddings=artifact.class_embeddings,
        logit_scale=header.logit_scale,
    )
