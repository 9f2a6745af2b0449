"""A project with a version in production, without a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from fastapi import FastAPI
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.storage import LocalStorage
from app.core.tables import KeepImages
from app.predictions.service import Predictions
from models.artifact import Artifact
from tests.integration import tiny


@dataclass(frozen=True)
class Served:
    """A project and the id of what it has in production."""

    project: UUID
    model: UUID

    @property
    def predict(self) -> str:
        """The address that the line asks."""
        return f"/v1/projects/{self.project}/predict"


def predictions_of(app: FastAPI) -> Predictions:
    found: Predictions = app.state.predictions
    return found


def make_project(client: TestClient, keep_images: KeepImages = "none") -> UUID:
    made = client.post("/v1/projects", json={"name": f"p-{new_id()}", "keep_images": keep_images})
    assert made.status_code == 201, made.text
    return UUID(made.json()["id"])


def add_versions(
    database: Database, storage: LocalStorage, project: UUID, artifacts: Sequence[Artifact]
) -> list[UUID]:
    with database.unit_of_work() as session:
        return [tiny.add_artifact(session, storage, project, made).id for made in artifacts]


def promote(client: TestClient, project: UUID, version: int, alias: str = "production") -> None:
    response = client.put(f"/v1/projects/{project}/aliases/{alias}", json={"version": version})
    assert response.status_code == 200, response.text


def serve(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifact: Artifact,
    keep_images: KeepImages = "none",
) -> Served:
    """Make a project with `artifact` in production."""
    project = make_project(client, keep_images)
    (model,) = add_versions(database, storage, project, [artifact])
    promote(client, project, 1)
    return Served(project, model)
