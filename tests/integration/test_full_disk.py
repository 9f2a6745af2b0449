"""A full disk: what has to be written is refused with 507, all else goes on."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.settings import (
    BackboneSettings,
    DatabaseSettings,
    GateSettings,
    ServerSettings,
    Settings,
    StorageSettings,
)
from app.core.storage import LocalStorage
from app.predictions.idempotency import IdempotencyStore, StoredAnswer
from models.artifact import Artifact
from tests.integration import tiny
from tests.integration.files import png, zip_of
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import Served, add_versions, predictions_of, promote
from tests.integration.small_disk import fill, free, small_disk

PNG = {"content-type": "image/png"}
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 48) as folder:
        yield folder


@pytest.fixture
def database_url(disk: Path, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, disk / "shotline.db")
    return f"sqlite:///{disk / 'shotline.db'}"


@pytest.fixture
def marks() -> StorageSettings:
    return StorageSettings()


@pytest.fixture
def settings(
    disk: Path, database_url: str, backbone_settings: BackboneSettings, marks: StorageSettings
) -> Settings:
    return Settings(
        server=ServerSettings(home=disk / "home"),
        database=DatabaseSettings(url=SecretStr(database_url), busy_timeout=2.0),
        backbone=backbone_settings,
        storage=marks,
        gates=GateSettings(enabled=False),
    )


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    body = {"name": "caps", "keep_images": "all", "classes": [{"name": "good"}]}
    project = UUID(client.post("/v1/projects", json=body).json()["id"])
    (model,) = add_versions(database, storage, project, artifacts[:1])
    promote(client, project, 1)
    return Served(project, model)


@pytest.fixture
def uploaded(client: TestClient, served: Served) -> str:
    """The id of an image that is there."""
    image: str = upload(client, served, 1).json()["results"][0]["image"]
    return image


def upload(client: TestClient, served: Served, seed: int = 2) -> Any:
    path = f"/v1/projects/{served.project}/images"
    return client.post(path, files={"files": ("a.png", png(seed))}, data={"label": "good"})


def ask(client: TestClient, served: Served, number: int, **headers: str) -> Any:
    data = tiny.photograph(0, number)
    return client.post(served.predict, content=data, headers=PNG | headers)


def ask_by_form(client: TestClient, served: Served, number: int) -> Any:
    return client.post(served.predict, files={"image": ("p.png", tiny.photograph(0, number))})


def assert_all_can_be_read(client: TestClient, served: Served, image: str) -> None:
    for path in (
        "/v1/projects",
        f"/v1/projects/{served.project}",
        f"/v1/projects/{served.project}/images",
        f"/v1/images/{image}/content",
        f"/v1/images/{image}/thumbnail",
        f"/v1/models/{served.model}",
        f"/v1/projects/{served.project}/predictions",
        f"/v1/projects/{served.project}/predictions.csv",
        "/metrics",
    ):
        assert client.get(path).status_code == 200, path


def test_the_reserve_is_kept_for_the_database(
    app: FastAPI, client: TestClient, served: Served, uploaded: str, disk: Path
) -> None:
    filler = fill(disk, leave=2 * MIB)  # below a twentieth of 48 MB
    before = free(disk)
    assert_problem(upload(client, served), 507, "storage-full", names="reserve")
    batch = client.post(
        f"/v1/projects/{served.project}/batches", files={"files": ("a.png", png(3))}
    )
    assert_problem(batch, 507, "storage-full", names="reserve")
    assert free(disk) == before
    assert client.post("/v1/projects", json={"name": "the database goes on"}).status_code == 201
    assert ask(client, served, 0).status_code == 200
    assert ask_by_form(client, served, 1).status_code == 200
    assert_all_can_be_read(client, served, uploaded)
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["parts"]["disk"]) == ("degraded", "failed")
    assert "uploads are refused" in ready["about"]["disk"]
    metrics = client.get("/metrics").text
    assert "shotline_disk_state 2.0" in metrics
    path = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(path).json()["items"]) == 2, "the records")
    assert not any(one["image_kept"] for one in client.get(path).json()["items"])
    filler.unlink()
    assert upload(client, served).json()["accepted"] == 1
    wait_for(lambda: client.get("/readyz").json()["status"] == "ready", "readiness")


def test_a_body_without_a_length_stops_at_the_reserve(
    client: TestClient, served: Served, uploaded: str, disk: Path
) -> None:
    fill(disk, leave=6 * MIB)
    body = zip_of({f"good/{n}.bin": bytes(MIB) for n in range(20)}, method=0)
    response = client.post(
        f"/v1/projects/{served.project}/images",
        content=(body[at : at + MIB] for at in range(0, len(body), MIB)),
        headers={"content-type": "application/zip"},
    )
    assert_problem(response, 507, "storage-full", names="reserve")
    assert free(disk) > 5 * MIB


@pytest.mark.parametrize("marks", [StorageSettings(low_disk_bytes=0, reserve_bytes=0)])
def test_a_disk_that_is_full_to_the_brim(
    app: FastAPI, client: TestClient, served: Served, uploaded: str, disk: Path
) -> None:
    assert ask(client, served, 0).status_code == 200
    filler = fill(disk)
    assert free(disk) == 0
    assert_problem(upload(client, served), 507, "storage-full")
    batch = client.post(
        f"/v1/projects/{served.project}/batches", files={"files": ("a.png", png(3))}
    )
    assert_problem(batch, 507, "storage-full")
    refused = [client.post("/v1/projects", json={"name": "n" * 90 + str(n)}) for n in range(100)]
    full = next(one for one in refused if one.status_code != 201)
    assert_problem(full, 507, "storage-full")
    assert_all_can_be_read(client, served, uploaded)
    for number in range(1, 6):
        assert ask(client, served, number).status_code == 200
        assert ask_by_form(client, served, 10 + number).status_code == 200
    for _ in range(2):  # remembered or not, the key does not stand in the way
        assert ask(client, served, 20, **{"Idempotency-Key": "k"}).status_code == 200
    archive = client.post(
        served.predict,
        content=zip_of({"a.png": tiny.photograph(0, 30), "b.png": tiny.photograph(0, 31)}),
        headers={"content-type": "application/zip"},
    )
    assert (archive.status_code, archive.text.count('"decision"')) == (200, 2)
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["parts"]["backbone"]) == ("degraded", "ok")
    filler.unlink()
    path = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(path).json()["items"]) in (14, 15), "the records")
    assert "records_lost_total 0.0" in client.get("/metrics").text
    assert upload(client, served).json()["accepted"] == 1
    assert predictions_of(app).spare._free == 2 * 128 * MIB


def test_the_state_is_logged_once_for_each_change(
    app: FastAPI, client: TestClient, disk: Path
) -> None:
    watch = app.state.gateway.disk
    watch.look()
    with structlog.testing.capture_logs() as logs:
        filler = fill(disk, leave=4 * MIB)  # below a tenth, above a twentieth
        assert [watch.look() for _ in range(3)] == ["low"] * 3
        filler.unlink()
        fill(disk, leave=MIB)
        assert [watch.look() for _ in range(3)] == ["reserve"] * 3
        filler.unlink()
        assert watch.look() == "ok"
    said = [one["event"] for one in logs if one["event"].startswith("disk_")]
    assert said == ["disk_low", "disk_full", "disk_has_room"]


def test_low_disk_is_told_before_anything_is_refused(
    client: TestClient, served: Served, disk: Path
) -> None:
    wait_for(lambda: client.get("/readyz").json()["status"] == "ready", "readiness")
    fill(disk, leave=4 * MIB)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "refused soon" in ready.json()["about"]["disk"]
    assert upload(client, served).json()["accepted"] == 1


def test_a_gateway_starts_on_a_full_disk(
    settings: Settings, app: FastAPI, served: Served, disk: Path
) -> None:
    """The file of idempotency keys cannot be made: memory does until the next start."""
    fill(disk)
    store = IdempotencyStore(disk / "other" / "answers.db", hours=1)
    store.start()
    assert store.begin("s", "k", "f") is None
    store.finish("s", "k", StoredAnswer(200, "text/plain", b"x"))
    assert store.begin("s", "k", "f") == StoredAnswer(200, "text/plain", b"x")
    store.stop()
