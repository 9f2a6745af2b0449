"""`shotline doctor FOLDER`, on files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.core.settings import BackboneSettings
from tests.unit.models.test_findings import jpeg, picture

Doctor = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photographs of two classes, one of them a copy under the other label."""
    root = tmp_path / "parts"
    for label, name in enumerate(("good", "bad")):
        (root / name).mkdir(parents=True)
        for number in range(6):
            data = jpeg(picture(100 * label + number))
            (root / name / f"{number}.jpg").write_bytes(data)
    return root


@pytest.fixture
def doctor(
    tmp_path: Path, backbone_settings: BackboneSettings, monkeypatch: pytest.MonkeyPatch
) -> Doctor:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ["--backbone", backbone_settings.name, "--device", "cpu"]
    return lambda *words: CliRunner().invoke(app, ["doctor", *map(str, words), *options])


def test_a_folder_from_clean_to_damaged(doctor: Doctor, folder: Path, tmp_path: Path) -> None:
    clean = doctor(folder, "--json")
    assert clean.exit_code == 0, clean.output
    found = json.loads(clean.stdout)
    assert (found["status"], found["images"]) == ("ok", 12)
    assert "12 images of 2 classes: 0 serious" in clean.stderr

    shutil.copy(folder / "good" / "1.jpg", folder / "bad" / "again.jpg")
    (folder / "bad" / "half.jpg").write_bytes(jpeg(picture(9))[:600])
    page = tmp_path / "page.html"
    ill = doctor(folder, "--html", page, "--json")
    assert ill.exit_code == 1, ill.output
    serious = [one for one in json.loads(ill.stdout)["findings"] if one["severity"] == "serious"]
    assert {one["kind"] for one in serious} == {"exact_duplicate", "unreadable"}
    assert "2 serious" in ill.stderr
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 2
    assert "half.jpg" in text

    refused = doctor(folder, "--html", page)
    assert (refused.exit_code, "exists" in refused.stderr) == (2, True)
    table = doctor(folder, "--html", page, "--force")
    assert (table.exit_code, table.stdout.count("serious")) == (1, 2)


def test_a_copy_in_the_holdout(doctor: Doctor, folder: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    (held / "good").mkdir(parents=True)
    (held / "good" / "x.jpg").write_bytes(jpeg(picture(3), 60))
    told = doctor(folder, "--holdout", held, "--json")
    assert told.exit_code == 1, told.output
    kinds = {
        one["kind"] for one in json.loads(told.stdout)["findings"] if one["severity"] == "serious"
    }
    assert kinds == {"near_duplicate"}


def test_what_is_no_folder_of_images(doctor: Doctor, tmp_path: Path) -> None:
    for words, says in (
        ((tmp_path / "none",), "is not a folder"),
        (("--html", tmp_path / "a.html"), "is for a folder of images"),
    ):
        refused = doctor(*words)
        assert (refused.exit_code, says in refused.stderr) == (2, True), refused.output
    (tmp_path / "empty").mkdir()
    refused = doctor(tmp_path / "empty")
    assert (refused.exit_code, "it is empty" in refused.stderr) == (2, True)
