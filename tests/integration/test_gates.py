"""Gates before production: measured by a worker's child, judged by the gateway."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.queue import GATE, InMemoryQueue
from app.core.settings import GateSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import GateRun, ModelVersion
from app.registry.service import become_candidate
from models.artifact import Artifact
from tests.integration import serving, tiny
from tests.integration.conftest import MakeClient
from tests.integration.files import zip_of
from tests.integration.jobs import run_gates, run_tuning
from tests.integration.problems import assert_problem

ZIP = {"content-type": "application/zip"}
CLASSES = ("good", "scratch")
FIGURES = {"value": 0.9, "low": 0.8, "high": 0.95}

# What a run that went well found; a test changes what it is about.
RESULT: dict[str, Any] = {
    "basis": "holdout",
    "groups": [20, 20, 20],
    "candidate": {
        "basis": "holdout", "n_images": 60, "top1": FIGURES, "macro": FIGURES,
        "per_class": [FIGURES] * 3, "confusion": [[20, 0, 0], [0, 20, 0], [0, 0, 20]], "ece": 0.01,
    },
    "opponents": [
        {"name": name, "macro": FIGURES, "difference": {"value": 0.1, "low": 0.02, "high": 0.2}}
        for name in ("production", "zero-shot", "linear-probe")
    ],
    "seconds": 1.0,
}  # fmt: skip


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"gates": GateSettings(enabled=True)})


@pytest.fixture
def project(client: TestClient) -> UUID:
    return serving.make_project(client)


@pytest.fixture
def versions(
    project: UUID, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> list[UUID]:
    return serving.add_versions(database, storage, project, artifacts)


@pytest.fixture
def found(database: Database, project: UUID) -> Callable[..., None]:
    """Record a run of gates as a worker does, against what is in production."""

    def record(version: UUID, against: UUID | None = None, **changed: Any) -> None:
        with database.unit_of_work() as session:
            session.add(
                GateRun(
                    project_id=project, version_id=version, against_id=against, attempt=1,
                    state="succeeded", result=RESULT | changed,
                )
            )  # fmt: skip

    return record


def gap(name: str, low: float, high: float) -> dict[str, Any]:
    difference = {"value": (low + high) / 2, "low": low, "high": high}
    return {"name": name, "macro": FIGURES, "difference": difference}


def put(client: TestClient, project: UUID, version: int, **more: str) -> Any:
    path = f"/v1/projects/{project}/aliases/production"
    return client.put(path, json={"version": version} | more)


def upload(client: TestClient, project: UUID, numbers: range, split: str = "train") -> None:
    files = {
        f"{name}/{number}.png": tiny.photograph(label, number)
        for label, name in enumerate(CLASSES)
        for number in numbers
    }
    path = f"/v1/projects/{project}/images"
    answer = client.post(path, content=zip_of(files), headers=ZIP, params={"split": split})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_from_a_tuning_to_production_through_the_gates(
    client: TestClient,
    project: UUID,
    settings: Settings,
    database: Database,
    queue: InMemoryQueue,
) -> None:
    upload(client, project, range(6))
    tunings = f"/v1/projects/{project}/tunings"
    first = client.post(tunings, json={"recipe": tiny.RECIPE}).json()
    run_tuning(settings, database, UUID(first["id"]))
    # It became the candidate, by nobody's wish, and its gates wait for a worker.
    (alias,) = client.get(f"/v1/projects/{project}/aliases").json()
    assert (alias["alias"], alias["version"]) == ("candidate", 1)
    (move,) = client.get(f"/v1/projects/{project}/aliases/candidate/moves").json()["items"]
    assert (move["automatic"], move["moved_by"]) == (True, None)
    gates = f"/v1/models/{alias['model']}/gates"
    assert client.get(gates).json()["state"] == "queued"
    refused = put(client, project, 1)
    assert_problem(refused, 409, "gates", names="queued", field="version")
    run_gates(settings, database)
    shown = client.get(gates).json()
    assert shown["state"] == "succeeded"
    assert shown["found"]["basis"] == "out-of-fold"
    assert [gate["name"] for gate in shown["gates"]] == ["zero-shot", "linear-probe", "coverage"]
    assert shown["found"]["images"] == 12
    client.patch(f"/v1/projects/{project}", json={"gates": {"margin": 0.5}})
    assert put(client, project, 1).status_code == 200
    # The next one is measured against it, on images that neither was tuned on.
    upload(client, project, range(6, 12), split="holdout")
    second = client.post(tunings, json={"recipe": tiny.RECIPE, "seed": 1}).json()
    run_tuning(settings, database, UUID(second["id"]))
    run_gates(settings, database)
    model = client.get(f"/v1/tunings/{second['id']}").json()["model"]["id"]
    shown = client.get(f"/v1/models/{model}/gates").json()
    assert (shown["against"], shown["found"]["basis"], shown["found"]["images"]) == (
        1, "holdout", 12
    )  # fmt: skip
    assert shown["gates"][0]["name"] == "production"
    assert put(client, project, 2).status_code == 200
    assert queue.sent  # tunings alone: a worker's supervisor wakes one for the gates


def test_nothing_in_production_and_gates_not_run_are_started(
    client: TestClient, project: UUID, versions: list[UUID], queue: InMemoryQueue
) -> None:
    refused = put(client, project, 1)
    assert_problem(refused, 409, "gates", names="nothing in production", field="version")
    assert refused.json()["gates"]["state"] is None
    shown = client.get(f"/v1/models/{versions[0]}/gates").json()
    assert (shown["state"], shown["against"], shown["passed"]) == ("queued", None, False)
    assert [task for task, _ in queue.sent] == [GATE]
    put(client, project, 1)
    assert client.post(f"/v1/models/{versions[0]}/gates").status_code == 202
    assert len(queue.sent) == 1  # one run is enough


def test_gates_that_failed_say_by_how_much(
    client: TestClient, project: UUID, versions: list[UUID], found: Callable[..., None]
) -> None:
    found(versions[0], opponents=[gap("zero-shot", 0.1, 0.3), gap("linear-probe", -0.3, -0.1)])
    refused = put(client, project, 1)
    assert_problem(refused, 409, "gates", names="linear-probe: fail", field="version")
    (failing,) = refused.json()["gates"]["failing"]
    assert (failing["value"], failing["limit"]) == (-0.2, -0.05)
    # A wider margin is another rule, and needs no other run.
    client.patch(f"/v1/projects/{project}", json={"gates": {"margin": 0.35}})
    assert put(client, project, 1).status_code == 200


def test_what_is_inconclusive_is_told_and_blocks_where_it_shall(
    client: TestClient, project: UUID, versions: list[UUID], found: Callable[..., None]
) -> None:
    found(versions[0], opponents=[gap("zero-shot", -0.1, 0.3)])
    client.patch(f"/v1/projects/{project}", json={"gates": {"inconclusive": "block"}})
    assert_problem(put(client, project, 1), 409, "gates", names="inconclusive")
    client.patch(f"/v1/projects/{project}", json={"gates": {"inconclusive": None}})
    shown = client.get(f"/v1/models/{versions[0]}/gates").json()
    assert (shown["verdict"], shown["passed"]) == ("inconclusive", True)
    assert put(client, project, 1).status_code == 200


def test_few_parts_conclude_nothing(
    client: TestClient, project: UUID, versions: list[UUID], found: Callable[..., None]
) -> None:
    found(versions[0], groups=[20, 4, 20])
    shown = client.get(f"/v1/models/{versions[0]}/gates").json()
    verdicts = {gate["verdict"] for gate in shown["gates"] if gate["name"] != "coverage"}
    assert verdicts == {"inconclusive"}
    assert "fewer than 5 parts" in shown["gates"][0]["detail"]


def test_a_floor_of_a_class(
    client: TestClient,
    project: UUID,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    found: Callable[..., None],
) -> None:
    address = f"/v1/projects/{project}"
    client.post(f"{address}/classes", json={"name": "傷"})
    versions = serving.add_versions(database, storage, project, artifacts)
    response = client.patch(address, json={"gates": {"floors": {"dent": 0.9}}})
    assert_problem(response, 422, "bad-reference", names="'傷'", field="gates.floors")
    assert client.patch(address, json={"gates": {"floors": {"傷": 0.97}}}).status_code == 200
    found(versions[0])
    assert_problem(put(client, project, 1), 409, "gates", names="floor: 傷: fail")


def test_a_run_against_another_version_does_not_count(
    client: TestClient, project: UUID, versions: list[UUID], found: Callable[..., None]
) -> None:
    found(versions[0])
    assert put(client, project, 1).status_code == 200
    found(versions[1])  # against nothing: what is in production now was not there yet
    assert_problem(put(client, project, 2), 409, "gates", names="against version 1")
    found(versions[1], versions[0])
    assert put(client, project, 2).status_code == 200
    # Back at once, whatever gates say.
    assert client.post(f"/v1/projects/{project}/rollback").json()["version"] == 1


def test_an_admin_overrides_and_it_is_recorded(
    make_client: MakeClient, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    engineer = make_client("engineer")
    refused = put(engineer, project, 1, override="we are late")
    assert_problem(refused, 403, "forbidden", names="engineer")
    assert put(client, project, 1, override="the camera was moved").status_code == 200
    (move,) = client.get(f"/v1/projects/{project}/aliases/production/moves").json()["items"]
    assert move["override"] == "the camera was moved"
    (entry,) = client.get("/v1/audit", params={"action": "alias.promote"}).json()["items"]
    assert entry["after"]["override"] == "the camera was moved"
    refused = engineer.patch(f"/v1/projects/{project}", json={"gates": {"enabled": False}})
    assert_problem(refused, 403, "forbidden")


def test_a_version_of_another_project(
    make_client: MakeClient, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    other = serving.make_project(client)
    assert_problem(put(client, other, 2), 404, "not-found", field="version")
    stranger = make_client("admin", other)
    for method in ("GET", "POST"):
        response = stranger.request(method, f"/v1/models/{versions[0]}/gates")
        assert_problem(response, 404, "not-found", field="model")
    assert_problem(client.get(f"/v1/models/{new_id()}/gates"), 404, "not-found")


def test_a_run_that_failed_says_why_and_is_started_again(
    client: TestClient, project: UUID, versions: list[UUID], database: Database
) -> None:
    with database.unit_of_work() as session:
        failure = {"problem": "An image is gone.", "fix": "Restore it."}
        session.add(
            GateRun(
                project_id=project, version_id=versions[0], state="failed", failure=failure
            )
        )  # fmt: skip
    assert_problem(put(client, project, 1), 409, "gates", names="An image is gone.")
    assert client.get(f"/v1/models/{versions[0]}/gates").json()["state"] == "queued"


def test_a_project_without_gates(client: TestClient, project: UUID, versions: list[UUID]) -> None:
    client.patch(f"/v1/projects/{project}", json={"gates": {"enabled": False}})
    assert put(client, project, 1).status_code == 200


def test_a_candidate_that_nobody_wished_for_is_deleted_with_its_alias(
    client: TestClient, project: UUID, versions: list[UUID], database: Database
) -> None:
    for version in versions[:2]:
        with database.unit_of_work() as session:
            become_candidate(session, session.get_one(ModelVersion, version))
    assert client.get(f"/v1/models/{versions[1]}").json()["aliases"] == ["candidate"]
    for version in versions[:2]:
        assert client.delete(f"/v1/models/{version}").status_code == 204
    assert client.get(f"/v1/projects/{project}/aliases").json() == []
    serving.promote(client, project, 3, "candidate")
    assert_problem(client.delete(f"/v1/models/{versions[2]}"), 409, "conflict", field="model")


def test_coverage_is_looked_at_where_the_tuning_measured_it(
    client: TestClient,
    project: UUID,
    versions: list[UUID],
    found: Callable[..., None],
    database: Database,
) -> None:
    with database.unit_of_work() as session:
        version = session.get_one(ModelVersion, versions[0])
        coverage = {"value": 0.7, "low": 0.6, "high": 0.8}
        version.metrics = version.metrics | {"trust": {"alpha": 0.1, "coverage": coverage}}
    found(versions[0])
    assert_problem(put(client, project, 1), 409, "gates", names="coverage: fail")
