"""Images that are there, their bytes, snapshots that hold them, and the sweep of orphans."""

import io
import os
from typing import Any
from uuid import UUID

import PIL.Image
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core.access import Principal
from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import Settings
from app.core.storage import LocalStorage
from app.core.sweep import sweep_orphans
from app.core.tables import Image, Snapshot
from app.images import service
from app.images.thumbnails import sweep_thumbnails
from app.projects.service import lock_project
from app.snapshots import service as snapshots
from models.dataset import snapshot_digest
from models.errors import BadDataset
from tests.integration.conftest import MakeClient
from tests.integration.files import jpeg, png, zip_of
from tests.integration.problems import assert_problem
from tests.integration.test_projects import count, make
from tests.integration.test_uploads import send, send_archive, verdicts

ADMIN = Principal(None, "test", "admin")


@pytest.fixture
def project(client: TestClient) -> str:
    made: str = make(client)["id"]
    return made


@pytest.fixture
def image(client: TestClient, project: str) -> str:
    made: str = send(client, project, {"dir/傷.png": png(1, (640, 480))}).json()["results"][0][
        "image"
    ]
    return made


def freeze(database: Database, storage: LocalStorage, project: str) -> Snapshot:
    with database.unit_of_work() as session:
        row = lock_project(session, ADMIN, UUID(project))
        return snapshots.freeze(session, row, storage)


def fill(client: TestClient, project: str) -> list[str]:
    """Give both classes two images; return the ids of the images."""
    files = {"good/1.png": png(11), "good/2.png": png(12)}
    files |= {"scratch/1.png": png(13), "scratch/2.png": png(14)}
    results = send_archive(client, project, zip_of(files)).json()["results"]
    return [result["image"] for result in results]


def test_show(client: TestClient, image: str, project: str) -> None:
    shown = client.get(f"/v1/images/{image}").json()
    assert shown["id"] == image
    assert shown["project"] == project
    assert (shown["label"], shown["split"], shown["file"]) == ("scratch", "train", "dir/傷.png")
    assert (shown["format"], shown["width"], shown["height"]) == ("PNG", 640, 480)
    assert shown["bytes"] == len(png(1, (640, 480)))


def test_list_filters_and_pages(client: TestClient, project: str) -> None:
    send(client, project, {f"{n}.png": png(n) for n in range(3)}, label="good", group="g")
    send(client, project, {f"{n}.png": png(n) for n in range(3, 5)}, split="holdout")
    url = f"/v1/projects/{project}/images"

    def listed(**params: Any) -> list[str]:
        items = client.get(url, params=params).json()["items"]
        return [item["file"] for item in items]

    assert listed() == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert listed(label="GOOD") == ["0.png", "1.png", "2.png"]
    assert listed(split="holdout") == ["3.png", "4.png"]
    assert listed(group="g", label="scratch") == []
    sha256 = client.get(url).json()["items"][1]["sha256"]
    assert listed(sha256=sha256) == ["1.png"]
    first = client.get(url, params={"limit": 2}).json()
    assert listed(limit=2, cursor=first["next_cursor"]) == ["2.png", "3.png"]
    assert_problem(client.get(url, params={"label": "x\0"}), 422, "bad-reference", field="label")
    assert listed(group="x\0") == []


def test_content_and_its_caching(client: TestClient, image: str) -> None:
    response = client.get(f"/v1/images/{image}/content")
    assert response.content == png(1, (640, 480))
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "filename*=UTF-8''%E5%82%B7.png" in response.headers["content-disposition"]
    assert "immutable" in response.headers["cache-control"]
    again = client.get(
        f"/v1/images/{image}/content", headers={"If-None-Match": response.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


def test_thumbnail(client: TestClient, image: str, settings: Settings) -> None:
    url = f"/v1/images/{image}/thumbnail"
    for _ in range(2):  # the second time from the cache
        response = client.get(url, params={"size": 64})
        assert response.headers["content-type"] == "image/jpeg"
        assert PIL.Image.open(io.BytesIO(response.content)).size == (64, 48)
    assert len(list(settings.thumbnail_folder.rglob("*.jpg"))) == 1
    etag = {"If-None-Match": response.headers["etag"]}
    assert client.get(url, params={"size": 64}, headers=etag).status_code == 304
    assert_problem(client.get(url, params={"size": 9999}), 422, "bad-input", field="size")


def test_damaged_bytes_are_not_served(client: TestClient, image: str, settings: Settings) -> None:
    path = next(path for path in settings.blob_folder.glob("??/??/*"))
    path.write_bytes(b"rot")
    problem = assert_problem(
        client.get(f"/v1/images/{image}/content"), 500, "damaged", names=path.name
    )
    assert "backup" in problem["fix"]


def test_relabel(client: TestClient, image: str) -> None:
    changed = client.patch(f"/v1/images/{image}", json={"label": "Good"})
    assert changed.json()["label"] == "good"
    assert client.get(f"/v1/images/{image}").json() == changed.json()
    unknown = client.patch(f"/v1/images/{image}", json={"label": "凹み"})
    assert_problem(unknown, 422, "bad-reference", names="凹み", field="label")
    split = client.patch(f"/v1/images/{image}", json={"label": "good", "split": "holdout"})
    assert_problem(split, 422, "bad-input", field="split")
    assert client.get(f"/v1/images/{image}").json() == changed.json()


def test_delete(
    client: TestClient, image: str, project: str, database: Database, storage: LocalStorage
) -> None:
    assert client.delete(f"/v1/images/{image}").status_code == 204
    assert count(database, Image) == 0
    for response in (
        client.get(f"/v1/images/{image}"),
        client.delete(f"/v1/images/{image}"),
        client.get(f"/v1/images/{image}/content"),
        client.get(f"/v1/images/{image}/thumbnail"),
        client.patch(f"/v1/images/{image}", json={"label": "good"}),
    ):
        assert_problem(response, 404, "not-found", names=image, field="image")


def test_unknown_image(client: TestClient) -> None:
    missing = str(new_id())
    response = client.get(f"/v1/images/{missing}")
    assert_problem(response, 404, "not-found", names=missing, field="image")


def test_images_beyond_the_keys_project(
    client: TestClient, make_client: MakeClient, image: str
) -> None:
    stranger = make_client("admin", UUID(make(client, "other")["id"]))
    for response in (
        stranger.get(f"/v1/images/{image}"),
        stranger.delete(f"/v1/images/{image}"),
        stranger.get(f"/v1/images/{image}/content"),
        stranger.get(f"/v1/images/{image}/thumbnail"),
        stranger.patch(f"/v1/images/{image}", json={"label": "good"}),
    ):
        assert_problem(response, 404, "not-found", names=image, field="image")
    assert client.get(f"/v1/images/{image}").status_code == 200


# --- snapshots


def test_a_snapshot_is_hashed_ordered_and_used_again(
    client: TestClient, project: str, database: Database, storage: LocalStorage
) -> None:
    fill(client, project)
    first = freeze(database, storage, project)
    again = freeze(database, storage, project)
    assert first.id == again.id
    with database.reading() as session:
        content = snapshots.read_snapshot(session, storage, first.id)
    assert [spec.name for spec in content.classes] == ["good", "scratch"]
    assert [image.label for image in content.images] == [0, 0, 1, 1]
    assert content.digest == snapshot_digest(content.classes, content.images)
    assert [image.sha256 for image in content.images[:2]] == sorted(
        image.sha256 for image in content.images[:2]
    )
    assert content.images[0].read() in (png(11), png(12))


def test_a_snapshot_does_not_follow_changes(
    client: TestClient, project: str, database: Database, storage: LocalStorage
) -> None:
    images = fill(client, project)
    first = freeze(database, storage, project)
    with database.reading() as session:
        before = snapshots.read_snapshot(session, storage, first.id)
    send(client, project, {"new.png": png(99)})
    client.patch(f"/v1/images/{images[0]}", json={"label": "scratch"})
    classes = client.get(f"/v1/projects/{project}").json()["classes"]
    client.patch(f"/v1/projects/{project}/classes/{classes[0]['id']}", json={"name": "flawless"})
    assert client.delete(f"/v1/images/{images[1]}").status_code == 204
    with database.reading() as session:
        after = snapshots.read_snapshot(session, storage, first.id)
    assert after.classes == before.classes
    assert [(i.sha256, i.label) for i in after.images] == [
        (i.sha256, i.label) for i in before.images
    ]
    assert snapshot_digest(after.classes, after.images) == first.digest


def test_a_deleted_image_of_a_snapshot_is_a_tombstone(
    client: TestClient, project: str, database: Database, storage: LocalStorage
) -> None:
    images = fill(client, project)
    freeze(database, storage, project)
    shown = client.get(f"/v1/images/{images[0]}").json()
    assert client.delete(f"/v1/images/{images[0]}").status_code == 204
    assert_problem(client.get(f"/v1/images/{images[0]}"), 404, "not-found")
    listed = client.get(f"/v1/projects/{project}/images").json()["items"]
    assert images[0] not in [item["id"] for item in listed]
    assert storage.read(shown["sha256"])
    with database.reading() as session:
        row = session.scalars(select(Image).where(Image.id == UUID(images[0]))).one()
        assert row.deleted_at is not None
    again = send(client, project, {"again.png": storage.read(shown["sha256"])}, label="good")
    assert verdicts(again) == {"again.png": "accepted"}
    with database.reading() as session:
        kept = session.scalars(select(Snapshot)).one()
    assert freeze(database, storage, project).id == kept.id


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({}, "good"),
        ({"good/1.png": png(1), "good/2.png": png(2)}, "scratch"),
        ({"good/1.png": png(1), "good/2.png": png(2), "scratch/3.png": png(3)}, "scratch"),
    ],
)
def test_too_little_to_freeze(
    client: TestClient,
    project: str,
    database: Database,
    storage: LocalStorage,
    files: dict[str, bytes],
    names: str,
) -> None:
    if files:
        send_archive(client, project, zip_of(files))
    with pytest.raises(BadDataset, match=names):
        freeze(database, storage, project)
    assert count(database, Snapshot) == 0


def test_one_class_is_too_few(
    client: TestClient, database: Database, storage: LocalStorage
) -> None:
    project = make(client, "lonely", classes=[{"name": "good"}])["id"]
    with pytest.raises(BadDataset, match="at least 2 classes"):
        freeze(database, storage, project)


def test_an_image_that_another_deletes_meanwhile(
    client: TestClient,
    project: str,
    database_kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if database_kind == "sqlite":
        pytest.skip("SQLite lets no other write in between")
    lock = service.project_service.lock_project
    for method, body in (("PATCH", {"label": "scratch"}), ("DELETE", None)):
        image = send(client, project, {"a.png": png(50)}, label="good").json()["results"][0][
            "image"
        ]

        def deleted_meanwhile(*args: Any, image: str = image) -> Any:
            monkeypatch.setattr(service.project_service, "lock_project", lock)
            assert client.delete(f"/v1/images/{image}").status_code == 204
            return lock(*args)

        monkeypatch.setattr(service.project_service, "lock_project", deleted_meanwhile)
        response = client.request(method, f"/v1/images/{image}", json=body)
        assert_problem(response, 404, "not-found", names=image)


# --- the sweep


def test_old_thumbnails_are_swept(client: TestClient, project: str, settings: Settings) -> None:
    images = fill(client, project)
    for image in images[:2]:
        assert client.get(f"/v1/images/{image}/thumbnail").status_code == 200
    old, young = settings.thumbnail_folder.glob("*/*.jpg")
    os.utime(old, (0, 0))
    sweep_thumbnails(settings.thumbnail_folder)
    assert list(settings.thumbnail_folder.glob("*/*.jpg")) == [young]


def test_the_sweep_takes_orphans_only(
    client: TestClient, project: str, database: Database, storage: LocalStorage
) -> None:
    images = fill(client, project)
    freeze(database, storage, project)
    client.delete(f"/v1/images/{images[0]}")  # a tombstone: its bytes stay
    lone = send(client, project, {"lone.jpg": jpeg(7)}).json()["results"][0]
    client.delete(f"/v1/images/{lone['image']}")
    young = storage.put(b"just put, its row not yet committed")
    for blob in storage.blobs():
        if blob.sha256 != young:
            path = storage.root / blob.sha256[:2] / blob.sha256[2:4] / blob.sha256
            os.utime(path, (0, 0))
    assert sweep_orphans(database, storage, min_age=3600) == 1
    left = {blob.sha256 for blob in storage.blobs()}
    assert lone["sha256"] not in left
    assert young in left
    assert len(left) == 5
