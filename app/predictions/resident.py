"""The models in memory: what every project's `production` is, and which versions are loaded.

A background thread looks for changes, two times a second: one row says whether there are any, and
what changed is read. A promoted version is loaded before it is served, and a project's entry is
swapped in one assignment: no prediction waits for the database, none sees half a promotion, and
all go on from memory while the database is away.

Embeddings are kept under a limit; the least recently used leave first, and are loaded again when
they are asked for, which takes their artifact's file alone.
"""

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple
from uuid import UUID

import structlog

from app.core.database import Database
from app.core.errors import Conflict, NotFound, Unavailable
from app.core.storage import Storage
from app.predictions import repository
from app.predictions.embeddings import EmbeddingStore, Head
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.metrics import PredictionMetrics
from app.predictions.model import ResidentModel, read_artifact_of, resident
from app.predictions.recency import RecentlyUsed
from app.predictions.repository import Revision, Served, Version
from models.artifact import Artifact
from models.errors import ShotlineError
from models.memory import settle

log = structlog.get_logger(__name__)

# Threads that read artifacts, and those that ask the database first, which may be away.
_READERS, _FINDERS = 4, 4
# Seconds: until a version that could not be loaded is tried again, and how long a load waits for
# models to leave that are still in use.
_RETRY, _PATIENCE = 1.0, 10.0
# What says nothing against the artifact.
_PASSING = (NotFound, Unavailable)


class _Failure(NamedTuple):
    error: ShotlineError
    until: float


class ModelCache:
    """Finds the model for a prediction; `refresh` and `preload` run in the background.

    Args:
        database: says what is served.
        storage: has the artifacts.
        encoder: returns the gateway's encoder, or raises where there is none yet; class embeddings
            of another are not kept.
        limit: bytes of embeddings in memory.
        metrics: counts models.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        encoder: Callable[[], ImageEncoder],
        limit: int,
        metrics: PredictionMetrics,
    ) -> None:
        self._database, self._storage, self._metrics = database, storage, metrics
        self._encoder = encoder
        self._store = EmbeddingStore(limit)
        self._models = RecentlyUsed()
        self._projects: dict[UUID, Served] | None = None
        self._seen: Revision | None = None
        self._refreshing = threading.Lock()
        self._to_preload: deque[UUID] = deque()  # projects
        self._changing = threading.Lock()  # over the two below
        self._loading: dict[UUID, Future[ResidentModel]] = {}
        self._failures: dict[UUID, _Failure] = {}
        self._readers = ThreadPoolExecutor(_READERS, "models")
        self._finders = ThreadPoolExecutor(_FINDERS, "versions")
        self._stopping = False
        self._settled = False
        metrics.models.set_function(lambda: len(self._models))
        metrics.model_bytes.set_function(lambda: self._store.used)

    def start(self) -> None:
        """Nothing to start: `refresh` and `preload` are called from outside."""

    def stop(self) -> None:
        """End what loads; `preload` returns soon."""
        self._stopping = True
        self._readers.shutdown()
        self._finders.shutdown()

    def refresh(self) -> None:
        """Read what changed since the last time.

        The first time everything is new and is served at once; `preload` brings it into memory.
        Later a version is loaded before its project is answered by it.

        Raises:
            Unavailable: the database is away; all stays as it was.
        """
        with self._refreshing:
            with self._database.reading() as session:
                now = repository.revision(session)
                if now == self._seen:
                    return
                since = _changed_since(self._seen, now)
                served = repository.served(session, since=since)
                held = self._held() if since is None else []
                there = repository.existing(session, held)
            if self._projects is None:
                self._projects = served
                self._to_preload.extend(served)
            elif since is None:
                self._forget(self._projects, served, [one for one in held if one not in there])
            self._serve_all(self._projects, served)
            self._seen = now

    def preload(self) -> None:
        """Load what is in production and not in memory, as long as there is room for it."""
        try:
            self._encoder()
        except ShotlineError:
            return  # the next call will do it
        while self._to_preload and not self._stopping:
            if self._store.full:
                self._to_preload.clear()  # the rest is loaded when it is asked for
                break
            served = (self._projects or {}).get(self._to_preload.popleft())
            if served is not None and served.production is not None:
                self._load_here(served.production)
        if not self._settled:
            self._settled = True
            settle()

    def knows(self, project_id: UUID) -> bool:
        """Say whether the project was there when `refresh` last looked."""
        return self._projects is not None and project_id in self._projects

    def check(self) -> None:
        """Raise `Unavailable` where the database was never read."""
        self._index()

    def _index(self) -> dict[UUID, Served]:
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
        found = self._index().get(project_id)
        if found is None:
            raise NotFound.of("project", project_id)
        return found

    def production(self, project_id: UUID) -> Version:
        """Return the version that `production` names, from memory.

        Raises:
            Unavailable, NotFound: see `project`.
            Conflict: nothing was promoted yet.
        """
        version = self.project(project_id).production
        if version is None:
            raise Conflict(
                f"The project {str(project_id)!r} has no version in production yet.",
                fix="Tune it, then promote a version: PUT …/aliases/production.",
                field="project",
            )
        return version

    def resident(self, version_id: UUID) -> ResidentModel | None:
        """Return a version from memory, None where it is not there or its project is gone."""
        found = self._models.use(version_id)
        return found if found is not None and self.knows(found.project_id) else None

    def load(self, version: Version) -> Future[ResidentModel]:
        """Bring a version into memory; its artifact is read on another thread.

        Whoever asks while it is being read waits for the same future, which is not to be
        cancelled. It may raise Damaged, DamagedArtifact, ArtifactMismatch or Conflict where the
        artifact cannot be used, and Unavailable where there is no encoder or no room for now.
        """
        return self._start(version.id, lambda: version, self._readers)

    def fetch(self, version_id: UUID) -> Future[ResidentModel]:
        """Bring a version into memory that only the database may know; see `load`.

        The future may also raise NotFound where there is no such version, and Unavailable where
        the database is away.
        """
        return self._start(version_id, lambda: self._find(version_id), self._finders)

    def _serve_all(self, projects: dict[UUID, Served], changed: dict[UUID, Served]) -> None:
        for project_id, served in changed.items():
            before = projects.get(project_id)
            if served == before:
                continue
            old, new = None if before is None else before.production, served.production
            if before is None:
                ready = new is None
            else:
                ready = new is None or new == old or self._load_here(new)
            projects[project_id] = served
            if old is not None:
                self._models.mark(old.id, production=False)
            if new is not None:
                self._models.mark(new.id, production=True)
            if not ready:
                self._to_preload.append(project_id)

    def _forget(
        self, projects: dict[UUID, Served], there: Collection[UUID], gone: list[UUID]
    ) -> None:
        """Remove projects that are not there, and versions that are gone."""
        for project_id in [one for one in projects if one not in there]:
            del projects[project_id]
        with self._changing:
            for version_id in gone:
                self._loading.pop(version_id, None)  # see `_settle`
                self._failures.pop(version_id, None)
                self._models.drop(version_id)

    def _held(self) -> list[UUID]:
        with self._changing:
            return [*{*self._models.ids(), *self._loading, *self._failures}]

    def _load_here(self, version: Version) -> bool:
        """Load a version on this thread, or wait for whoever does; what fails is logged.

        Returns False where it is worth trying again.
        """
        future, mine = self._claim(version.id)
        if mine:
            self._fill(version.id, future, lambda: version)
        return not isinstance(future.exception(), Unavailable)

    def _start(
        self, version_id: UUID, find: Callable[[], Version], threads: ThreadPoolExecutor
    ) -> Future[ResidentModel]:
        future, mine = self._claim(version_id)
        if mine:
            threads.submit(self._fill, version_id, future, find)
        return future

    def _claim(self, version_id: UUID) -> tuple[Future[ResidentModel], bool]:
        """Return the future of a version, and whether it is for the caller to fill."""
        with self._changing:
            known = self._loading.get(version_id)
            if known is not None:
                return known, False
            future: Future[ResidentModel] = Future()
            failure, model = self._failures.get(version_id), self._models.use(version_id)
            if model is not None:
                future.set_result(model)
            elif failure is not None and time.monotonic() < failure.until:
                future.set_exception(copy.copy(failure.error))
            else:
                self._loading[version_id] = future
                return future, True
            return future, False

    def _fill(
        self, version_id: UUID, future: Future[ResidentModel], find: Callable[[], Version]
    ) -> None:
        try:
            model = self._read(find())
        except Exception as error:  # noqa: BLE001 - whoever waits for the future is told
            self._note_failure(version_id, future, error)
        else:
            self._settle(model, future)

    def _find(self, version_id: UUID) -> Version:
        with self._database.reading() as session:
            found = repository.version(session, version_id)
        if found is None:
            raise NotFound.of("model", version_id)
        return found

    def _read(self, version: Version) -> ResidentModel:
        encoder = self._encoder()
        artifact = read_artifact_of(version, self._storage)
        head = None
        if artifact.header.backbone_digest == encoder.digest:
            head = self._head(artifact)
        return resident(version, artifact, head)

    def _head(self, artifact: Artifact) -> Head:
        """Store the embeddings; other models leave where there is no room."""
        give_up_at = time.monotonic() + _PATIENCE
        embeddings, logit_scale = artifact.class_embeddings, artifact.header.logit_scale
        reduced = artifact.reduced()
        while (head := self._store.add(embeddings, logit_scale, reduced)) is None:
            if self._models.drop_first() is not None:
                self._metrics.evictions.inc()
            elif not self._store.wait(give_up_at - time.monotonic()):
                raise Unavailable(
                    "All memory for models is taken by those that answer just now.",
                    fix="Try again in a moment; if it stays so, set SHOTLINE_PREDICTION_MODEL_BYTES"
                    " higher.",
                    retry_after=1.0,
                )
        return head

    def _settle(self, model: ResidentModel, future: Future[ResidentModel]) -> None:
        """Keep the model, unless it was deleted while it was read."""
        served = (self._projects or {}).get(model.project_id)
        production = None if served is None else served.production
        with self._changing:
            wanted = self._loading.get(model.id) is future
            if wanted:
                del self._loading[model.id]
                self._failures.pop(model.id, None)
                in_production = production is not None and production.id == model.id
                self._models.put(model, production=in_production)
        if wanted:
            self._metrics.loads.inc()
            future.set_result(model)
        else:
            future.set_exception(NotFound.of("model", model.id))

    def _note_failure(
        self, version_id: UUID, future: Future[ResidentModel], error: Exception
    ) -> None:
        with self._changing:
            known = self._failures.get(version_id)
            if self._loading.get(version_id) is future:
                del self._loading[version_id]
                if isinstance(error, ShotlineError) and not isinstance(error, _PASSING):
                    # A copy, without the frames that it was raised in.
                    self._failures[version_id] = _Failure(
                        copy.copy(error), time.monotonic() + _RETRY
                    )
        if known is None and not isinstance(error, _PASSING):
            # One line, not one for every time that it is tried.
            log.error("model_unusable", model=str(version_id), error=str(error))
        future.set_exception(error)


def _changed_since(seen: Revision | None, now: Revision) -> int | None:
    """Return the revision after which changes are to be read, None where all is to be."""
    # A number that went back is that of a database restored from a backup.
    if seen is None or now.last < seen.last or now.deleted != seen.deleted:
        return None
    return seen.last
