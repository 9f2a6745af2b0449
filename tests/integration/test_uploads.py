"""Uploads: every file gets a verdict, and what is rejected is nowhere."""

import asyncio
import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import LimitSettings, Settings
from app.core.storage import LocalStorage
from app.core.sweep import sweep_orphans
from app.core.tables import Image, ProjectClass
from app.http import spool
from app.images import check, routes
from models.errors import StorageFull
from tests.integration.conftest import MakeClient
from tests.integration.files import jpeg, png, png_bomb, tar_of, zip_of
from tests.integration.problems import assert_problem
from tests.integration.test_projects import count, make, tune

Meanwhile = Callable[..., None]


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(
        upload_bytes=1_000_000, file_bytes=200_000, upload_files=20, archive_bytes=150_000_000
    )


@pytest.fixture
def project(client: TestClient) -> str:
    made: str = make(client)["id"]
    return made


def send(client: TestClient, project: str, files: dict[str, bytes], **fields: Any) -> Response:
    return client.post(
        f"/v1/projects/{project}/images",
        files=[("files", (name, data)) for name, data in files.items()],
        data={"label": "scratch"} | fields,
    )


def send_archive(client: TestClient, project: str, data: bytes, **fields: Any) -> Response:
    return client.post(
        f"/v1/projects/{project}/images", files={"archive": ("a.zip", data)}, data=fields
    )


def verdicts(response: Response) -> dict[str, str]:
    assert response.status_code == 200, response.text
    return {result["file"]: result["verdict"] for result in response.json()["results"]}


def assert_nothing_stored(database: Database, storage: LocalStorage, settings: Settings) -> None:
    assert count(database, Image) == 0
    assert list(storage.blobs()) == []
    assert not list(settings.scratch_folder.glob("*"))
    assert not list((settings.blob_folder / "incoming").glob("*"))


PACKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda files: tar_of(files, "w:gz"),
}


# --- what is accepted


def test_many_files_of_one_class(client: TestClient, project: str, storage: LocalStorage) -> None:
    files = {"a.png": png(1), "傷 🔥.jpg": jpeg(2), "../../etc/passwd": png(3)}
    response = send(client, project, files, split="holdout", group="part 7")
    body = response.json()
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (3, 0, 0)
    assert [result["file"] for result in body["results"]] == list(files)
    listed = client.get(f"/v1/projects/{project}/images").json()["items"]
    assert [image["file"] for image in listed] == list(files)
    assert {(i["label"], i["split"], i["group"]) for i in listed} == {
        ("scratch", "holdout", "part 7")
    }
    assert [(i["format"], i["width"], i["height"]) for i in listed] == [
        ("PNG", 16, 12),
        ("JPEG", 64, 48),
        ("PNG", 16, 12),
    ]
    for image, data in zip(listed, files.values(), strict=True):
        assert storage.read(image["sha256"]) == data
    stored = {path.name for path in storage.root.rglob("*") if path.is_file()} - {".lock"}
    assert stored == {image["sha256"] for image in listed}  # no name of theirs became a path


def test_dotnet_writes_a_file_name_twice(client: TestClient, project: str) -> None:
    """The body of .NET's MultipartFormDataContent: names unquoted, `filename` as a MIME word."""
    body = (
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Disposition: form-data; name=label\r\n\r\nscratch\r\n"
        b"--b\r\nContent-Type: image/png\r\n"
        b'Content-Disposition: form-data; name=files; filename="=?utf-8?B?5YK3IDEucG5n?=";'
        b" filename*=utf-8''%E5%82%B7%201.png\r\n\r\n" + png(1) + b"\r\n--b--\r\n"
    )
    response = client.post(
        f"/v1/projects/{project}/images",
        content=body,
        headers={"content-type": 'multipart/form-data; boundary="b"'},
    )
    assert verdicts(response) == {"傷 1.png": "accepted"}


def test_plain_fields_are_limited_together(
    client: TestClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_FIELD_BYTES", 1000)
    response = client.post(
        f"/v1/projects/{project}/images",
        files=[("files", ("a.png", png(1)))],
        data={"ok": ["x" * 300] * 5},
    )
    assert_problem(response, 400, "bad-request", names="plain fields")


def test_a_body_is_never_read_on_the_event_loop(
    client: TestClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[bool] = []
    read = routes.read_upload

    def spy(*args: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loops.append(False)
        else:
            loops.append(True)
        return read(*args)

    monkeypatch.setattr(routes, "read_upload", spy)
    assert send(client, project, {"a.png": png(1)}).status_code == 200
    assert loops == [False]


def test_the_same_file_again_is_a_duplicate(
    client: TestClient, project: str, database: Database
) -> None:
    first = send(client, project, {"a.png": png(1)}).json()["results"][0]
    again = send(client, project, {"b.png": png(1), "c.png": png(2), "d.png": png(2)})
    assert verdicts(again) == {"b.png": "duplicate", "c.png": "accepted", "d.png": "duplicate"}
    results = again.json()["results"]
    assert results[0]["image"] == first["image"]
    assert results[2]["image"] == results[1]["image"]
    assert count(database, Image) == 2


def test_a_duplicate_says_what_it_does_not_change(client: TestClient, project: str) -> None:
    send(client, project, {"a.png": png(1)}, group="p1")
    for fields, stays in (
        ({"split": "holdout"}, "The image is in train and stays there."),
        ({"group": "p2"}, "The image is of the group 'p1' and stays in it."),
        ({}, None),
    ):
        (result,) = send(client, project, {"a.png": png(1)}, **fields).json()["results"]
        assert (result["verdict"], result["detail"]) == ("duplicate", stays)


# --- what another upload brought while this one was checked


@pytest.fixture
def meanwhile(client: TestClient, project: str, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have another upload committed between the check of the next one and its commit."""
    check_files = check.check_files

    def have(files: dict[str, bytes], **fields: Any) -> None:
        def checked(*args: Any) -> Any:
            monkeypatch.setattr(check, "check_files", check_files)
            found = check_files(*args)
            assert send(client, project, files, **fields).status_code == 200
            return found

        monkeypatch.setattr(check, "check_files", checked)

    return have


def test_the_same_bytes_twice_and_once_from_another_upload(
    client: TestClient, project: str, meanwhile: Meanwhile, database: Database
) -> None:
    meanwhile({"other.png": png(1)})
    response = send(client, project, {"a.png": png(1), "b.png": png(1), "c.png": png(2)})
    assert verdicts(response) == {"a.png": "duplicate", "b.png": "duplicate", "c.png": "accepted"}
    results = response.json()["results"]
    assert results[0]["image"] == results[1]["image"] is not None
    assert count(database, Image) == 2


def test_a_group_that_another_upload_put_on_the_other_side(
    client: TestClient, project: str, meanwhile: Meanwhile, database: Database
) -> None:
    meanwhile({"other.png": png(1)}, split="holdout", group="p1")
    groups = json.dumps({"a.png": "p1"})
    response = send(client, project, {"a.png": png(2), "b.png": png(3)}, groups=groups)
    assert verdicts(response) == {"a.png": "rejected", "b.png": "accepted"}
    assert "'p1' is in holdout" in response.json()["results"][0]["detail"]
    assert count(database, Image) == 2


def test_all_that_another_upload_left_unusable(
    client: TestClient, project: str, meanwhile: Meanwhile, database: Database
) -> None:
    meanwhile({"other.png": png(1)}, split="holdout", group="p1")
    response = send(client, project, {"a.png": png(2), "b.png": png(3)}, group="p1")
    problem = assert_problem(response, 422, "bad-upload", names=("2 files", "'p1' is in holdout"))
    assert [result["verdict"] for result in problem["results"]] == ["rejected", "rejected"]
    assert count(database, Image) == 1


def test_groups_by_file_name(client: TestClient, project: str) -> None:
    files = {f"{n}.png": png(n) for n in range(3)}
    groups = json.dumps({"0.png": "p1", "1.png": "p1"})
    send(client, project, files, groups=groups)
    listed = client.get(f"/v1/projects/{project}/images").json()["items"]
    assert [image["group"] for image in listed] == ["p1", "p1", listed[2]["sha256"]]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_makes_the_classes_that_its_folders_name(client: TestClient, kind: str) -> None:
    files = {
        "parts/train/good/1.png": png(1),
        "parts/train/凹み/2.jpg": jpeg(2),
        "parts/holdout/good/3.png": png(3),
        "parts/flawless/4.png": png(4),
        "parts/good/.DS_Store": b"litter",
        "__MACOSX/good/._1.png": b"litter",
        "parts/good/Thumbs.db": b"litter",
    }
    project = make(client, classes=[])["id"]
    response = send_archive(client, project, PACKERS[kind](files), ok=["flawless"])
    body = response.json()
    assert response.status_code == 200, body
    assert body["classes_created"] == ["flawless", "good", "凹み"]
    assert set(verdicts(response).values()) == {"accepted"}
    shown = client.get(f"/v1/projects/{project}").json()
    assert [(c["name"], c["role"], c["images"]) for c in shown["classes"]] == [
        ("flawless", "ok", {"train": 1, "holdout": 0}),
        ("good", "ok", {"train": 1, "holdout": 1}),
        ("凹み", "ng", {"train": 1, "holdout": 0}),
    ]


@pytest.mark.parametrize(
    ("kind", "pack"), [("application/zip", zip_of), ("application/x-tar", tar_of)]
)
def test_an_archive_as_the_body(client: TestClient, kind: str, pack: Any) -> None:
    project = make(client, classes=[])["id"]
    response = client.post(
        f"/v1/projects/{project}/images",
        params={"split": "holdout", "ok": ["a"]},
        content=pack({"a/1.png": png(1), "b/2.png": png(2)}),
        headers={"content-type": kind},
    )
    assert set(verdicts(response).values()) == {"accepted"}
    listed = client.get(f"/v1/projects/{project}/images").json()["items"]
    assert {image["split"] for image in listed} == {"holdout"}


def test_names_in_utf8_that_the_zip_does_not_declare(client: TestClient) -> None:
    data = zip_of({"XXXXXX/1.png": png(1)}).replace(b"XXXXXX", "凹み".encode())
    project = make(client, classes=[])["id"]
    assert verdicts(send_archive(client, project, data)) == {"凹み/1.png": "accepted"}


def test_an_archive_meets_known_classes_whatever_their_spelling(
    client: TestClient, project: str, database: Database
) -> None:
    response = send_archive(client, project, zip_of({"SCRATCH/1.png": png(1)}))
    assert response.json()["classes_created"] == []
    assert response.json()["results"][0]["label"] == "scratch"
    assert count(database, ProjectClass) == 2


def test_good_and_bad_together(
    client: TestClient, project: str, storage: LocalStorage, database: Database
) -> None:
    files = {
        "good/1.png": png(1),
        "good/empty.png": b"",
        "good/notes.txt": b"not an image",
        "good/cut.jpg": jpeg(3)[:-300],
        "stray.png": png(4),
        "broken/only.png": b"x",
    }
    response = send_archive(client, project, zip_of(files))
    assert verdicts(response) == {
        "good/1.png": "accepted",
        "good/empty.png": "rejected",
        "good/notes.txt": "rejected",
        "good/cut.jpg": "rejected",
        "stray.png": "rejected",
        "broken/only.png": "rejected",
    }
    results = {result["file"]: result for result in response.json()["results"]}
    assert "0 bytes" in results["good/empty.png"]["detail"]
    assert "not an image" in results["good/notes.txt"]["detail"]
    assert "truncated" in results["good/cut.jpg"]["detail"]
    assert "no folder" in results["stray.png"]["detail"]
    assert all(r["fix"] for r in results.values() if r["verdict"] == "rejected")
    assert response.json()["classes_created"] == []
    assert [blob.sha256 for blob in storage.blobs()] == [results["good/1.png"]["sha256"]]
    assert count(database, Image) == 1


# --- what is refused


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", "0 bytes"),
        (b"This is no image at all.", "not an image"),
        (jpeg(1)[:-300], "truncated"),
        (png(1)[:60], "truncated"),
        (png_bomb(), "100 megapixels"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, "image"),
        (b"x" * 200_001, "200001 bytes"),
    ],
    ids=["empty", "text", "cut-jpeg", "cut-png", "bomb", "broken", "large"],
)
def test_a_file_that_is_no_usable_image(
    client: TestClient,
    project: str,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    data: bytes,
    names: str,
) -> None:
    assert len(data) < 250_000
    assert_problem(send(client, project, {"a.png": data}), 422, "bad-image", names=names)
    assert_nothing_stored(database, storage, settings)


def test_several_bad_files(
    client: TestClient, project: str, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    response = send(client, project, {"a.png": b"", "b.png": b"?"})
    problem = assert_problem(
        response, 422, "bad-upload", names=("2 files", "a.png", "0 bytes"), field="files"
    )
    assert [result["verdict"] for result in problem["results"]] == ["rejected"] * 2
    assert_nothing_stored(database, storage, settings)


def test_unknown_label(
    client: TestClient, project: str, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    response = send(client, project, {"a.png": png()}, label="凹み")
    assert_problem(response, 422, "bad-reference", names=("凹み", "scratch"), field="label")
    assert_nothing_stored(database, storage, settings)


def test_unknown_project(
    client: TestClient, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    missing = str(new_id())
    response = send(client, missing, {"a.png": png()})
    assert_problem(response, 404, "not-found", names=missing, field="project")
    assert_nothing_stored(database, storage, settings)


def test_without_a_key_nothing_is_read(
    anonymous: TestClient,
    project: str,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
) -> None:
    assert_problem(send(anonymous, project, {"a.png": png()}), 401, "unauthenticated")
    assert_nothing_stored(database, storage, settings)


def test_two_labels_within_an_archive(
    client: TestClient, project: str, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    data = zip_of({"good/1.png": png(1), "scratch/2.png": png(1)})
    response = send_archive(client, project, data)
    problem = assert_problem(response, 422, "bad-upload", names=("good", "scratch"))
    assert all("'scratch'" in r["detail"] and "'good'" in r["detail"] for r in problem["results"])
    assert_nothing_stored(database, storage, settings)


def test_two_labels_one_of_them_known(client: TestClient, project: str, database: Database) -> None:
    send(client, project, {"a.png": png(1)})
    response = send(client, project, {"b.png": png(1)}, label="good")
    assert_problem(response, 409, "conflict", names=("'scratch'", "a.png", "'good'"), field="label")
    assert count(database, Image) == 1


def test_a_group_stays_on_one_side(client: TestClient, project: str, database: Database) -> None:
    send(client, project, {"a.png": png(1)}, group="p1", split="holdout")
    response = send(client, project, {"b.png": png(2)}, group="p1")
    assert_problem(response, 409, "conflict", names=("'p1'", "holdout", "train"), field="group")
    assert count(database, Image) == 1


def test_a_frozen_project_takes_no_new_class(
    client: TestClient, project: str, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    tune(database, project)
    response = send_archive(client, project, zip_of({"dent/1.png": png(1)}))
    assert_problem(response, 409, "frozen", field="classes")
    assert_nothing_stored(database, storage, settings)
    assert verdicts(send_archive(client, project, zip_of({"good/1.png": png(1)})))


def test_two_spellings_of_one_class(
    client: TestClient, project: str, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    data = zip_of({"Deep dent/1.png": png(1), "deep_dent/2.png": png(2)})
    response = send_archive(client, project, data)
    assert_problem(response, 422, "bad-name", names=("Deep dent", "deep_dent"), field="label")
    assert_nothing_stored(database, storage, settings)


@pytest.mark.parametrize(
    ("fields", "slug", "field"),
    [
        ({"split": "test"}, "bad-input", "split"),
        ({"group": "a\nb"}, "bad-name", "group"),
        ({"groups": "[1]"}, "bad-input", "groups"),
        ({"groups": "[" * 100_000}, "bad-input", "groups"),
        ({"lable": "scratch"}, "bad-input", "lable"),
        ({"label": ["scratch", "good"]}, "bad-input", "label"),
    ],
)
def test_bad_fields(
    client: TestClient,
    project: str,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    fields: dict[str, Any],
    slug: str,
    field: str,
) -> None:
    response = send(client, project, {"a.png": png()}, **fields)
    assert_problem(response, 422, slug, field=field)
    assert_nothing_stored(database, storage, settings)


def test_unknown_ok_class(client: TestClient, project: str, database: Database) -> None:
    response = send_archive(client, project, zip_of({"good/1.png": png()}), ok="perfect")
    assert_problem(response, 422, "bad-reference", names="perfect", field="ok")
    assert count(database, Image) == 0


def test_no_files_and_no_label(client: TestClient, project: str) -> None:
    url = f"/v1/projects/{project}/images"
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    field = b'--b\r\nContent-Disposition: form-data; name="label"\r\n\r\ngood\r\n--b--\r\n'
    assert_problem(
        client.post(url, content=field, headers=boundary), 400, "bad-request", field="files"
    )
    nameless = client.post(url, files={"files": ("a.png", png())})
    assert_problem(nameless, 400, "bad-request", field="label")


@pytest.mark.parametrize(
    ("content", "kind", "status", "slug"),
    [
        (b"{}", "application/json", 415, "unsupported-type"),
        (b"", "multipart/form-data; boundary=b", 400, "bad-request"),
        (b"nonsense", "multipart/form-data; boundary=b", 400, "bad-request"),
        (b"nonsense", "multipart/form-data", 400, "bad-request"),
        (
            b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\ncut",
            "multipart/form-data; boundary=b",
            400,
            "bad-request",
        ),
        (
            b"--b\r\n\r\nnameless\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            400,
            "bad-request",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="label"\r\n\r\n\xff\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            400,
            "bad-request",
        ),
        (b"", "application/zip", 422, "bad-upload"),
    ],
)
def test_bodies_that_cannot_be_read(
    client: TestClient, project: str, content: bytes, kind: str, status: int, slug: str
) -> None:
    url = f"/v1/projects/{project}/images"
    response = client.post(url, content=content, headers={"content-type": kind})
    assert_problem(response, status, slug)


def test_data_that_looks_like_a_boundary(client: TestClient, project: str) -> None:
    url = f"/v1/projects/{project}/images"
    image = png(1)
    tricky = image + b"\r\n--bb\r\n--b "  # PNG readers ignore what follows the end
    body = (
        b'--b\r\ncontent-disposition: form-data; name="label"\r\n\r\nscratch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + tricky + b"\r\n--b--\r\n"
    )
    response = client.post(
        url, content=body, headers={"content-type": 'multipart/form-data; boundary="b"'}
    )
    assert verdicts(response) == {"a.png": "accepted"}
    image_id = response.json()["results"][0]["image"]
    assert client.get(f"/v1/images/{image_id}/content").content == tricky


def test_body_over_the_limit(
    client: TestClient, project: str, database: Database, storage: LocalStorage, settings: Settings
) -> None:
    response = send(client, project, {"a.png": b"x" * 1_000_001})
    assert_problem(response, 413, "too-large", names="1000000", field="body")
    chunks = (b"x" * 100_000 for _ in range(11))
    streamed = client.post(
        f"/v1/projects/{project}/images",
        content=chunks,
        headers={"content-type": "application/zip"},
    )
    assert_problem(streamed, 413, "too-large", names="1000000", field="body")
    assert_nothing_stored(database, storage, settings)


# --- archives that mean harm


def lying_zip() -> bytes:
    """A zip whose directory claims 10 bytes for a file of 100 kB."""
    data = bytearray(zip_of({"good/1.png": b"\0" * 100_000}))
    for marker, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(marker) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(data)


def zip_with_a_huge_directory() -> bytes:
    """A zip whose end record claims a directory of 900 kB of rubbish… and the file is shorter."""
    data = bytearray(zip_of({"good/1.png": b"x"}))
    at = data.index(b"PK\x05\x06") + 12
    data[at : at + 4] = (900_000_000).to_bytes(4, "little")
    return bytes(data)


def encrypted_zip() -> bytes:
    data = bytearray(zip_of({"good/1.png": png(1)}))
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(marker) + offset] |= 1
    return bytes(data)


def tar_with_a_huge_header() -> bytes:
    """A tar.gz whose extended header claims, and unpacks to, 100 MB."""
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 100_000_000
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed:
        packed.write(info.tobuf())
        for _ in range(100):
            packed.write(b"\0" * 1_000_000)
    return out.getvalue()


ZEROS = b"\0" * 10_000_000
HARMFUL: dict[str, tuple[bytes, int, str, str]] = {
    "dotdot": (zip_of({"../good/1.png": png(1)}), 422, "bad-upload", "../good/1.png"),
    "dotdot-inside": (zip_of({"good/../../1.png": png(1)}), 422, "bad-upload", "good/../../1"),
    "absolute": (zip_of({"/etc/1.png": png(1)}), 422, "bad-upload", "/etc/1.png"),
    "drive": (zip_of({"C:\\good\\1.png": png(1)}), 422, "bad-upload", "C:"),
    "backslash": (zip_of({"..\\good\\1.png": png(1)}), 422, "bad-upload", ".."),
    "tar-dotdot": (tar_of({"../good/1.png": png(1)}), 422, "bad-upload", "../good/1.png"),
    "ratio": (zip_of({f"good/{n}": ZEROS for n in range(10)}), 413, "too-large", "200 times"),
    "bytes": (zip_of({f"good/{n}": ZEROS for n in range(16)}), 413, "too-large", "150000000"),
    "many": (zip_of({f"good/{n}": b"" for n in range(21)}), 413, "too-large", "20 files"),
    "tar-many": (tar_of({f"good/{n}": b"" for n in range(21)}), 413, "too-large", "20 files"),
    "gzip-bomb": (gzip.compress(b"\0" * 90_000_000), 413, "too-large", "200 times"),
    "tar-header-bomb": (tar_with_a_huge_header(), 413, "too-large", "200 times"),
    "empty": (zip_of({}), 422, "bad-upload", "no files"),
    "only-litter": (zip_of({"good/.hidden": b"x"}), 422, "bad-upload", "no files"),
    "directory": (zip_with_a_huge_directory(), 422, "bad-upload", "damaged"),
    "encrypted": (encrypted_zip(), 422, "bad-upload", "encrypted"),
    "cut": (zip_of({"good/1.png": png(1)})[:-30], 422, "bad-upload", "damaged"),
    "rar": (b"Rar!\x1a\x07\x00", 422, "bad-upload", "neither zip"),
    "tgz-cut": (tar_of({"good/1.png": png(1)}, "w:gz")[:-40], 422, "bad-upload", "damaged"),
    "lying": (lying_zip(), 422, "bad-image", "unpacked"),
    "method": (zip_of({"good/1": png(1)}, zipfile.ZIP_BZIP2), 422, "bad-image", "method 12"),
    "nested": (zip_of({"good/1.zip": zip_of({"a/1": b"x"})}), 422, "bad-image", "not an image"),
    "image-bomb": (zip_of({"good/bomb.png": png_bomb()}), 422, "bad-image", "100 megapixels"),
    "bad-class": (zip_of({"a\nb/1.png": png(1)}), 422, "bad-name", "a\\nb"),
}


@pytest.mark.parametrize(("data", "status", "slug", "names"), HARMFUL.values(), ids=HARMFUL)
def test_archives_that_mean_harm(
    client: TestClient,
    project: str,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    data: bytes,
    status: int,
    slug: str,
    names: str,
) -> None:
    response = send_archive(client, project, data)
    assert_problem(response, status, slug, names=names)
    assert_nothing_stored(database, storage, settings)
    assert count(database, ProjectClass) == 2


def test_links_in_a_tar_are_rejected(client: TestClient, project: str, database: Database) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("good/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    response = send_archive(client, project, out.getvalue())
    assert_problem(response, 422, "bad-image", names="link")
    assert count(database, Image) == 0


# --- faults


def test_a_full_disk_leaves_nothing(
    client: TestClient,
    project: str,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    response = send(client, project, {"a.png": png(1)})
    assert_problem(response, 507, "storage-full")
    assert calls
    monkeypatch.setattr(os, "fsync", real)
    assert_nothing_stored(database, storage, settings)
    assert verdicts(send(client, project, {"a.png": png(1)})) == {"a.png": "accepted"}


def test_a_full_disk_while_the_body_arrives(
    client: TestClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.http.spool._write", full)
    assert_problem(send(client, project, {"a.png": png(1)}), 507, "storage-full")


def test_a_storage_that_fails_half_way_writes_no_rows(
    app: FastAPI, client: TestClient, project: str, database: Database
) -> None:
    class Filling(LocalStorage):
        def put(self, data: Any) -> str:
            if any(self.blobs()):
                raise StorageFull("The disk is full.", fix="Free space.")
            return super().put(data)

    storage = app.state.gateway.storage
    app.state.gateway.storage = Filling(storage.root)
    response = send(client, project, {"a.png": png(1), "b.png": png(2)})
    assert_problem(response, 507, "storage-full")
    assert count(database, Image) == 0


def test_what_was_swept_while_the_upload_ran_is_not_answered_for(
    app: FastAPI, client: TestClient, project: str, database: Database
) -> None:
    """Decoding thousands of photographs may take longer than the sweep waits."""

    class Swept(LocalStorage):
        def put(self, data: Any) -> str:
            sha256 = super().put(data)
            os.utime(next(self.root.glob(f"??/??/{sha256}")), (0, 0))
            assert sweep_orphans(database, self, min_age=3600) == 1
            return sha256

    storage = app.state.gateway.storage
    app.state.gateway.storage = Swept(storage.root)
    response = send(client, project, {"a.png": png(1)})
    assert_problem(response, 503, "unavailable", names="swept")
    assert count(database, Image) == 0
    app.state.gateway.storage = storage
    assert send(client, project, {"a.png": png(1)}).json()["accepted"] == 1


def test_sending_an_image_again_heals_its_bytes(
    client: TestClient, project: str, storage: LocalStorage
) -> None:
    image = send(client, project, {"a.png": png(1)}).json()["results"][0]["image"]
    (blob,) = storage.blobs()
    next(storage.root.glob(f"??/??/{blob.sha256}")).write_bytes(b"rot")
    assert_problem(client.get(f"/v1/images/{image}/content"), 500, "damaged")
    assert verdicts(send(client, project, {"a.png": png(1)})) == {"a.png": "duplicate"}
    assert client.get(f"/v1/images/{image}/content").content == png(1)


def test_what_came_meanwhile_is_met(
    app: FastAPI, client: TestClient, project: str, database: Database
) -> None:
    """Another upload of the same bytes commits between the check and the record of this one."""

    class Slow(LocalStorage):
        def put(self, data: Any) -> str:
            app.state.gateway.storage = storage
            assert send(client, project, {"other.png": png(1)}).json()["accepted"] == 1
            return super().put(data)

    storage = app.state.gateway.storage
    app.state.gateway.storage = Slow(storage.root)
    response = send(client, project, {"mine.png": png(1)})
    assert verdicts(response) == {"mine.png": "duplicate"}
    with database.reading() as session:
        row = session.scalars(select(Image)).one()
    assert row.file_name == "other.png"
    assert response.json()["results"][0]["image"] == str(row.id)


def test_roles(client: TestClient, make_client: MakeClient, project: str) -> None:
    engineer = make_client("engineer")
    assert send(engineer, project, {"a.png": png(1)}).status_code == 200
    assert_problem(send(make_client("operator"), project, {"b.png": png(2)}), 403, "forbidden")
