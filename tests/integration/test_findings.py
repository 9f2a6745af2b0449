"""What the data doctor finds in a project's images: told at upload, before a tuning, on request."""

import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import PIL.ImageEnhance
import PIL.ImageFilter
import pytest
from pydantic import SecretStr
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.jobs import EXAMINATIONS
from app.core.queue import EXAMINE, CeleryQueue, InMemoryQueue, TaskQueue
from app.core.settings import QueueSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import Examination, FoundFinding
from tests.integration import services
from tests.integration.problems import assert_problem
from tests.integration.test_tunings import claim, make_project, row_of, run_here, start
from tests.unit.models.test_findings import jpeg, picture
from worker import exit_codes, tuning_run
from worker.examination_run import ExaminationRun


def send(client: TestClient, project: UUID, label: str, **files: bytes) -> dict[str, Any]:
    sent = client.post(
        f"/v1/projects/{project}/images",
        data={"label": label},
        files=[("files", (name, data)) for name, data in files.items()],
    )
    assert sent.status_code == 200, sent.text
    return {entry["file"]: entry for entry in sent.json()["results"]}


def findings(client: TestClient, project: UUID, **query: object) -> dict[str, Any]:
    response = client.get(f"/v1/projects/{project}/findings", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def empty_project(client: TestClient) -> UUID:
    classes = [{"name": "good"}, {"name": "bad"}]
    made = client.post("/v1/projects", json={"name": f"p-{new_id()}", "classes": classes})
    assert made.status_code == 201, made.text
    return UUID(made.json()["id"])


@pytest.fixture
def project(client: TestClient) -> UUID:
    """Five photographs of each class, and one that is labelled `bad` and a copy of a `good` one."""
    project = empty_project(client)
    good = {f"g{n}": jpeg(picture(n)) for n in range(5)}
    send(client, project, "good", **good)
    bad = {f"b{n}": jpeg(picture(100 + n)) for n in range(5)}
    send(client, project, "bad", **bad, copy=jpeg(picture(1), 60))
    return project


def examine_here(settings: Settings, database: Database, storage: LocalStorage) -> int:
    """Do in this process what a worker's child does with the examination that waits."""
    with database.unit_of_work() as session:
        waiting = EXAMINATIONS.oldest_queued(session)
        assert waiting is not None
        lease = EXAMINATIONS.claim(session, waiting, owner="test", seconds=30)
    assert lease is not None
    return ExaminationRun(lease, settings, database, storage).run()


def test_a_look_that_is_asked_for(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    queue: InMemoryQueue,
    project: UUID,
) -> None:
    nothing = findings(client, project)
    assert (nothing["items"], nothing["computed_at"], nothing["out_of_date"]) == ([], None, True)
    asked = client.post(f"/v1/projects/{project}/findings")
    assert (asked.status_code, asked.json()["state"]) == (202, "queued")
    assert asked.headers["location"] == f"/v1/projects/{project}/findings"
    again = client.post(f"/v1/projects/{project}/findings")
    assert again.json()["id"] == asked.json()["id"]
    assert queue.sent == [(EXAMINE, (asked.json()["id"],))]
    assert findings(client, project)["examination"]["state"] == "queued"

    assert examine_here(settings, database, storage) == exit_codes.DONE
    found = findings(client, project)
    assert found["examination"]["state"] == "succeeded"
    assert (found["images"], found["out_of_date"], found["tuning"]) == (11, False, None)
    assert found["digest"].startswith("sha256:")
    assert found["computed_at"] is not None
    assert found["counts"]["serious"] == 1
    first = found["items"][0]
    assert (first["kind"], first["severity"]) == ("near_duplicate", "serious")
    assert {image["file"] for image in first["images"]} == {"g1", "copy"}
    shown = client.get(f"/v1/images/{first['images'][0]['id']}").json()
    assert shown["sha256"] == first["images"][0]["sha256"]

    # Filters and pages.
    assert findings(client, project, kind="near_duplicate")["items"] == [first]
    assert findings(client, project, kind="blur", severity="serious")["items"] == []
    pages, cursor = [], None
    while True:
        page = findings(client, project, limit=1, **({"cursor": cursor} if cursor else {}))
        pages += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == found["items"]
    refused = client.get(f"/v1/projects/{project}/findings", params={"kind": "ghost"})
    assert refused.status_code == 422

    # What changes makes it out of date; an image that goes takes its findings with it.
    copy = next(image for image in first["images"] if image["file"] == "copy")
    assert client.delete(f"/v1/images/{copy['id']}").status_code == 204
    after = findings(client, project)
    assert after["out_of_date"]
    assert first["id"] not in {one["id"] for one in after["items"]}

    assert client.delete(f"/v1/projects/{project}").status_code == 204
    with database.reading() as session:
        assert session.scalars(select(Examination)).all() == []
        assert session.scalars(select(FoundFinding)).all() == []


def test_a_tuning_is_looked_at_first_and_goes_on(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    project: UUID,
) -> None:
    tuning = start(client, project)
    assert client.get(f"/v1/tunings/{tuning}").json()["findings"] is None
    assert run_here(settings, database, storage, tuning)[0] == exit_codes.DONE
    shown = client.get(f"/v1/tunings/{tuning}").json()
    assert shown["state"] == "succeeded"
    assert len(shown["warnings"]) == 1
    assert "look like copies of one image" in shown["warnings"][0]
    assert shown["findings"][0]["severity"] == "serious"
    found = findings(client, project)
    assert (found["tuning"], found["out_of_date"]) == (str(tuning), False)
    assert found["digest"] == shown["snapshot"]["digest"]
    model = shown["model"]["id"]
    metrics = client.get(f"/v1/models/{model}/report").json()["metrics"]
    assert metrics["findings"] == shown["findings"]


def test_a_tuning_does_not_fail_because_of_the_doctor(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the doctor is ill")

    monkeypatch.setattr(tuning_run, "examine_images", broken)
    project = make_project(client, "good", "bad")
    tuning = start(client, project)
    assert run_here(settings, database, storage, tuning)[0] == exit_codes.DONE
    assert row_of(database, tuning).findings is None
    assert findings(client, project)["computed_at"] is None


def test_a_second_attempt_does_not_look_again(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
    project: UUID,
) -> None:
    tuning = start(client, project)
    lease = claim(database, tuning)
    assert lease is not None
    run = tuning_run.TuningRun(lease, settings, database, storage)

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(run, "_tune", killed)
    with pytest.raises(SystemExit):
        run.run()
    first = row_of(database, tuning).findings
    assert first
    monkeypatch.setattr(tuning_run, "examine_images", None)
    assert tuning_run.TuningRun(lease, settings, database, storage).run() == exit_codes.DONE
    assert client.get(f"/v1/tunings/{tuning}").json()["findings"] == first


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_odd_projects_are_looked_at(
    client: TestClient, settings: Settings, database: Database, storage: LocalStorage
) -> None:
    """No images; one image of a class, which no tuning would take; bytes that are gone."""
    project = empty_project(client)
    refused = client.post(f"/v1/projects/{project}/findings")
    assert_problem(refused, 409, "conflict", field="project")
    data = jpeg(picture(1))
    send(client, project, "good", only=data)
    assert client.post(f"/v1/projects/{project}/findings").status_code == 202
    assert examine_here(settings, database, storage) == exit_codes.DONE
    assert {one["kind"] for one in findings(client, project)["items"]} == {"few_images"}
    storage.remove_old(sha256(data).hexdigest(), 0)
    for path in settings.feature_folder.rglob("*.json"):
        path.unlink()
    assert client.post(f"/v1/projects/{project}/findings").status_code == 202
    assert examine_here(settings, database, storage) == exit_codes.DONE
    (gone,) = findings(client, project, kind="unreadable")["items"]
    assert gone["severity"] == "serious"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_upload_is_warned_of_what_costs_little(client: TestClient, project: UUID) -> None:
    dark = PIL.ImageEnhance.Brightness(picture(20)).enhance(0.08)
    soft = picture(21).filter(PIL.ImageFilter.GaussianBlur(3))
    fine = {f"more{n}": jpeg(picture(30 + n)) for n in range(4)}
    told = send(
        client, project, "good", **fine, dark=jpeg(dark), soft=jpeg(soft),
        same=jpeg(picture(2), 70), other=jpeg(picture(101), 70),
    )  # fmt: skip
    assert {entry["verdict"] for entry in told.values()} == {"accepted"}
    assert all(told[name]["warnings"] == [] for name in fine)
    assert told["dark"]["warnings"][0].startswith("The image is too dark.")
    assert told["soft"]["warnings"][0].startswith("The image is blurred")
    assert told["same"]["warnings"] == [
        "The image looks like a copy of 'g2'. Leave it out, or give both the group of the part"
        " that they show."
    ]
    assert "which is labelled 'bad'" in told["other"]["warnings"][0]
    grouped = client.post(
        f"/v1/projects/{project}/images",
        data={"label": "good", "group": "part"},
        files=[("files", (name, jpeg(picture(50), q))) for name, q in (("a", 90), ("b", 70))],
    )
    assert [entry["warnings"] for entry in grouped.json()["results"]] == [[], []]


class TestByARealWorker:
    """From the request to the findings, through Redis and Celery."""

    @pytest.fixture(params=["sqlite"])
    def database_kind(self, request: pytest.FixtureRequest) -> str:
        kind: str = request.param
        return kind

    @pytest.fixture
    def redis_url(self, tmp_path: Path) -> Iterator[str]:
        (tmp_path / "r").mkdir()
        with services.redis_server(tmp_path / "r") as url:
            yield url

    @pytest.fixture
    def queue(self, redis_url: str) -> TaskQueue:
        return CeleryQueue(QueueSettings(url=SecretStr(redis_url)))

    @pytest.fixture
    def worker(
        self, settings: Settings, redis_url: str, tmp_path: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        environment = services.environment_of(settings, redis_url)
        with services.worker(environment, tmp_path / "worker.log") as child:
            yield child

    def test_findings(
        self, client: TestClient, worker: subprocess.Popen[bytes], project: UUID
    ) -> None:
        assert client.post(f"/v1/projects/{project}/findings").status_code == 202
        services.wait_for(
            lambda: findings(client, project)["examination"]["state"] == "succeeded",
            "the examination",
        )
        assert findings(client, project)["counts"]["serious"] == 1
