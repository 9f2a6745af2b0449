"""Versions, aliases, promotion and rollback."""

import threading
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.storage import LocalStorage
from app.core.tables import ModelVersion
from models.artifact import Artifact
from tests.integration import tiny
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import add_versions, make_project, predictions_of, promote

PNG = {"content-type": "image/png"}


@pytest.fixture
def project(client: TestClient) -> UUID:
    return make_project(client)


@pytest.fixture
def versions(
    project: UUID, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> list[UUID]:
    return add_versions(database, storage, project, artifacts)


def production(client: TestClient, project: UUID) -> int:
    (alias,) = client.get(f"/v1/projects/{project}/aliases").json()
    assert alias["alias"] == "production"
    version: int = alias["version"]
    return version


def test_versions_are_numbered_listed_and_shown(
    client: TestClient, project: UUID, versions: list[UUID], artifacts: list[Artifact]
) -> None:
    listed = client.get(f"/v1/projects/{project}/models", params={"limit": 2}).json()
    assert [entry["version"] for entry in listed["items"]] == [1, 2]
    rest = client.get(
        f"/v1/projects/{project}/models", params={"cursor": listed["next_cursor"]}
    ).json()
    assert [entry["version"] for entry in rest["items"]] == [3]
    shown = client.get(f"/v1/models/{versions[0]}").json()
    assert shown == listed["items"][0]
    assert shown["digest"] == artifacts[0].digest
    assert [spec["name"] for spec in shown["classes"]] == ["good", "傷", "unclear 🔍"]
    macro = shown["accuracy"]["macro"]
    assert macro["low"] <= macro["value"] <= macro["high"]


def test_what_speaks_against_a_version_stands_beside_it(
    client: TestClient, versions: list[UUID], database: Database
) -> None:
    with database.unit_of_work() as session:
        row = session.get_one(ModelVersion, versions[0])
        share = {"value": 0.06, "low": 0.02, "high": 0.13}
        trust = {"decided": share, "decided_accuracy": share | {"high": 0.9}}
        row.metrics = {**row.metrics, "trust": trust}
    first, second = (f"/v1/models/{version}" for version in versions[:2])
    few, chance = client.get(first).json()["warnings"]
    assert few.startswith("It would decide 6 of 100 such images;")
    assert "that is not surely more than" in chance
    assert client.get(f"{first}/gates").json()["warnings"] == [few, chance]
    with database.unit_of_work() as session:
        row = session.get_one(ModelVersion, versions[1])
        row.metrics = {**row.metrics, "trust": None}
    assert client.get(second).json()["warnings"] == []


def test_the_artifact_comes_as_it_was_made(
    client: TestClient, versions: list[UUID], artifacts: list[Artifact]
) -> None:
    response = client.get(f"/v1/models/{versions[1]}/artifact")
    assert Artifact.from_bytes(response.content).digest == artifacts[1].digest
    assert "shotline-v2.safetensors" in response.headers["content-disposition"]


def test_the_report_as_json_and_where_there_is_no_page(
    client: TestClient, versions: list[UUID]
) -> None:
    report = client.get(f"/v1/models/{versions[0]}/report").json()
    assert len(report["metrics"]["tuned"]["confusion"]) == 3
    assert [row["name"] for row in report["report"]["classes"]] == ["good", "傷", "unclear 🔍"]
    response = client.get(f"/v1/models/{versions[0]}/report", params={"format": "html"})
    assert_problem(response, 404, "not-found", names="Version 1", field="format")


def test_a_page_of_an_older_version_is_answered_as_it_was_kept(
    client: TestClient, versions: list[UUID], database: Database, storage: LocalStorage
) -> None:
    old = "<!doctype html><p>as it was</p>"
    with database.unit_of_work() as session:
        session.get_one(ModelVersion, versions[0]).report_sha256 = storage.put(old.encode())
    address = f"/v1/models/{versions[0]}/report"
    page = client.get(address, params={"format": "html", "language": "ja"})
    assert page.text == old
    assert client.get(address).json()["report"]["title"] is None


def test_a_report_whose_artifact_is_damaged_says_so(
    client: TestClient, versions: list[UUID], database: Database, storage: LocalStorage
) -> None:
    with database.unit_of_work() as session:
        session.get_one(ModelVersion, versions[0]).report_sha256 = storage.put(b'{"form": 7}')
    response = client.get(f"/v1/models/{versions[0]}/report", params={"format": "html"})
    assert_problem(response, 500, "damaged", names="report")


def test_promote_and_roll_back_as_often_as_was_promoted(
    client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    for version in (1, 2, 3):
        promote(client, project, version)
    assert client.get(f"/v1/models/{versions[2]}").json()["aliases"] == ["production"]
    back = client.post(f"/v1/projects/{project}/rollback", json={"reason": "false alarms"})
    assert (back.status_code, back.json()["version"]) == (200, 2)
    assert client.post(f"/v1/projects/{project}/rollback").json()["version"] == 1
    response = client.post(f"/v1/projects/{project}/rollback", json={})
    assert_problem(response, 409, "conflict", names="production", field="alias")
    assert production(client, project) == 1
    promote(client, project, 3)
    assert client.post(f"/v1/projects/{project}/rollback", json={}).json()["version"] == 1


def test_every_move_is_recorded_with_who_made_it(
    make_client: MakeClient, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    engineer = make_client("engineer")
    who = engineer.get("/v1/keys/current").json()["id"]
    promote(client, project, 1)
    promote(engineer, project, 2)
    promote(engineer, project, 2)  # nothing to do, nothing to record
    engineer.post(f"/v1/projects/{project}/rollback", json={"reason": "傷を見逃す"})
    moves = client.get(f"/v1/projects/{project}/aliases/production/moves").json()["items"]
    first, second = str(versions[0]), str(versions[1])
    assert [(m["kind"], m["from_model"], m["to_model"]) for m in moves] == [
        ("promote", None, first),
        ("promote", first, second),
        ("rollback", second, first),
    ]
    assert moves[0]["moved_by"] != who
    assert moves[1]["moved_by"] == moves[2]["moved_by"] == who
    assert moves[2]["reason"] == "傷を見逃す"


def test_any_alias(client: TestClient, project: UUID, versions: list[UUID]) -> None:
    promote(client, project, 2, alias="candidate")
    promote(client, project, 2, alias="line-3_night")
    names = client.get(f"/v1/models/{versions[1]}").json()["aliases"]
    assert names == ["candidate", "line-3_night"]


@pytest.mark.parametrize("alias", ["Production", "1st", "a b", "x" * 65, "本番"])
def test_names_that_no_alias_can_have(
    client: TestClient, project: UUID, versions: list[UUID], alias: str
) -> None:
    response = client.put(f"/v1/projects/{project}/aliases/{alias}", json={"version": 1})
    assert_problem(response, 422, "bad-name", names=alias, field="alias")


def test_unknown_things(client: TestClient, project: UUID, versions: list[UUID]) -> None:
    nothing = new_id()
    for path in ("", "/report", "/artifact"):
        response = client.get(f"/v1/models/{nothing}{path}")
        assert_problem(response, 404, "not-found", names=str(nothing))
    response = client.put(f"/v1/projects/{project}/aliases/production", json={"version": 9})
    assert_problem(response, 404, "not-found", names="9", field="version")
    response = client.get(f"/v1/projects/{nothing}/models")
    assert_problem(response, 404, "not-found", names=str(nothing))


def test_roles_and_projects(
    make_client: MakeClient, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    operator = make_client("operator")
    response = operator.put(f"/v1/projects/{project}/aliases/production", json={"version": 1})
    assert_problem(response, 403, "forbidden")
    response = operator.post(f"/v1/projects/{project}/rollback", json={})
    assert_problem(response, 403, "forbidden")
    assert_problem(make_client("engineer").delete(f"/v1/models/{versions[0]}"), 403, "forbidden")
    stranger = make_client("engineer", make_project(client))
    assert_problem(stranger.get(f"/v1/models/{versions[0]}"), 404, "not-found")
    response = stranger.put(f"/v1/projects/{project}/aliases/production", json={"version": 1})
    assert_problem(response, 404, "not-found")


def test_only_a_version_that_never_served_is_deleted(
    client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    promote(client, project, 1)
    promote(client, project, 2)
    for version in versions[:2]:
        response = client.delete(f"/v1/models/{version}")
        assert_problem(response, 409, "conflict", names="alias", field="model")
    predicted = client.post(
        f"/v1/models/{versions[2]}/predict",
        content=tiny.photograph(0, 99),
        headers=PNG,
    )
    assert predicted.status_code == 200
    shown = predicted.json()["prediction_id"]
    response = client.delete(f"/v1/models/{versions[2]}")
    assert_problem(response, 409, "conflict", names="predictions", field="model")
    assert client.get(f"/v1/predictions/{shown}").status_code == 200


def test_a_prediction_that_is_not_written_yet_keeps_its_version(
    app: FastAPI, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    records = predictions_of(app).records
    go_on = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_keep_images", lambda _: go_on.wait(30))
        path = f"/v1/models/{versions[0]}/predict"
        made = client.post(path, content=tiny.photograph(0, 1), headers=PNG).json()
        response = client.delete(f"/v1/models/{versions[0]}")
        go_on.set()
    assert_problem(response, 409, "conflict", names="predictions", field="model")
    listed = f"/v1/projects/{project}/predictions"
    wait_for(lambda: client.get(listed).json()["items"], "the record")
    assert client.get(listed).json()["items"][0]["prediction_id"] == made["prediction_id"]


def test_a_deleted_version_answers_no_more(
    app: FastAPI, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    path = f"/v1/models/{versions[0]}/predict"
    # What is no image brings the version into memory and decides on nothing.
    assert_problem(client.post(path, content=b"x", headers=PNG), 422, "bad-image")
    assert predictions_of(app).models.resident(versions[0]) is not None
    assert client.delete(f"/v1/models/{versions[0]}").status_code == 204
    response = client.post(path, content=tiny.photograph(0, 1), headers=PNG)
    assert_problem(response, 404, "not-found", names=str(versions[0]))


def test_versions_of_a_deleted_project_leave_the_memory(
    app: FastAPI, client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    promote(client, project, 1)
    assert client.delete(f"/v1/projects/{project}").status_code == 204
    predictions_of(app).models.refresh()
    assert "shotline_models_resident 0.0" in client.get("/metrics").text


def test_a_deleted_version_is_gone_and_its_number_free_of_use(
    client: TestClient, project: UUID, versions: list[UUID]
) -> None:
    assert client.delete(f"/v1/models/{versions[1]}").status_code == 204
    assert_problem(client.get(f"/v1/models/{versions[1]}"), 404, "not-found")
    numbers = [m["version"] for m in client.get(f"/v1/projects/{project}/models").json()["items"]]
    assert numbers == [1, 3]
