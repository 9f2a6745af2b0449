"""Predictions and their images go when their time is over, and nothing else does."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import first_id_at, new_id, time_of
from app.core.settings import RetentionSettings
from app.core.storage import LocalStorage
from app.core.sweep import sweep_orphans
from app.core.tables import Image, ModelVersion, PredictionRecord
from app.predictions import repository, retention
from app.predictions.retention import RetentionSweep, Rules
from models.artifact import Artifact
from models.errors import BadInput
from tests.integration import tiny
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem
from tests.integration.serving import add_versions, make_project

BOX = RetentionSettings()


@pytest.fixture
def project(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> UUID:
    project = make_project(client)
    add_versions(database, storage, project, artifacts[:1])
    return project


def at(days_ago: float, number: int = 0) -> UUID:
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    return UUID(int=first_id_at(moment).int + number)


def record(
    database: Database, project: UUID, ids: Sequence[UUID], image: str | None = None
) -> list[UUID]:
    """Write predictions as the record writer does."""
    with database.unit_of_work() as session:
        version = session.scalars(
            select(ModelVersion).where(ModelVersion.project_id == project)
        ).one()
        row = {
            "project_id": project, "model_version_id": version.id, "model_number": 1,
            "model_digest": version.digest, "image_id": None, "part_id": None, "station": None,
            "captured_at": None, "decision": "ok", "label": "good", "probability": 0.9,
            "probabilities": [], "prediction_set": [], "timings_ms": {}, "requested_by": None,
            "image_sha256": image, "image_bytes": None if image is None else 10,
        }  # fmt: skip
        repository.add_all(session, [row | {"id": one} for one in ids])
    return list(ids)


def sweep(database: Database, settings: RetentionSettings = BOX) -> list[Any]:
    return RetentionSweep(database, settings, CollectorRegistry()).sweep()


def left(database: Database, project: UUID) -> dict[UUID, bool]:
    """The ids of the project's predictions, each with whether its image is kept."""
    row = PredictionRecord
    with database.reading() as session:
        query = select(row.id, row.image_sha256.is_not(None)).where(row.project_id == project)
        return {name: bool(kept) for name, kept in session.execute(query)}


def test_by_default_everything_is_kept_for_ever(database: Database, project: UUID) -> None:
    old = record(database, project, [at(10_000), at(1)], "0" * 64)
    assert sweep(database) == []
    assert left(database, project) == dict.fromkeys(old, True)


def test_records_and_images_expire_by_rules_of_their_own(
    client: TestClient, database: Database, project: UUID
) -> None:
    rules = {"predictions_days": 30, "images_days": 7}
    changed = client.patch(f"/v1/projects/{project}", json={"retention": rules})
    assert changed.json()["retention"] == rules
    gone = record(database, project, [at(31), at(30.01)], "0" * 64)
    plain = record(database, project, [at(29.99), at(8)], "1" * 64)
    young = record(database, project, [at(6.99), new_id()], "2" * 64)
    registry = CollectorRegistry()
    (swept,) = RetentionSweep(database, BOX, registry).sweep()
    assert (swept.project, swept.predictions, swept.images) == (project, len(gone), 4)
    assert left(database, project) == dict.fromkeys(plain, False) | dict.fromkeys(young, True)
    assert registry.get_sample_value("shotline_retention_predictions_deleted_total") == 2
    assert registry.get_sample_value("shotline_retention_images_dropped_total") == 4
    assert sweep(database) == []
    exported = client.get(f"/v1/projects/{project}/predictions.csv").text
    assert len(exported.splitlines()) == 1 + len(plain) + len(young)


def test_a_project_goes_before_the_box(
    client: TestClient, database: Database, project: UUID
) -> None:
    box = RetentionSettings(predictions_days=10)
    path = f"/v1/projects/{project}"
    client.patch(path, json={"retention": {"predictions_days": None}})
    old = record(database, project, [at(11)])
    assert sweep(database, box) == []
    assert list(left(database, project)) == old
    answer = client.patch(path, json={"retention": {"predictions_days": "default"}})
    assert answer.json()["retention"] == {"predictions_days": "default", "images_days": "default"}
    assert len(sweep(database, box)) == 1
    assert left(database, project) == {}


def test_what_is_not_given_stays(client: TestClient, project: UUID) -> None:
    path = f"/v1/projects/{project}"
    client.patch(path, json={"retention": {"predictions_days": 365, "images_days": None}})
    client.patch(path, json={"retention": {"images_days": 90}})
    client.patch(path, json={"retention": {}, "name": f"other {new_id()}"})
    client.patch(path, json={"retention": None})
    assert client.get(path).json()["retention"] == {"predictions_days": 365, "images_days": 90}


@pytest.mark.parametrize("value", [-1, 0, 36_501, 10**30, 1.5, True, "30", [], {}, "ever"])
@pytest.mark.parametrize("name", ["predictions_days", "images_days"])
def test_what_is_no_number_of_days_is_refused_with_its_value(
    client: TestClient, project: UUID, name: str, value: object
) -> None:
    path = f"/v1/projects/{project}"
    before = client.get(path).json()
    answer = client.patch(path, json={"retention": {name: value}})
    problem = assert_problem(answer, 422, "bad-input", names=repr(value)[:40])
    assert problem["field"] == f"retention.{name}"
    assert "errors" not in problem
    assert client.get(path).json() == before


@pytest.mark.parametrize("body", [{"days": 3}, [], "short", 7])
def test_what_is_no_rule_is_refused(client: TestClient, project: UUID, body: object) -> None:
    answer = client.patch(f"/v1/projects/{project}", json={"retention": body})
    assert_problem(answer, 422, "bad-input")


def test_only_an_admin_decides_on_what_is_deleted(
    client: TestClient, make_client: MakeClient, project: UUID
) -> None:
    body = {"retention": {"predictions_days": 1}, "name": "renamed"}
    path = f"/v1/projects/{project}"
    answer = make_client("engineer").patch(path, json=body)
    assert_problem(answer, 403, "forbidden", names="admin")
    assert client.get(path).json()["name"] != "renamed"


@pytest.mark.parametrize("value", ["0", "-3", "36501", "soon"])
def test_the_boxs_rules_are_checked_too(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SHOTLINE_RETENTION_IMAGES_DAYS", value)
    with pytest.raises(BadInput, match=f"SHOTLINE_RETENTION_IMAGES_DAYS is '{value}'"):
        RetentionSettings()


def test_labelled_images_and_what_shares_their_bytes_stay(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    body = {"name": f"p {new_id()}", "classes": [{"name": "good"}]}
    project = UUID(client.post("/v1/projects", json=body).json()["id"])
    data = tiny.photograph(0, 1)
    uploaded = client.post(
        f"/v1/projects/{project}/images", files={"files": ("a.png", data)}, data={"label": "good"}
    ).json()
    assert uploaded["accepted"] == 1
    lonely = storage.put(b"only a prediction has these")
    add_versions(database, storage, project, artifacts[:1])
    shared = storage.put(data)
    record(database, project, [at(100)], shared)
    record(database, project, [at(100, 1)], lonely)
    client.patch(f"/v1/projects/{project}", json={"retention": {"images_days": 50}})
    assert [one.images for one in sweep(database)] == [2]
    sweep_orphans(database, storage, min_age=0)
    assert {blob.sha256 for blob in storage.blobs()} >= {shared}
    assert lonely not in {blob.sha256 for blob in storage.blobs()}
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == 1


@pytest.fixture
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PORTION", 10)
    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("_small_portions")
def test_many_gateways_take_each_record_once(
    client: TestClient, database: Database, project: UUID
) -> None:
    client.patch(f"/v1/projects/{project}", json={"retention": {"predictions_days": 5}})
    record(database, project, [at(6, number) for number in range(205)], "0" * 64)
    young = record(database, project, [at(4, number) for number in range(5)])
    registries = [CollectorRegistry() for _ in range(4)]
    sweeps = [RetentionSweep(database, BOX, registry) for registry in registries]
    threads = [threading.Thread(target=one.sweep) for one in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sweeps[0].sweep()  # what one left to another that had just ended
    name = "shotline_retention_predictions_deleted_total"
    assert sum(registry.get_sample_value(name) or 0 for registry in registries) == 205
    assert sorted(left(database, project)) == sorted(young)


@pytest.mark.usefixtures("_small_portions")
def test_an_export_goes_on_while_records_expire(
    client: TestClient, database: Database, project: UUID
) -> None:
    client.patch(f"/v1/projects/{project}", json={"retention": {"predictions_days": 5}})
    record(database, project, [at(6, number) for number in range(1500)])
    young = record(database, project, [at(4, number) for number in range(1500)])
    with client.stream("GET", f"/v1/projects/{project}/predictions.csv") as answer:
        lines = answer.iter_lines()
        next(lines)
        sweep(database)
        names = {line.split(",")[0] for line in lines if line}
    assert {str(one) for one in young} <= names


def test_a_clock_that_cannot_be_right_deletes_nothing(
    client: TestClient, database: Database, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.patch(f"/v1/projects/{project}", json={"retention": {"predictions_days": 5}})
    record(database, project, [at(6)])
    wrong = datetime.now(UTC) - timedelta(days=400)
    monkeypatch.setattr(retention, "utc_now", lambda: wrong)
    assert sweep(database) == []
    assert len(left(database, project)) == 1


def test_the_gateway_sweeps_by_itself(
    app: FastAPI, client: TestClient, database: Database, project: UUID
) -> None:
    assert "shotline_retention_predictions_deleted_total" in client.get("/metrics").text
    names = [type(one).__name__ for one in app.state.gateway.components]
    assert names.count("RetentionSweep") == 1


def test_ids_know_their_time() -> None:
    made, now = new_id(), datetime.now(UTC)
    assert abs(time_of(made) - now.timestamp()) < 60
    assert first_id_at(now - timedelta(minutes=1)) < made < first_id_at(now + timedelta(minutes=1))
    assert first_id_at(now).version == 7


def test_rules() -> None:
    box = RetentionSettings(predictions_days=3)
    assert Rules.of({}, box) == (3, None)
    assert Rules.of({"predictions_days": None, "images_days": 1}, box) == (None, 1)
