"""Decisions that a line can trust, through the gateway: sets, reasons, and what a project asks."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.settings import Settings
from app.core.storage import LocalStorage
from app.main import create_app
from app.predictions.engines.encoder import ImageEncoder
from models.artifact import Artifact
from models.backbone import Backbone
from models.classes import ClassSpec
from models.predictor import Predictor
from models.trust.policy import DecisionPolicy
from tests.integration import tiny
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import Served, add_versions, promote, serve

PNG = {"content-type": "image/png"}
CLASSES = [
    ClassSpec(name="good", prompt_name="good", role="ok"),
    ClassSpec(name="傷", prompt_name="scratch", role="ng"),
]


@pytest.fixture(scope="session")
def sure(tiny_backbone: Backbone) -> Artifact:
    """Two classes of 20 photographs: enough for a budget of 5 %."""
    return tiny.tuned_artifact(tiny_backbone, CLASSES, count=20)


@pytest.fixture
def served(client: TestClient, database: Database, storage: LocalStorage, sure: Artifact) -> Served:
    return serve(client, database, storage, sure)


@pytest.fixture
def other_gateway(
    settings: Settings, storage: LocalStorage, encoder: ImageEncoder, client: TestClient
) -> Iterator[TestClient]:
    """Another gateway on the same database."""
    database = Database.of(settings)
    app = create_app(settings, database=database, storage=storage, load_encoder=lambda: encoder)
    with TestClient(app, headers=dict(client.headers)) as running:
        yield running
    database.close()


def ask(client: TestClient, served: Served, photograph: bytes) -> dict[str, Any]:
    response = client.post(served.predict, content=photograph, headers=PNG)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def patch(client: TestClient, served: Served, decisions: dict[str, Any]) -> Any:
    return client.patch(f"/v1/projects/{served.project}", json={"decisions": decisions})


def plain(level: int) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(np.full((40, 40, 3), level, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_good_and_bad_parts_are_told_apart_for_a_reason(
    client: TestClient, served: Served, sure: Artifact, tiny_backbone: Backbone
) -> None:
    photographs = [tiny.photograph(label, 100 + n) for label in (0, 1) for n in range(6)]
    expected = Predictor(sure, tiny_backbone).predict(photographs)
    answers = [ask(client, served, photograph) for photograph in photographs]
    for answer, made in zip(answers, expected, strict=True):
        said = {key: answer[key] for key in ("decision", "reason", "label", "prediction_set")}
        assert said == {name: made.as_json()[name] for name in said}
        assert answer["probability"] == pytest.approx(made.probability, abs=1e-5)
    assert {"ok", "ng"} <= {answer["decision"] for answer in answers}
    decided = [answer for answer in answers if answer["decision"] != "undecidable"]
    assert {answer["reason"] for answer in decided} == {"certain"}


@pytest.mark.parametrize(
    ("photograph", "reason"),
    [(plain(0), "photograph_dark"), (plain(255), "photograph_bright")],
)
def test_a_frame_without_a_part_is_no_defect(
    client: TestClient, served: Served, photograph: bytes, reason: str
) -> None:
    answer = ask(client, served, photograph)
    assert (answer["decision"], answer["reason"]) == ("undecidable", reason)
    compact = client.get(
        f"/v1/predictions/{answer['prediction_id']}", params={"format": "compact"}
    ).text
    assert compact.split(";")[0] == "3"
    assert compact.split(";")[3] == reason
    path = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: client.get(path, params={"reason": reason}).json()["items"], "record", 10)
    (record,) = client.get(path, params={"reason": reason}).json()["items"]
    assert record["reason"] == reason
    assert not client.get(path, params={"reason": "certain"}).json()["items"]
    assert f",undecidable,{reason}," in client.get(f"{path}.csv").text


def test_a_policy_counts_on_every_gateway(
    client: TestClient, other_gateway: TestClient, served: Served
) -> None:
    photograph = tiny.photograph(1, 100)
    wait_for(
        lambda: other_gateway.post(served.predict, content=photograph, headers=PNG).is_success,
        "the promotion",
    )
    for gateway in (client, other_gateway):
        assert ask(gateway, served, photograph)["decision"] == "ng"
    changed = patch(client, served, {"review": 0.0})
    assert changed.json()["decisions"]["review"] == 0.0
    for gateway in (client, other_gateway):
        wait_for(
            lambda asked=gateway: ask(asked, served, photograph)["reason"] == "review_costs_less",
            "the policy",
            10,
        )
    patch(client, served, {})
    for gateway in (client, other_gateway):
        wait_for(
            lambda asked=gateway: ask(asked, served, photograph)["decision"] == "ng",
            "the policy",
            10,
        )


def test_a_budget_is_kept_or_refused(
    client: TestClient,
    served: Served,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
) -> None:
    assert patch(client, served, {"budget": {"missed_ng": 0.05}}).status_code == 200
    refused = patch(client, served, {"budget": {"missed_ng": 0.04}})
    problem = assert_problem(refused, 422, "bad-input", field="decisions.budget.missed_ng")
    assert "version 1, in production, was calibrated on 20 images of role ng" in problem["detail"]
    assert "0.0476 is the smallest" in problem["detail"]
    assert "label 24 images" in problem["fix"]
    # Another version cannot keep what was promised: it decides nothing that could break it.
    add_versions(database, storage, served.project, artifacts[:1])
    promote(client, served.project, 2)
    answers = [ask(client, served, tiny.photograph(0, 100 + n)) for n in range(6)]
    assert "ok" not in {answer["decision"] for answer in answers}
    assert "budget_not_held" in {answer["reason"] for answer in answers}


@pytest.mark.parametrize(
    ("decisions", "field"),
    [
        ({"alpha": 0}, "decisions.alpha"),
        ({"alpha": 1.5}, "decisions.alpha"),
        ({"review": -1}, "decisions.review"),
        ({"review": 1, "costs": {"傷": {"miss": -3}}}, "decisions.costs.miss"),
        ({"review": 1, "costs": {"dent": {"miss": 3}}}, "decisions.costs"),
        ({"costs": {"傷": {"miss": 3}}}, "decisions.review"),
    ],
)
def test_what_cannot_be_asked_of_decisions(
    client: TestClient, served: Served, decisions: dict[str, Any], field: str
) -> None:
    assert_problem(patch(client, served, decisions), 422, "bad-input", field=field)
    assert client.get(f"/v1/projects/{served.project}").json()["decisions"]["alpha"] == 0.1


def test_a_project_may_be_made_with_a_policy_which_follows_a_class(client: TestClient) -> None:
    costs = {"傷": {"miss": 50.0}}
    body = {
        "name": "with a policy",
        "classes": [{"name": "good"}, {"name": "傷", "prompt_name": "scratch"}],
        "decisions": {"alpha": 0.2, "review": 1.0, "costs": costs, "budget": {"missed_ng": 0.01}},
    }
    made = client.post("/v1/projects", json=body)
    assert made.status_code == 201, made.text
    project = made.json()
    assert project["decisions"]["costs"]["傷"]["miss"] == 50
    (_, scratch) = project["classes"]
    path = f"/v1/projects/{project['id']}"
    changed = client.patch(f"{path}/classes/{scratch['id']}", json={"name": "dent"}).json()
    assert changed["decisions"]["costs"]["dent"]["miss"] == 50
    assert DecisionPolicy.read(changed["decisions"]).budget.missed_ng == 0.01
    entries = client.get("/v1/audit", params={"project": project["id"]}).json()["items"]
    kept = [entry for entry in entries if entry["action"] == "project.change"]
    assert kept[0]["after"]["decisions"]["alpha"] == 0.2


def test_a_version_from_before_there_were_rules_decides_as_it_did(
    client: TestClient, database: Database, storage: LocalStorage, sure: Artifact
) -> None:
    metrics = sure.header.metrics.model_copy(update={"trust": None})
    header = sure.header.model_copy(update={"rule": None, "format_version": 1, "metrics": metrics})
    old = serve(client, database, storage, Artifact(header, sure.tensors))
    answer = ask(client, old, plain(0))
    assert (answer["decision"], answer["reason"]) == (
        "ok" if answer["label"] == "good" else "ng",
        "most_probable",
    )
    assert answer["prediction_set"] == [answer["label"]]
    refused = patch(client, old, {"budget": {"missed_ng": 0.05}})
    assert_problem(refused, 422, "bad-input", field="decisions.budget.missed_ng")
