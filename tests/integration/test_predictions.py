"""What the line asks, in every form, and what it is told when something is wrong."""

import base64
import csv
import io
import json
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import LimitSettings
from app.core.storage import LocalStorage
from models.artifact import Artifact
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.predictor import Predictor
from tests.integration import files, tiny
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import (
    Served,
    add_versions,
    make_project,
    predictions_of,
    promote,
    serve,
)

PNG = {"content-type": "image/png"}


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(predict_bytes=300_000, file_bytes=60_000, predict_images=8)


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    return serve(client, database, storage, artifacts[0])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def recorded(client: TestClient, prediction: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/v1/predictions/{prediction}").json()
    return shown


def test_a_raw_image(
    client: TestClient, served: Served, artifacts: list[Artifact], tiny_backbone: Backbone
) -> None:
    photograph = tiny.photograph(1, 50)
    response = client.post(
        served.predict, content=photograph, headers=PNG | {"Image-Id": "cam3-000123"}
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = Predictor(artifacts[0], tiny_backbone).predict([photograph])[0]
    assert answer["image_id"] == "cam3-000123"
    assert answer["decision"] == expected.decision
    assert answer["label"] == expected.label
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert [entry["label"] for entry in answer["probabilities"]] == [
        entry.label for entry in expected.probabilities
    ]
    assert sum(entry["probability"] for entry in answer["probabilities"]) == pytest.approx(
        1, abs=1e-4
    )
    assert answer["prediction_set"] == expected.prediction_set
    assert answer["reason"] == expected.reason
    assert answer["model"] == {
        "id": str(served.model), "version": 1, "digest": artifacts[0].digest
    }  # fmt: skip
    timings = answer["timings_ms"]
    assert set(timings) == {"decode", "queue", "encode", "total"}
    assert timings["total"] >= timings["decode"] + timings["encode"]


def test_three_forms_of_one_image_agree(client: TestClient, served: Served) -> None:
    photograph = tiny.photograph(2, 51)
    raw = client.post(served.predict, content=photograph, headers=PNG)
    octets = {"content-type": "application/octet-stream"}
    untyped = client.post(served.predict, content=photograph, headers=octets)
    form = client.post(served.predict, files={"image": ("a.png", photograph, "image/png")})
    encoded = client.post(served.predict, json={"image": b64(photograph)})
    answers = [response.json() for response in (raw, untyped, form, encoded)]
    assert len({answer["label"] for answer in answers}) == 1
    assert {answer["probability"] for answer in answers} == {answers[0]["probability"]}
    assert len({answer["prediction_id"] for answer in answers}) == 4


def test_by_model_whatever_is_in_production(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    project = make_project(client)
    first, second = add_versions(database, storage, project, artifacts[:2])
    promote(client, project, 1)
    for model, version in ((second, 2), (first, 1), (second, 2)):
        answer = client.post(
            f"/v1/models/{model}/predict", content=tiny.photograph(0, 1), headers=PNG
        )
        assert answer.json()["model"]["version"] == version


def test_a_promotion_counts_from_its_answer_on(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    project = make_project(client)
    add_versions(database, storage, project, artifacts)
    for version in (1, 2, 3, 1):
        promote(client, project, version)
        answer = client.post(
            f"/v1/projects/{project}/predict", content=tiny.photograph(0, 1), headers=PNG
        ).json()
        assert answer["model"]["version"] == version
        assert answer["model"]["digest"] == artifacts[version - 1].digest
    client.post(f"/v1/projects/{project}/rollback", json={})
    answer = client.post(
        f"/v1/projects/{project}/predict", content=tiny.photograph(0, 1), headers=PNG
    ).json()
    assert answer["model"]["version"] == 3


def test_top_k(client: TestClient, served: Served) -> None:
    answer = client.post(
        served.predict, params={"top_k": 1}, content=tiny.photograph(0, 1), headers=PNG
    ).json()
    assert answer["probabilities"] == [
        {"label": answer["label"], "probability": answer["probability"]}
    ]


def test_several_in_a_form_with_a_bad_one_among_them(client: TestClient, served: Served) -> None:
    sent = [
        ("image", ("a.png", tiny.photograph(0, 1), "image/png")),
        ("image", ("b.png", b"no image", "image/png")),
        ("image", ("傷.png", tiny.photograph(1, 1), "image/png")),
    ]
    response = client.post(served.predict, files=sent, data={"part_id": "SN-1"})
    assert response.status_code == 200, response.text
    good, bad, other = response.json()["results"]
    assert [good["image_id"], bad["image_id"], other["image_id"]] == ["a.png", "b.png", "傷.png"]
    assert (bad["status"], bad["type"]) == (422, "urn:shotline:problem:bad-image")
    assert bad["fix"]
    assert recorded(client, other["prediction_id"])["part_id"] == "SN-1"


def test_several_in_json_each_with_its_origin(client: TestClient, served: Served) -> None:
    images = [
        {"image": b64(tiny.photograph(0, 1)), "image_id": "x", "captured_at": "2026-11-24T08:15Z"},
        {"image": b64(tiny.photograph(0, 2)), "station": "line 4"},
        {"image": "%%%", "image_id": "z"},
    ]
    response = client.post(served.predict, json={"station": "line 3", "images": images})
    first, second, third = response.json()["results"]
    assert recorded(client, first["prediction_id"])["station"] == "line 3"
    assert recorded(client, first["prediction_id"])["captured_at"] == "2026-11-24T08:15:00Z"
    assert recorded(client, second["prediction_id"])["station"] == "line 4"
    assert (third["status"], third["image_id"]) == (422, "z")
    assert "base64" in third["detail"]


def test_ndjson_has_a_line_for_each(client: TestClient, served: Served) -> None:
    images = [{"image": b64(tiny.photograph(0, n)), "image_id": str(n)} for n in range(7)]
    images[3]["image"] = b64(b"nothing")
    response = client.post(
        served.predict, json={"images": images}, headers={"accept": "application/x-ndjson"}
    )
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(7))
    for line in lines:
        assert line["image_id"] == str(line["index"])
        assert ("status" in line) == (line["index"] == 3)


def test_compact(client: TestClient, served: Served) -> None:
    response = client.post(
        served.predict, params={"format": "compact"}, content=tiny.photograph(0, 1), headers=PNG
    )
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    whole = client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG).json()
    code = {"ok": 1, "ng": 2, "undecidable": 3}[whole["decision"]]
    line = f"{code};{whole['probability']:.4f};1;{whole['reason']};{whole['label']}"
    assert response.text == line
    later = client.get(f"/v1/predictions/{whole['prediction_id']}", params={"format": "compact"})
    assert later.text == line


def test_compact_counts_more_than_accept(client: TestClient, served: Served) -> None:
    response = client.post(
        served.predict,
        params={"format": "compact"},
        content=tiny.photograph(0, 1),
        headers=PNG | {"accept": "application/x-ndjson"},
    )
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_compact_is_of_one(client: TestClient, served: Served) -> None:
    images = [{"image": b64(tiny.photograph(0, n))} for n in range(2)]
    response = client.post(served.predict, params={"format": "compact"}, json={"images": images})
    assert_problem(response, 422, "bad-input", names="2 were sent", field="format")


def test_what_the_line_says_is_kept_and_found(client: TestClient, served: Served) -> None:
    said = {
        "Image-Id": "cam3-1",
        "Part-Id": "SN-4711",
        "Station": "検査 3".encode(),
        "Captured-At": "2026-11-24T09:15:30.250+01:00",
    }
    answer = client.post(
        served.predict,
        content=tiny.photograph(0, 1),
        headers=[
            (k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in (PNG | said).items()
        ],
    ).json()
    other = client.post(served.predict, content=tiny.photograph(1, 1), headers=PNG).json()
    record = recorded(client, answer["prediction_id"])
    assert record["station"] == "検査 3"
    assert record["captured_at"] == "2026-11-24T08:15:30.250000Z"
    assert record["probabilities"] == answer["probabilities"]
    assert record["timings_ms"] == answer["timings_ms"]
    everything = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(everything).json()["items"]) == 2, "the records", 5)
    for query in (
        {"part_id": "SN-4711"}, {"station": "検査 3"}, {"image_id": "cam3-1"},
    ):  # fmt: skip
        found = client.get(everything, params=query).json()["items"]
        assert [entry["prediction_id"] for entry in found] == [answer["prediction_id"]]
    by_label = client.get(everything, params={"label": other["label"], "version": 1}).json()
    assert other["prediction_id"] in [entry["prediction_id"] for entry in by_label["items"]]
    assert client.get(everything, params={"until": "2020-01-01T00:00:00Z"}).json()["items"] == []
    assert client.get(everything, params={"since": "2100-01-01T00:00:00Z"}).json()["items"] == []
    both = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    assert len(client.get(everything, params=both).json()["items"]) == 2


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"captured_since": "2026-11-24T08:00:00Z"}, ["1", "2"]),
        ({"captured_since": "2026-11-24T09:00:00+01:00"}, ["1", "2"]),
        ({"captured_until": "2026-11-24T09:00:00Z"}, ["0", "1"]),
        (
            {"captured_since": "2026-11-24T08:00:00Z", "captured_until": "2026-11-24T09:00:00Z"},
            ["1"],
        ),
    ],
)
def test_found_by_the_time_of_capture(
    client: TestClient, served: Served, query: dict[str, str], found: list[str]
) -> None:
    for n, hour in enumerate((7, 8, 9)):
        said = {"Image-Id": str(n), "Captured-At": f"2026-11-24T{hour:02}:00:00Z"}
        client.post(served.predict, content=tiny.photograph(0, n), headers=PNG | said)
    client.post(served.predict, content=tiny.photograph(0, 3), headers=PNG)
    everything = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(everything).json()["items"]) == 4, "the records", 5)
    items = client.get(everything, params=query).json()["items"]
    assert [entry["image_id"] for entry in items] == found


@pytest.mark.parametrize("name", ["part_id", "image_id", "station", "label"])
@pytest.mark.parametrize("form", ["predictions", "predictions.csv"])
def test_a_search_for_what_no_database_holds(
    client: TestClient, served: Served, name: str, form: str
) -> None:
    path = f"/v1/projects/{served.project}/{form}"
    assert client.get(path, params={name: "\0"}).status_code == 200


@pytest.mark.parametrize("name", ["since", "until", "captured_since", "captured_until"])
def test_a_search_by_a_time_beyond_the_calendar(
    client: TestClient, served: Served, name: str
) -> None:
    path = f"/v1/projects/{served.project}/predictions"
    response = client.get(path, params={name: "9999-12-31T23:59:59-14:00"})
    assert_problem(response, 422, "bad-input", names="9999", field=name)


def test_the_log_names_every_prediction(client: TestClient, served: Served) -> None:
    sent = [("image", (f"{n}.png", tiny.photograph(0, n), "image/png")) for n in range(2)]
    with capture_logs(processors=[merge_contextvars]) as lines:
        response = client.post(served.predict, files=sent, headers={"X-Request-Id": "line-3"})
    told = [entry["prediction_id"] for entry in response.json()["results"]]
    logged = [line for line in lines if line["event"] == "predicted"]
    assert sorted(line["prediction_id"] for line in logged) == sorted(told)
    assert {line["request_id"] for line in logged} == {"line-3"}


def test_csv(client: TestClient, served: Served) -> None:
    for n, part in enumerate(("=HYPERLINK(1)", "SN-2, left", "SN-3")):
        client.post(served.predict, content=tiny.photograph(0, n), headers=PNG | {"Part-Id": part})
    path = f"/v1/projects/{served.project}/predictions.csv"
    wait_for(lambda: len(client.get(path).text.splitlines()) == 4, "the records", 5)
    response = client.get(path)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["part_id"] for row in rows] == ["'=HYPERLINK(1)", "SN-2, left", "SN-3"]
    assert rows[0]["version"] == "1"
    few = client.get(path, params={"part_id": "SN-3"})
    assert len(few.text.splitlines()) == 2


@pytest.mark.parametrize(
    ("keep", "kept"), [("none", {}), ("undecidable", {"undecidable"}), ("all", {"ok", "ng"})]
)
def test_kept_images(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    keep: Any,
    kept: set[str],
) -> None:
    served = serve(client, database, storage, artifacts[0], keep)
    sent = {
        client.post(served.predict, content=data, headers=PNG).json()["prediction_id"]: data
        for data in (tiny.photograph(label, n) for label in range(3) for n in range(3))
    }
    everything = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(everything).json()["items"]) == 9, "the records", 5)
    records = client.get(everything).json()["items"]
    assert any(record["image_kept"] for record in records) == (keep != "none")
    for record in records:
        wanted = keep == "all" or record["decision"] in kept
        assert record["image_kept"] == wanted
        response = client.get(f"/v1/predictions/{record['prediction_id']}/image")
        if wanted:
            assert response.content == sent[record["prediction_id"]]
            assert response.headers["content-type"] == "image/png"
        else:
            assert_problem(response, 404, "not-found", names=record["prediction_id"])


def test_idempotency(client: TestClient, served: Served) -> None:
    photograph, key = tiny.photograph(0, 1), {"Idempotency-Key": str(new_id())}
    first = client.post(served.predict, content=photograph, headers=PNG | key)
    again = client.post(served.predict, content=photograph, headers=PNG | key)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    other = client.post(served.predict, content=tiny.photograph(0, 2), headers=PNG | key)
    assert_problem(other, 422, "bad-input", names=key["Idempotency-Key"], field="Idempotency-Key")
    elsewhere = client.post(
        f"/v1/models/{served.model}/predict", content=photograph, headers=PNG | key
    )
    assert elsewhere.json()["prediction_id"] != first.json()["prediction_id"]


def test_idempotency_whatever_boundary_a_form_chose(client: TestClient, served: Served) -> None:
    key = {"Idempotency-Key": "form"}
    sent = {"image": ("a.png", tiny.photograph(0, 1), "image/png")}
    first = client.post(served.predict, files=sent, headers=key)
    assert client.post(served.predict, files=sent, headers=key).content == first.content


def test_idempotency_of_lines(client: TestClient, served: Served) -> None:
    headers = {"Idempotency-Key": "lines", "accept": "application/x-ndjson"}
    body = {"images": [{"image": b64(tiny.photograph(0, n))} for n in range(3)]}
    first = client.post(served.predict, json=body, headers=headers)
    again = client.post(served.predict, json=body, headers=headers)
    assert again.text == first.text
    assert again.headers["content-type"] == "application/x-ndjson"


def test_a_failed_request_can_be_sent_again_under_its_key(
    client: TestClient, served: Served
) -> None:
    headers = PNG | {"Idempotency-Key": "bad"}
    for _ in range(2):
        assert_problem(client.post(served.predict, content=b"x", headers=headers), 422, "bad-image")


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", "0 bytes"),
        (b"hello", "not an image"),
        (files.jpeg()[:-40], "truncated"),
        (files.png_bomb(), "100 megapixels"),
        (b"x" * 60_001, "60001"),
    ],
    ids=["empty", "text", "truncated", "bomb", "long"],
)
def test_bad_images(client: TestClient, served: Served, data: bytes, names: str) -> None:
    response = client.post(served.predict, content=data, headers=PNG)
    assert_problem(response, 422, "bad-image", names=names)
    everything = client.get(f"/v1/projects/{served.project}/predictions").json()
    assert everything["items"] == []


def test_a_body_over_the_limit(client: TestClient, served: Served) -> None:
    response = client.post(served.predict, content=b"x" * 300_001, headers=PNG)
    assert_problem(response, 413, "too-large", names="300001", field="body")


def test_an_image_over_the_limit_whose_length_is_not_said(
    client: TestClient, served: Served
) -> None:
    chunks = (b"x" * 10_000 for _ in range(7))
    response = client.post(served.predict, content=chunks, headers=PNG)
    assert_problem(response, 422, "bad-image", names="at most 60000")


def test_json_of_countless_values_is_not_parsed(client: TestClient, served: Served) -> None:
    headers = {"content-type": "application/json"}
    body = '{"images": [' + "[]," * 3000 + "[]]}"
    response = client.post(served.predict, content=body, headers=headers)
    assert_problem(response, 413, "too-large", names=("5600 values", "8 images"), field="images")


def test_the_first_image_at_fault_ends_the_reading(client: TestClient, served: Served) -> None:
    response = client.post(served.predict, json={"images": [{}] * 1000})
    problem = assert_problem(response, 422, "bad-input", field="images.0.image")
    assert "errors" not in problem


def test_too_many_images(client: TestClient, served: Served) -> None:
    response = client.post(served.predict, json={"images": [{"image": "AAAA"}] * 9})
    assert_problem(response, 413, "too-large", names="9 images", field="images")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", "body"),
        ("{}", "body"),
        ('{"image": 3}', "image"),
        ('{"images": []}', "images"),
        ('{"image": "AAAA", "images": [{"image": "AAAA"}]}', "body"),
        ('{"image": "AAAA", "captured_at": "2026-11-24T08:15:00"}', "captured_at"),
        ('{"image": "AAAA", "captured_at": "0001-01-01T00:00:00+14:00"}', "captured_at"),
        ('{"image": "AAAA", "colour": 1}', "colour"),
    ],
)
def test_json_that_says_nothing_usable(
    client: TestClient, served: Served, body: str, field: str
) -> None:
    headers = {"content-type": "application/json"}
    response = client.post(served.predict, content=body, headers=headers)
    assert_problem(response, 422, "bad-input", field=field)


def test_forms_that_say_nothing_usable(client: TestClient, served: Served) -> None:
    response = client.post(served.predict, files={"image": (None, "text")})
    assert_problem(response, 400, "bad-request", names="no file", field="image")
    sent = [("image", (f"{n}.png", tiny.photograph(0, n), "image/png")) for n in range(3)]
    response = client.post(served.predict, files=sent, data={"image_id": ["a", "b"]})
    assert_problem(response, 422, "bad-input", names=("2", "3"), field="image_id")
    response = client.post(
        served.predict, content=b"x", headers={"content-type": "multipart/form-data"}
    )
    assert_problem(response, 400, "bad-request", names="boundary", field="Content-Type")


def test_another_content_type(client: TestClient, served: Served) -> None:
    response = client.post(served.predict, content=b"x", headers={"content-type": "text/plain"})
    assert_problem(response, 415, "unsupported-type", names="text/plain", field="Content-Type")


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Captured-At": "yesterday"}, "captured_at"),
        ({"Captured-At": "2026-11-24T08:15:00"}, "captured_at"),
        ({"Captured-At": "0001-01-01T00:00:00+14:00"}, "captured_at"),
        ({"Captured-At": "9999-12-31T23:59:59-14:00"}, "captured_at"),
        ({"Part-Id": "x" * 201}, "part_id"),
    ],
)
def test_bad_headers(
    client: TestClient, served: Served, headers: dict[str, str], field: str
) -> None:
    response = client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG | headers)
    problem = assert_problem(response, 422, "bad-input" if "At" in str(headers) else "bad-name")
    assert problem["field"] == field


@pytest.mark.parametrize("query", [{"top_k": 0}, {"deadline_ms": 0}, {"format": "xml"}])
def test_bad_queries(client: TestClient, served: Served, query: dict[str, object]) -> None:
    response = client.post(served.predict, params=query, content=tiny.photograph(0, 1), headers=PNG)
    assert_problem(response, 422, "bad-input", field=next(iter(query)))


def test_before_any_version_exists(client: TestClient) -> None:
    project = make_project(client)
    response = client.post(
        f"/v1/projects/{project}/predict", content=tiny.photograph(0, 1), headers=PNG
    )
    problem = assert_problem(response, 409, "conflict", names=str(project), field="project")
    assert "promote" in problem["fix"]


def test_unknown_project_and_model(client: TestClient) -> None:
    nothing = new_id()
    for kind in ("projects", "models"):
        response = client.post(f"/v1/{kind}/{nothing}/predict", content=b"x", headers=PNG)
        assert_problem(response, 404, "not-found", names=str(nothing))
    assert_problem(client.get(f"/v1/predictions/{nothing}"), 404, "not-found")


def test_an_artifact_of_another_backbone(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    source = tiny.write_backbone(tmp_path_factory.mktemp("other"), seed=1)
    other = load_backbone(source, device="cpu")
    foreign = tiny.tuned_artifact(other, artifacts[0].header.classes)
    served = serve(client, database, storage, foreign)
    for path in (served.predict, f"/v1/models/{served.model}/predict"):
        response = client.post(path, content=tiny.photograph(0, 1), headers=PNG)
        problem = assert_problem(response, 409, "artifact-mismatch", field="backbone")
        assert foreign.header.backbone_digest[:19] in problem["detail"]
        assert "tune again" in problem["fix"]


def test_a_damaged_artifact(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    project = make_project(client)
    add_versions(database, storage, project, artifacts[:1])
    for path in storage.root.glob("??/??/*"):
        path.write_bytes(path.read_bytes()[:-1])
    promote(client, project, 1)
    response = client.post(
        f"/v1/projects/{project}/predict", content=tiny.photograph(0, 1), headers=PNG
    )
    assert_problem(response, 500, "damaged")


@pytest.mark.parametrize("how", ["missing", "unreadable"])
def test_an_artifact_that_cannot_be_read_stops_its_own_project_alone(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    how: str,
) -> None:
    broken = make_project(client)
    add_versions(database, storage, broken, artifacts[:1])
    (path,) = storage.root.glob("??/??/*")
    path.unlink()
    if how == "unreadable":
        path.mkdir()  # whoever reads it gets an OSError, root too
    client.put(f"/v1/projects/{broken}/aliases/production", json={"version": 1})
    sound = serve(client, database, storage, artifacts[1])
    response = client.post(
        f"/v1/projects/{broken}/predict", content=tiny.photograph(0, 1), headers=PNG
    )
    assert_problem(response, 500, "damaged", names="version 1")
    answer = client.post(sound.predict, content=tiny.photograph(0, 1), headers=PNG)
    assert answer.status_code == 200, answer.text


def test_keys(
    make_client: MakeClient, client: TestClient, anonymous: TestClient, served: Served
) -> None:
    def ask(who: TestClient, path: str = served.predict) -> Any:
        return who.post(path, content=tiny.photograph(0, 1), headers=PNG)

    assert_problem(ask(anonymous), 401, "unauthenticated")
    assert_problem(ask(make_client("viewer")), 403, "forbidden", names="operator")
    assert ask(make_client("operator")).status_code == 200
    assert ask(make_client("operator", served.project)).status_code == 200
    stranger = make_client("operator", make_project(client))
    assert_problem(ask(stranger), 404, "not-found")
    assert_problem(ask(stranger, f"/v1/models/{served.model}/predict"), 404, "not-found")
    made = ask(client).json()["prediction_id"]
    assert_problem(stranger.get(f"/v1/predictions/{made}"), 404, "not-found", names=made)


def test_metrics_and_readiness(app: FastAPI, client: TestClient, served: Served) -> None:
    client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG)
    text = client.get("/metrics").text
    for name in (
        "shotline_predictions_total{",
        "shotline_prediction_queue_seconds_bucket",
        "shotline_prediction_encode_seconds_bucket",
        'shotline_prediction_batch_images_bucket{le="1.0"} 1.0',
        "shotline_predictions_shed_total 0.0",
        "shotline_predictions_expired_total 0.0",
        "shotline_prediction_records_lost_total 0.0",
        "shotline_prediction_images_in_flight 0.0",
    ):
        assert name in text, name
    parts = client.get("/readyz").json()["parts"]
    assert parts["backbone"] == parts["database"] == parts["queue"] == "ok"
    assert predictions_of(app).models.knows(served.project)
