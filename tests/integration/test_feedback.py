"""Feedback on predictions, the review queue, and tuning again on what it gathered."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.core.clock import utc_now
from app.core.database import Database
from app.core.ids import new_id
from app.core.queue import TUNE, InMemoryQueue
from app.core.storage import LocalStorage
from app.core.tables import KeepImages, PredictionRecord, ShadowAnswer
from app.feedback.drift import FIRST, LEAST
from models.artifact import Artifact
from tests.integration import serving, tiny
from tests.integration.conftest import MakeClient
from tests.integration.files import zip_of
from tests.integration.problems import assert_problem
from tests.integration.serving import Served

PNG = {"content-type": "image/png"}
ZIP = {"content-type": "application/zip"}
CLASSES = ("good", "傷", "unclear 🔍")

Predict = Callable[..., dict[str, Any]]
Recorded = Callable[..., UUID]


def project_with_classes(client: TestClient, keep_images: KeepImages = "all") -> UUID:
    project = serving.make_project(client, keep_images)
    files = {f"{name}/{i}.png": tiny.photograph(n, i) for n, name in enumerate(CLASSES[:2])
             for i in range(3)}  # fmt: skip
    answer = client.post(f"/v1/projects/{project}/images", content=zip_of(files), headers=ZIP)
    assert answer.is_success, answer.text
    assert client.post(
        f"/v1/projects/{project}/classes", json={"name": CLASSES[2], "role": "other"}
    ).is_success
    return project


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    project = project_with_classes(client)
    (model,) = serving.add_versions(database, storage, project, artifacts[:1])
    serving.promote(client, project, 1)
    return Served(project, model)


@pytest.fixture
def predict(client: TestClient, served: Served) -> Predict:
    def ask(number: int, label: int = 0, **headers: str) -> dict[str, Any]:
        image = tiny.photograph(label, number)
        answer = client.post(served.predict, content=image, headers=PNG | headers)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return ask


@pytest.fixture
def recorded(database: Database, storage: LocalStorage, served: Served) -> Recorded:
    """Record a prediction as if the line had asked."""

    def record(
        probability: float = 0.99, *, kept: bool = True, differs: bool | None = None, **values: Any
    ) -> UUID:
        made = PredictionRecord(
            id=new_id(), project_id=served.project, model_version_id=served.model, model_number=1,
            model_digest="sha256:0", **{"decision": "ok", "label": "good"} | values,
            probability=probability,
            probabilities=[
                {"label": "good", "probability": probability},
                {"label": "傷", "probability": round(1 - probability, 6)},
            ],
            prediction_set=["good"], timings_ms={}, created_at=utc_now(),
        )  # fmt: skip
        if kept:
            data = tiny.photograph(0, 1000 + made.id.int % 100_000)
            made.image_sha256, made.image_bytes = storage.put(data), len(data)
        with database.unit_of_work() as session:
            session.add(made)
            session.flush()
            if differs is not None:
                session.add(
                    ShadowAnswer(
                        prediction_id=made.id, project_id=served.project, version_id=served.model,
                        decision="ng", label="傷", probability=0.8, probabilities=[],
                        differs=differs,
                    )
                )  # fmt: skip
            return made.id

    return record


def test_feedback_twice_is_one_and_another_replaces_it(
    make_client: MakeClient, client: TestClient, predict: Predict
) -> None:
    address = f"/v1/predictions/{predict(20)['prediction_id']}/feedback"
    operator = make_client("operator")
    # At once, although the record may not be written yet.
    first = operator.post(address, json={"label": "GOOD", "note": "seen by QA"})
    assert (first.status_code, first.json()["label"]) == (200, "good")
    assert operator.post(address, json={"label": "good"}).json() == first.json()
    assert len(client.get(address).json()) == 1
    second = operator.post(address, json={"label": "傷"}).json()
    listed = client.get(address).json()
    assert [(row["label"], row["replaced_at"] is None) for row in listed] == [
        ("good", False), ("傷", True)
    ]  # fmt: skip
    assert listed[1] == second
    found = client.get("/v1/audit", params={"action": "feedback.give"}).json()["items"]
    assert [entry["after"]["label"] for entry in found] == ["good", "傷"]


def test_an_unknown_label_names_the_known_ones(client: TestClient, predict: Predict) -> None:
    address = f"/v1/predictions/{predict(21)['prediction_id']}/feedback"
    refused = client.post(address, json={"label": "dent"})
    assert_problem(refused, 422, "bad-reference", names=["'dent'", "'good'", "'傷'"], field="label")
    assert client.get(address).json() == []


def test_feedback_on_what_is_unknown_or_of_another_project(
    make_client: MakeClient, client: TestClient, predict: Predict
) -> None:
    nothing = new_id()
    for what, body in (("feedback", {"label": "good"}), ("review", {"action": "keep"})):
        refused = client.post(f"/v1/predictions/{nothing}/{what}", json=body)
        assert_problem(refused, 404, "not-found", names=str(nothing), field="prediction")
        stranger = make_client("admin", serving.make_project(client))
        made = predict(22)["prediction_id"]
        refused = stranger.post(f"/v1/predictions/{made}/{what}", json=body)
        assert_problem(refused, 404, "not-found", field="prediction")


def test_the_queue_has_the_most_informative_first(
    client: TestClient, served: Served, recorded: Recorded
) -> None:
    recorded(0.99)  # sure, and nobody says otherwise
    recorded(0.99, kept=False, decision="undecidable")
    undecidable = recorded(0.9, decision="undecidable")  # 0.2 + 0.5
    disagreeing = recorded(0.7, differs=True)  # 0.6 + 1
    recorded(0.7, differs=False)
    wrong = recorded(0.8)  # 0.4 + 1
    client.post(f"/v1/predictions/{wrong}/feedback", json={"label": "傷"})
    both = recorded(0.6, differs=True, decision="undecidable", part_id="p")  # 0.8 + 1.5
    same_part = recorded(0.61, differs=True, decision="undecidable", part_id="p")  # halved
    address = f"/v1/projects/{served.project}/review"
    shown = client.get(address).json()
    expected = [both, disagreeing, wrong, same_part, undecidable]
    assert [UUID(entry["prediction_id"]) for entry in shown["items"]] == expected
    scores = [entry["score"] for entry in shown["items"]]
    assert scores == pytest.approx([2.3, 1.6, 1.4, 1.14, 0.7])
    assert shown["items"][0]["reasons"] == ["disagreeing", "undecidable"]
    assert shown["items"][2]["feedback"] == "傷"
    assert (shown["waiting"], shown["gathered"]) == (5, 0)
    every = client.get(address, params={"with_image": False, "limit": 3}).json()
    assert (len(every["items"]), every["waiting"]) == (3, 6)


def test_keep_relabel_discard_and_tune_again(
    client: TestClient, served: Served, recorded: Recorded, queue: InMemoryQueue
) -> None:
    project = f"/v1/projects/{served.project}"
    assert_problem(client.post(f"{project}/review/tune", json={}), 409, "conflict", field="project")
    kept = recorded(0.6, decision="undecidable", part_id="SN-1")
    told = recorded(0.6, decision="undecidable")
    client.post(f"/v1/predictions/{told}/feedback", json={"label": "傷"})
    wrong, dropped = (recorded(0.6, decision="undecidable") for _ in range(2))

    def review(prediction: UUID, **body: str) -> Any:
        return client.post(f"/v1/predictions/{prediction}/review", json=body)

    first = review(kept, action="keep").json()
    assert (first["label"], review(kept, action="keep").json()) == ("good", first)
    image = client.get(f"/v1/images/{first['image']}").json()
    assert (image["label"], image["split"], image["group"]) == ("good", "train", "SN-1")
    assert review(told, action="keep").json()["label"] == "傷"
    assert review(wrong, action="relabel", label="傷").json()["label"] == "傷"
    assert review(dropped, action="discard").json()["image"] is None
    refused = review(dropped, action="keep")
    assert_problem(refused, 409, "conflict", names="discard", field="action")
    shown = client.get(f"{project}/review").json()
    assert (shown["items"], shown["gathered"]) == ([], 3)
    # A third class has no images yet: what is tuned again says so as any tuning does.
    refused = client.post(f"{project}/review/tune", json={})
    assert_problem(refused, 422, "bad-dataset", names="unclear")
    for number in range(2):
        upload = {"label": "unclear 🔍"}
        files = {"files": (f"{number}.png", tiny.photograph(2, number), "image/png")}
        assert client.post(f"{project}/images", data=upload, files=files).is_success
    again = client.post(f"{project}/review/tune", json={"seed": 5})
    assert (again.status_code, again.json()["snapshot"]["images"]) == (202, 11)
    assert [task for task, _ in queue.sent] == [TUNE]
    assert client.get(f"{project}/review").json()["gathered"] == 0
    refused = client.post(f"{project}/review/tune", json={})
    assert_problem(refused, 409, "conflict", names="gathered", field="project")


def test_a_review_that_cannot_be(client: TestClient, served: Served, recorded: Recorded) -> None:
    def review(prediction: UUID, **body: str) -> Any:
        return client.post(f"/v1/predictions/{prediction}/review", json=body)

    gone = recorded(0.6, decision="undecidable", kept=False)
    assert_problem(
        review(gone, action="keep"), 409, "conflict", names="No image is kept", field="prediction"
    )
    assert review(gone, action="discard").status_code == 200
    other = recorded(0.6)
    assert_problem(review(other, action="relabel"), 422, "bad-input", field="label")
    assert_problem(review(other, action="keep", label="good"), 422, "bad-input", field="label")
    refused = review(other, action="relabel", label="dent")
    assert_problem(refused, 422, "bad-reference", names="'good'", field="label")
    strange = recorded(0.6, label="a class that was renamed")
    assert_problem(review(strange, action="keep"), 422, "bad-reference", field="label")
    held = {"label": "good", "split": "holdout", "group": "SN-7"}
    files = {"files": ("h.png", tiny.photograph(0, 77), "image/png")}
    address = f"/v1/projects/{served.project}/images"
    assert client.post(address, data=held, files=files).is_success
    of_it = recorded(0.6, part_id="SN-7")
    assert_problem(review(of_it, action="keep"), 409, "conflict", names="holdout", field="group")


def test_drift_is_told_against_the_first_predictions(
    client: TestClient, served: Served, recorded: Recorded
) -> None:
    address = f"/v1/projects/{served.project}/review"
    for number in range(FIRST):
        recorded(0.92 + 0.001 * (number % 3), kept=False)
        if number in (0, FIRST - 2):
            assert client.get(address).json()["drift"]["first"] is None
    for number in range(LEAST):
        assert client.get(address).json()["drift"]["drifting"] is None
        recorded(0.92 + 0.001 * (number % 3), kept=False)
    drift = client.get(address).json()["drift"]
    assert drift["drifting"] is False
    assert (drift["first"]["images"], drift["last"]["images"]) == (FIRST, LEAST)
    for number in range(LEAST):
        recorded(0.55 + 0.001 * (number % 3))
    drift = client.get(f"/v1/projects/{served.project}/shadow").json()["drift"]
    assert drift["drifting"] is True
    assert drift["probability_change"]["high"] < 0
    assert drift["undecidable_change"]["high"] > 0  # it decides as it did
    shown = client.get(address).json()
    assert shown["waiting"] == LEAST  # less sure than one in twenty of the first
    assert shown["items"][0]["reasons"] == ["drifting"]


def test_deciding_less_often_is_drift(
    client: TestClient, served: Served, recorded: Recorded
) -> None:
    for number in range(FIRST + LEAST):
        recorded(0.9, kept=False, decision="undecidable" if number % 5 == 0 else "ok")
    address = f"/v1/projects/{served.project}/review"
    assert client.get(address).json()["drift"]["drifting"] is False
    for _ in range(LEAST):
        recorded(0.9, kept=False, decision="undecidable")
    drift = client.get(address).json()["drift"]
    assert drift["drifting"] is True
    assert drift["undecidable_change"]["low"] > 0
    assert drift["first"]["undecidable"] == pytest.approx(0.2)
