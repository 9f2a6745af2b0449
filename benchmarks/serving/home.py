"""A gateway's data folder, filled by bulk inserts: projects with versions that nobody tuned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from app import migrations
from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import ServerSettings, Settings
from app.core.tables import Alias, ModelVersion, Project, ProjectClass, Snapshot, Tuning
from app.keys.service import create_key
from app.registry.service import PRODUCTION
from benchmarks.serving.engine import Facts, Made, make_artifact
from models.classes import normalise_name
from models.imaging import View

_CHUNK = 500  # projects in one transaction
Names = Callable[[int, int], list[str]]


@dataclass(frozen=True)
class Version:
    """A version, by its id and what identifies its answers."""

    id: UUID
    digest: str
    labels: list[str]


@dataclass(frozen=True)
class Line:
    """A project; the first of its versions is in production."""

    project: UUID
    versions: list[Version]

    @property
    def predict(self) -> str:
        """The path that the line asks."""
        return f"/v1/projects/{self.project}/predict"


@dataclass(frozen=True)
class Home:
    """The folder, an admin's key, and the projects."""

    folder: Path
    key: str
    lines: list[Line]

    @property
    def headers(self) -> dict[str, str]:
        """What each request says."""
        return {"Authorization": f"Bearer {self.key}"}


def class_names(line: int, version: int, classes: int = 10) -> list[str]:
    """Return the class names of a version, which no other version of the project has."""
    return [f"v{version} class {number} of {line}" for number in range(classes)]


def prepare(
    folder: Path, facts: Facts, *, lines: int = 1, versions: int = 1, classes: int = 10
) -> Home:
    """Make the database and fill it: `lines` projects, each with `versions`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(server=ServerSettings(home=folder))
    database = Database.of(settings)
    made: list[Line] = []
    try:
        migrations.upgrade(database)
        with database.unit_of_work() as session:
            key = create_key(session, name="benchmark", role="admin").plaintext
        for start in range(0, lines, _CHUNK):
            rows = _Rows(settings.blob_folder)
            for number in range(start, min(start + _CHUNK, lines)):
                made.append(rows.add_line(facts, number, versions, classes))
            rows.write(database)
    finally:
        database.close()
    return Home(folder, key, made)


class _Rows:
    """Rows to be inserted together; blobs are written at once, without a flush for each."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = blobs
        self._tables: dict[type, list[dict[str, Any]]] = {
            table: [] for table in (Project, ProjectClass, Snapshot, Tuning, ModelVersion, Alias)
        }

    def add_line(self, facts: Facts, number: int, versions: int, classes: int) -> Line:
        project = new_id()
        name = f"line {number}"
        self._tables[Project].append(
            {
                "id": project,
                "name": name,
                "name_key": name,
                "view": View().model_dump(),
                # By default the images of the undecidable are; by a rule that was fit to noise
                # every image is one, and no line is so.
                "keep_images": "none",
            }
        )
        made = []
        for place in range(1, versions + 1):
            names = class_names(number, place, classes)
            artifact = make_artifact(facts, names, seed=1000 * number + place)
            made.append(self._add_version(facts, project, place, artifact, names))
        self._add_classes(project, names)
        self._tables[Alias].append(
            {"project_id": project, "name": PRODUCTION, "version_id": made[0].id}
        )
        return Line(project, made)

    def _add_classes(self, project: UUID, names: Sequence[str]) -> None:
        self._tables[ProjectClass] += [
            {
                "project_id": project,
                "position": position,
                "name": name,
                "name_key": normalise_name(name),
                "prompt_name": name,
                "role": "ng",
            }
            for position, name in enumerate(names)
        ]

    def _add_version(
        self, facts: Facts, project: UUID, number: int, made: Made, names: list[str]
    ) -> Version:
        version, snapshot, tuning = new_id(), new_id(), new_id()
        self._put(made)
        self._tables[Snapshot].append(
            {
                "id": snapshot,
                "project_id": project,
                "digest": made.artifact.header.snapshot,
                "classes": made.classes,
                "image_count": 0,
            }
        )
        self._tables[Tuning].append(
            {
                "id": tuning,
                "project_id": project,
                "snapshot_id": snapshot,
                "state": "succeeded",
                "recipe": {},
                "seed": number,
                "view": {},
                "backbone": facts.source,
            }
        )
        self._tables[ModelVersion].append(
            {
                "id": version,
                "project_id": project,
                "number": number,
                "tuning_id": tuning,
                "digest": made.artifact.digest,
                "artifact_sha256": made.sha256,
                "backbone": facts.source,
                "backbone_digest": facts.digest,
                "classes": made.classes,
                "metrics": made.metrics,
            }
        )
        return Version(version, made.artifact.digest, sorted(names))

    def _put(self, made: Made) -> None:
        # As `LocalStorage` lays blobs out; its flush to the disk for each would take minutes.
        name = made.sha256
        path = self._blobs / name[:2] / name[2:4] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.data)

    def write(self, database: Database) -> None:
        """Insert everything in one transaction, parents first."""
        with database.unit_of_work() as session:
            for table, rows in self._tables.items():
                session.execute(insert(table), rows)
