"""The candidate beside production on live images: its answers are kept and count for nothing."""

from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.storage import LocalStorage
from app.core.tables import PredictionRecord, ShadowAnswer
from app.predictions import records
from app.shadow.scoring import Shadow
from models.artifact import Artifact
from models.backbone_source import load_backbone
from tests.integration import serving, tiny
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import Served, add_versions, predictions_of, promote

PNG = {"content-type": "image/png"}


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    """Version 1 in production, version 2 the candidate."""
    made = serving.serve(client, database, storage, artifacts[0], keep_images="undecidable")
    add_versions(database, storage, made.project, artifacts[1:2])
    promote(client, made.project, 2, "candidate")
    return made


@pytest.fixture
def other_artifact(tmp_path: Path, artifacts: list[Artifact]) -> Artifact:
    """Of another backbone than the gateway's."""
    backbone = load_backbone(tiny.write_backbone(tmp_path / "other", seed=7), device="cpu")
    return tiny.tuned_artifact(backbone, artifacts[0].header.classes)


def switch(client: TestClient, served: Served, *, enabled: bool = True) -> None:
    answer = client.put(f"/v1/projects/{served.project}/shadow", json={"enabled": enabled})
    assert answer.status_code == 200, answer.text


def predict(client: TestClient, served: Served, label: int, number: int) -> UUID:
    image = tiny.photograph(label, number)
    answer = client.post(served.predict, content=image, headers=PNG)
    assert answer.status_code == 200, answer.text
    return UUID(answer.json()["prediction_id"])


def answers(database: Database, served: Served) -> dict[UUID, ShadowAnswer]:
    with database.reading() as session:
        query = select(ShadowAnswer).where(ShadowAnswer.project_id == served.project)
        return {row.prediction_id: row for row in session.scalars(query)}


def loaded(app: FastAPI, client: TestClient, served: Served) -> None:
    """Have the candidate in memory: the first image that needs it goes without."""
    predictions = predictions_of(app)
    shadow = predictions.models.project(served.project).shadow
    assert shadow is not None
    predictions.models.load(shadow).result(30)


def test_it_answers_the_same_images_and_changes_no_answer(
    app: FastAPI,
    client: TestClient,
    served: Served,
    database: Database,
    artifacts: list[Artifact],
) -> None:
    image = tiny.photograph(1, 50)
    without = client.post(served.predict, content=image, headers=PNG).json()
    switch(client, served)
    loaded(app, client, served)
    asked = {predict(client, served, label, 50 + label) for label in range(3)}
    with_it = client.post(served.predict, content=image, headers=PNG).json()
    for field in ("decision", "label", "probabilities", "model"):
        assert with_it[field] == without[field]
    asked.add(UUID(with_it["prediction_id"]))
    wait_for(lambda: answers(database, served).keys() == asked, "the candidate's answers")
    # What it says is what it says when it is asked itself.
    (models,) = [
        entry["id"]
        for entry in client.get(f"/v1/projects/{served.project}/models").json()["items"]
        if entry["version"] == 2
    ]
    own = client.post(f"/v1/models/{models}/predict", content=image, headers=PNG).json()
    beside = answers(database, served)[UUID(with_it["prediction_id"])]
    assert (beside.decision, beside.label) == (own["decision"], own["label"])
    assert beside.probability == pytest.approx(own["probability"], abs=1e-5)
    shown = client.get(f"/v1/projects/{served.project}/shadow").json()
    assert (shown["state"], shown["production"], shown["candidate"]) == ("on", 1, 2)
    assert shown["images"] == 4
    assert sum(sum(row.values()) for row in shown["confusion"].values()) == 4
    differing = [row for row in answers(database, served).values() if row.differs]
    assert len(shown["examples"]) == len(differing)
    assert shown["agreement"]["value"] == pytest.approx(1 - len(differing) / 4)
    metrics = client.get("/metrics").text
    assert "shotline_shadow_failed_total 0.0" in metrics
    assert 'shotline_shadow_answers_total{same="' in metrics


def test_a_candidate_that_fails_fails_nothing(
    app: FastAPI,
    client: TestClient,
    served: Served,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch(client, served)
    loaded(app, client, served)

    def broken(*_: object) -> list[dict[str, object]]:
        raise RuntimeError("the candidate is ill")

    monkeypatch.setattr(records, "answers", broken)
    made = predict(client, served, 0, 60)
    listed = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: client.get(listed).json()["items"], "the record")
    assert client.get(f"/v1/predictions/{made}").status_code == 200
    assert answers(database, served) == {}
    assert "shotline_shadow_failed_total 1.0" in client.get("/metrics").text


def test_a_record_stays_where_its_candidate_was_deleted_meanwhile(
    app: FastAPI, client: TestClient, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch(client, served)
    loaded(app, client, served)
    real = records.answers

    def of_another(shadows: list[Shadow], rows: list[dict[str, object]]) -> object:
        return [row | {"version_id": served.project} for row in real(shadows, rows)]

    monkeypatch.setattr(records, "answers", of_another)
    predict(client, served, 0, 61)
    listed = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: client.get(listed).json()["items"], "the record")
    assert "shotline_prediction_records_lost_total 0.0" in client.get("/metrics").text


def test_where_the_two_differ_the_image_is_kept(
    app: FastAPI,
    client: TestClient,
    served: Served,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch(client, served)
    loaded(app, client, served)
    real, other = records.answers, []

    def differing(shadows: list[Shadow], rows: list[dict[str, object]]) -> object:
        """Let every second one differ."""
        found = real(shadows, rows)
        for row in found:
            row["differs"] = len(other) % 2 == 0
            other.append(row)
        return found

    monkeypatch.setattr(records, "answers", differing)
    made = [predict(client, served, 0, number) for number in range(70, 74)]
    wait_for(lambda: answers(database, served).keys() == {*made}, "the candidate's answers")
    with database.reading() as session:
        rows = {row.id: row for row in session.scalars(select(PredictionRecord))}
    for prediction, answer in answers(database, served).items():
        if rows[prediction].decision != "undecidable":
            assert (rows[prediction].image_sha256 is not None) == answer.differs


def test_switched_off_and_promoted(
    app: FastAPI, client: TestClient, served: Served, database: Database
) -> None:
    address = f"/v1/projects/{served.project}/shadow"
    assert client.get(address).json()["state"] == "off"
    switch(client, served)
    loaded(app, client, served)
    switch(client, served, enabled=False)
    predict(client, served, 0, 80)
    listed = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: client.get(listed).json()["items"], "the record")
    assert answers(database, served) == {}
    switch(client, served)
    promote(client, served.project, 2)
    shown = client.get(address).json()
    assert (shown["state"], shown["images"]) == ("waiting", 0)
    predict(client, served, 0, 81)
    wait_for(lambda: len(client.get(listed).json()["items"]) == 2, "the record")
    assert answers(database, served) == {}


def test_a_candidate_of_another_backbone_is_refused(
    app: FastAPI,
    client: TestClient,
    served: Served,
    database: Database,
    storage: LocalStorage,
    other_artifact: Artifact,
) -> None:
    add_versions(database, storage, served.project, [other_artifact])
    switch(client, served)
    promote(client, served.project, 3, "candidate")
    address = f"/v1/projects/{served.project}/shadow"
    shown = client.get(address).json()
    assert shown["state"] == "refused"
    assert "another" in shown["why"]
    assert "backbone" in shown["why"]
    predict(client, served, 0, 90)  # is answered, and nothing else
    predictions_of(app).models.load(
        predictions_of(app).models.project(served.project).shadow
    ).result(30)
    predict(client, served, 0, 91)
    listed = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(listed).json()["items"]) == 2, "the records")
    assert answers(database, served) == {}
    switch(client, served, enabled=False)
    refused = client.put(address, json={"enabled": True})
    assert_problem(refused, 409, "artifact-mismatch", names="version 3", field="backbone")


def test_without_a_candidate_it_waits(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    project = serving.make_project(client)
    address = f"/v1/projects/{project}/shadow"
    assert client.put(address, json={"enabled": True}).json()["state"] == "waiting"
    assert "production" in client.get(address).json()["why"]
