"""Archives of photographs to be decided on: every file gets a line, hostile archives a problem."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.media_types import ARCHIVE_TYPES
from app.core.settings import LimitSettings, Settings
from app.core.storage import LocalStorage
from models.artifact import Artifact
from tests.integration import files, tiny
from tests.integration.problems import assert_problem
from tests.integration.serving import Served, serve

ZIP = {"content-type": "application/zip"}
JSON = {"accept": "application/json"}


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(
        predict_images=8,
        predict_bytes=1_000_000,
        file_bytes=60_000,
        upload_files=40,
        archive_bytes=70_000_000,
    )


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    return serve(client, database, storage, artifacts[0])


@pytest.fixture(autouse=True)
def _nothing_is_left_in_the_scratch_folder(client: TestClient, settings: Settings) -> object:
    yield
    assert list(settings.scratch_folder.glob("*")) == []


def photographs() -> dict[str, bytes]:
    return {
        "lot 7/1.png": tiny.photograph(0, 1),
        "lot 7/傷/2.png": tiny.photograph(1, 2),
        "notes.txt": b"three parts are dirty",
        "3.png": tiny.photograph(2, 3),
    }


def lines_of(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.parametrize("kind", sorted(ARCHIVE_TYPES))
def test_an_archive_is_answered_by_a_line_for_each_file(
    client: TestClient, served: Served, kind: str
) -> None:
    sent = photographs()
    if "zip" in kind.replace("gzip", ""):
        data = files.zip_of(sent)
    else:
        data = files.tar_of(sent, "w:gz" if "gzip" in kind else "w")
    lines = lines_of(client.post(served.predict, content=data, headers={"content-type": kind}))
    assert sorted(line["index"] for line in lines) == [0, 1, 2, 3]
    for line in lines:
        assert line["image_id"] == list(sent)[line["index"]]
        assert ("decision" in line) == (line["image_id"] != "notes.txt")
    (bad,) = [line for line in lines if line["image_id"] == "notes.txt"]
    assert (bad["status"], bad["type"]) == (422, "urn:shotline:problem:bad-image")


def test_the_same_images_in_a_form_get_the_same_decisions(
    client: TestClient, served: Served
) -> None:
    sent = photographs()
    form = [("image", (name, data, "image/png")) for name, data in sent.items()]
    expected = client.post(served.predict, files=form).json()["results"]
    answer = client.post(served.predict, content=files.tar_of(sent), headers=ZIP | JSON)
    assert answer.headers["content-type"] == "application/json"
    results = answer.json()["results"]
    assert [entry["image_id"] for entry in results] == list(sent)
    for mine, other in zip(results, expected, strict=True):
        assert mine.get("probabilities") == other.get("probabilities")
        assert mine.get("detail") == other.get("detail")


def test_many_files_of_a_tar_are_each_read_as_what_they_are(
    client: TestClient, served: Served
) -> None:
    sent = {f"{n}.png": tiny.photograph(n % 3, n, size=120) for n in range(8)}
    results = client.post(served.predict, content=files.tar_of(sent), headers=ZIP | JSON).json()
    for entry in results["results"]:
        alone = client.post(
            served.predict, content=sent[entry["image_id"]], headers={"content-type": "image/png"}
        ).json()
        assert entry["probabilities"] == alone["probabilities"]


def test_litter_is_no_image_and_counts_for_none(client: TestClient, served: Served) -> None:
    sent = {f"{n}.png": tiny.photograph(0, n) for n in range(8)}
    litter = {f"__MACOSX/._{n}.png": b"x" for n in range(8)}
    litter |= {".DS_Store": b"x", "a/Thumbs.db": b"x", "a/": b""}
    lines = lines_of(client.post(served.predict, content=files.zip_of(sent | litter), headers=ZIP))
    assert {line["image_id"] for line in lines} == set(sent)


def test_headers_count_for_all_and_names_are_cleaned(client: TestClient, served: Served) -> None:
    long = "deep/" * 50 + "1.png"
    sent = {long: tiny.photograph(0, 1), "bell\x07.png": tiny.photograph(0, 2)}
    answer = client.post(
        served.predict,
        content=files.zip_of(sent),
        headers=ZIP | JSON | {"Part-Id": "SN-1", "Image-Id": "not mine"},
    )
    first, second = answer.json()["results"]
    assert len(first["image_id"]) == 200
    assert long.endswith(first["image_id"].removeprefix("…"))
    assert second["image_id"] == "bell\N{REPLACEMENT CHARACTER}.png"
    assert client.get(f"/v1/predictions/{first['prediction_id']}").json()["part_id"] == "SN-1"


def test_one_file_is_a_list_of_one(client: TestClient, served: Served) -> None:
    data = files.zip_of({"1.png": tiny.photograph(0, 1)})
    assert len(client.post(served.predict, content=data, headers=ZIP | JSON).json()["results"]) == 1
    compact = client.post(served.predict, content=data, headers=ZIP, params={"format": "compact"})
    assert_problem(compact, 422, "bad-input", names="1 were sent", field="format")


def test_bad_files_in_a_good_archive(client: TestClient, served: Served) -> None:
    inner = files.zip_of({"1.png": tiny.photograph(0, 1)})
    sent = {
        "good.png": tiny.photograph(0, 1),
        "nested.zip": inner,
        "empty.png": b"",
        "long.png": b"x" * 60_001,
        "bomb.png": files.png_bomb(),
    }
    results = client.post(served.predict, content=files.zip_of(sent), headers=ZIP | JSON).json()
    good, nested, empty, long, bomb = results["results"]
    assert good["decision"]
    assert "not an image" in nested["detail"]
    assert "0 bytes" in empty["detail"]
    assert "60001" in long["detail"]
    assert "megapixels" in bomb["detail"]


def test_a_file_whose_checksum_is_wrong(client: TestClient, served: Served) -> None:
    photograph = tiny.photograph(0, 1)
    data = files.zip_of({"1.png": photograph, "2.png": tiny.photograph(0, 2)}, zipfile.ZIP_STORED)
    at = data.index(photograph) + len(photograph) // 2
    broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    first, second = client.post(served.predict, content=broken, headers=ZIP | JSON).json()[
        "results"
    ]
    assert "cannot be unpacked" in first["detail"]
    assert second["decision"]


def encrypted() -> bytes:
    data = bytearray(files.zip_of({"1.png": tiny.photograph(0, 1)}))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flags] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", "neither zip, tar nor tar.gz"),
        (b"hello", "neither zip, tar nor tar.gz"),
        (files.zip_of({}), "holds no files"),
        (files.zip_of({".DS_Store": b"x"}), "holds no files"),
        (encrypted(), ("encrypted", "1.png")),
        (files.zip_of({"1.png": tiny.photograph(0, 1)})[:-30], "damaged or cut short"),
        (files.tar_of({"1.png": tiny.photograph(0, 1)})[:1000], "damaged or cut short"),
        (files.tar_of({"1.png": tiny.photograph(0, 1)}, "w:gz")[:-30], "damaged or cut short"),
        (files.zip_of({"../1.png": b"x"}), "points outside"),
        (files.tar_of({"/etc/1.png": b"x"}), "points outside"),
    ],
    ids=[
        "nothing", "text", "empty", "litter", "encrypted", "cut zip", "cut tar", "cut tar.gz",
        "parent", "root",
    ],
)  # fmt: skip
def test_archives_that_are_refused_whole(
    client: TestClient, served: Served, data: bytes, names: str | tuple[str, ...]
) -> None:
    response = client.post(served.predict, content=data, headers=ZIP)
    assert_problem(response, 422, "bad-upload", names=names, field="archive")


def some(count: int) -> Mapping[str, bytes]:
    return {f"{n}.png": b"x" for n in range(count)}


def bomb(size: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(size))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (files.zip_of(some(9)), ("9 images", "8 are allowed")),
        (files.tar_of(some(9)), ("9 images", "8 are allowed")),
        (files.zip_of(some(41)), "more than 40 files"),
        (bomb(69_000_000), "over 200 times"),
        (bomb(71_000_000), "more than 70000000 bytes"),
        (bytes(1_000_001), ("1000001", "1000000")),
    ],
    ids=["images", "images of a tar", "files", "ratio", "unpacked", "body"],
)
def test_archives_that_are_too_large(
    client: TestClient, served: Served, data: bytes, names: str | tuple[str, ...]
) -> None:
    response = client.post(served.predict, content=data, headers=ZIP)
    assert_problem(response, 413, "too-large", names=names)


def test_a_key_gives_the_same_lines_and_one_record_each(client: TestClient, served: Served) -> None:
    key = {"Idempotency-Key": "lot 7"}
    sent = {f"{n}.png": tiny.photograph(0, n) for n in range(3)}
    first = client.post(served.predict, content=files.zip_of(sent), headers=ZIP | key)
    again = client.post(served.predict, content=files.zip_of(sent), headers=ZIP | key)
    assert lines_of(again) == lines_of(first)
    assert again.headers["idempotent-replayed"] == "true"
    # A tar of the same files asks the same; other files do not.
    packed_anew = client.post(served.predict, content=files.tar_of(sent), headers=ZIP | key)
    assert packed_anew.text == first.text
    other = client.post(
        served.predict, content=files.zip_of(sent | {"2.png": b"x"}), headers=ZIP | key
    )
    assert_problem(other, 422, "bad-input", names="lot 7", field="Idempotency-Key")


def test_a_deadline_counts_for_each_file(client: TestClient, served: Served) -> None:
    sent = {f"{n}.png": tiny.photograph(0, n) for n in range(3)}
    answer = client.post(
        served.predict,
        params={"deadline_ms": 20_000},
        content=files.zip_of(sent),
        headers=ZIP,
    )
    assert len([line for line in lines_of(answer) if "decision" in line]) == 3
    refused = client.post(
        served.predict, params={"deadline_ms": 0}, content=files.zip_of(sent), headers=ZIP
    )
    assert_problem(refused, 422, "bad-input", field="deadline_ms")


def test_an_archive_of_a_single_version(client: TestClient, served: Served) -> None:
    data = files.zip_of({"1.png": tiny.photograph(0, 1)})
    (line,) = lines_of(client.post(f"/v1/models/{served.model}/predict", content=data, headers=ZIP))
    assert line["model"]["id"] == str(served.model)
