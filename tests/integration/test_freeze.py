"""A frozen project: nothing changes, the line goes on."""

from collections.abc import Callable
from uuid import UUID

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.settings import Settings
from app.core.storage import LocalStorage
from models.artifact import Artifact
from tests.integration import serving, tiny
from tests.integration.conftest import MakeClient
from tests.integration.files import zip_of
from tests.integration.jobs import run_tuning
from tests.integration.problems import assert_problem
from tests.integration.serving import Served

PNG = {"content-type": "image/png"}
ZIP = {"content-type": "application/zip"}
WHY = {"reason": "customer audit"}


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """What is refused is decided before any database is."""
    kind: str = request.param
    return kind


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    made = serving.serve(client, database, storage, artifacts[0], keep_images="all")
    serving.add_versions(database, storage, made.project, artifacts[1:])
    serving.promote(client, made.project, 2)
    return made


def photographs() -> bytes:
    return zip_of({f"{n}/{i}.png": tiny.photograph(n, i) for n in range(2) for i in range(4)})


def test_nothing_changes_and_the_line_goes_on(client: TestClient, served: Served) -> None:
    project = f"/v1/projects/{served.project}"
    made = client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG).json()
    prediction = f"/v1/predictions/{made['prediction_id']}"
    frozen = client.put(f"{project}/freeze", json=WHY)
    assert (frozen.status_code, frozen.json()["reason"]) == (200, "customer audit")
    changes: dict[str, Callable[[], Response]] = {
        "upload": lambda: client.post(f"{project}/images", content=photographs(), headers=ZIP),
        "tuning": lambda: client.post(f"{project}/tunings", json={}),
        "promotion": lambda: client.put(f"{project}/aliases/production", json={"version": 3}),
        "candidate": lambda: client.put(f"{project}/aliases/candidate", json={"version": 3}),
        "gates": lambda: client.post(f"/v1/models/{served.model}/gates"),
        "settings": lambda: client.patch(project, json={"gates": {"margin": 0.1}}),
        "class": lambda: client.post(f"{project}/classes", json={"name": "dent"}),
        "shadow": lambda: client.put(f"{project}/shadow", json={"enabled": True}),
        "review": lambda: client.post(f"{prediction}/review", json={"action": "discard"}),
        "again": lambda: client.post(f"{project}/review/tune", json={}),
        "version": lambda: client.delete(f"/v1/models/{served.model}"),
        "project": lambda: client.delete(project),
    }
    for what, change in changes.items():
        refused = change()
        assert refused.status_code == 423, (what, refused.text)
        assert_problem(refused, 423, "project-frozen", names=["customer audit", "admin"])
    assert client.post(served.predict, content=tiny.photograph(0, 2), headers=PNG).is_success
    assert client.post(f"{project}/batches", content=photographs(), headers=ZIP).is_success
    # The project has no classes of its own here: what is refused is the label, not the feedback.
    response = client.post(f"{prediction}/feedback", json={"label": "good"})
    assert_problem(response, 422, "bad-reference", field="label")
    assert client.post(f"{project}/rollback", json={}).json()["version"] == 1


def test_who_freezes_and_who_lifts(
    make_client: MakeClient, client: TestClient, served: Served
) -> None:
    address = f"/v1/projects/{served.project}/freeze"
    engineer = make_client("engineer")
    first = engineer.put(address, json=WHY).json()
    again = client.put(address, json={"reason": "another one"}).json()
    assert again == first
    assert first["name"] == "engineer"
    assert client.get(f"/v1/projects/{served.project}").json()["freeze"] == first
    assert_problem(engineer.delete(address), 403, "forbidden")
    assert client.delete(address).status_code == 204
    assert client.delete(address).status_code == 204
    assert client.get(f"/v1/projects/{served.project}").json()["freeze"] is None
    serving.promote(client, served.project, 3)
    found = client.get("/v1/audit", params={"kind": "project"}).json()["items"]
    actions = [entry["action"] for entry in found]
    assert actions.count("project.freeze") == actions.count("project.unfreeze") == 1
    empty = client.put(address, json={"reason": "  "})
    assert_problem(empty, 422, "bad-name", field="reason")


def test_a_tuning_that_ends_in_a_frozen_project_makes_no_candidate(
    client: TestClient, settings: Settings, database: Database
) -> None:
    project = serving.make_project(client)
    address = f"/v1/projects/{project}"
    assert client.post(f"{address}/images", content=photographs(), headers=ZIP).is_success
    tuning = client.post(f"{address}/tunings", json={"recipe": tiny.RECIPE}).json()["id"]
    client.put(f"{address}/freeze", json=WHY)
    run_tuning(settings, database, UUID(tuning))
    assert client.get(f"/v1/tunings/{tuning}").json()["model"]["version"] == 1
    assert client.get(f"{address}/aliases").json() == []
