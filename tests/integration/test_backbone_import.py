"""`shotline backbones`: from a stick into the data folder, and what is refused."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.maintenance.backbones import import_backbone, list_backbones
from models.backbone_files import CONFIG_NAME, content_digest
from models.backbone_source import load_backbone
from models.errors import BackboneUnavailable
from tests.integration import tiny
from tests.integration.small_disk import small_disk

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick" / "CLIP-tiny"
    tiny.write_backbone(folder)
    (folder / "README.md").write_text("not needed")
    return folder


@pytest.fixture
def architecture(tmp_path: Path) -> Iterator[str]:
    """An architecture that open_clip knows while the test runs."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "box-tiny.json").write_text(json.dumps(tiny._MODEL))
    open_clip.add_model_config(configs)
    yield "box-tiny"
    (configs / "box-tiny.json").unlink()
    open_clip.factory._MODEL_CONFIGS.pop("box-tiny")


def run(home: Path, *args: object) -> Result:
    return CliRunner().invoke(app, ["backbones", *map(str, args), "--data", str(home)])


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_nothing_there(home: Path) -> None:
    assert not [path for path in (home / "backbones").rglob("*") if path.is_file()]


def test_a_folder_is_taken_over_and_loads_by_the_line_that_is_printed(
    home: Path, stick: Path
) -> None:
    taken = run(home, "import", stick, "--sha256", sha256_of(stick / WEIGHTS).upper())
    assert taken.exit_code == 0, taken.output
    variable, source = taken.stdout.strip().split("=", 1)
    assert variable == "SHOTLINE_BACKBONE_SOURCE"
    assert source == f"local-dir:{home / 'backbones' / 'CLIP-tiny'}"
    before = load_backbone(f"local-dir:{stick}", device="cpu")
    after = load_backbone(source, device="cpu")
    assert after.digest == before.digest
    assert before.digest in taken.stderr
    there = {path.name for path in (home / "backbones" / "CLIP-tiny").iterdir()}
    assert there == {CONFIG_NAME, WEIGHTS, "IMPORTED"}
    (home / "backbones" / "by hand").mkdir()
    (listed,) = json.loads(run(home, "list", "--json").stdout)[:1]
    assert (listed["name"], listed["used"]) == ("CLIP-tiny", False)
    assert listed["imported"]["digest"] == before.digest
    assert "by hand" in run(home, "list").stdout


def test_the_digest_of_the_whole_folder_counts_too(home: Path, stick: Path) -> None:
    (stick / "README.md").unlink()
    made = import_backbone(stick, home, sha256=content_digest(stick), name="other.name_1")
    assert [one.name for one in list_backbones(home)] == [made.name] == ["other.name_1"]


def test_the_one_in_use_is_marked(home: Path, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = import_backbone(stick, home / "backbones")
    monkeypatch.setenv("SHOTLINE_BACKBONE_SOURCE", made.source)
    assert json.loads(run(home, "list", "--json").stdout)[0]["used"] is True


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_file_of_a_known_architecture(
    home: Path, stick: Path, architecture: str, suffix: str
) -> None:
    state = load_file(stick / WEIGHTS)
    file = stick.parent / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, file)
    else:
        save_file(state, file)
    taken = run(home, "import", file, "--architecture", architecture, "--json")
    assert taken.exit_code == 0, taken.output
    made = json.loads(taken.stdout)
    assert made["source"].startswith(f"{architecture}@")
    assert made["sha256"] == sha256_of(file)
    assert load_backbone(made["source"], device="cpu").digest == made["digest"]


def test_the_architecture_may_stand_in_the_files_name(
    home: Path, stick: Path, architecture: str
) -> None:
    file = stick.parent / f"{architecture}.safetensors"
    save_file(load_file(stick / WEIGHTS), file)
    assert import_backbone(file, home).source.startswith(f"{architecture}@")


Spoil = Callable[[Path], Any]


def _cut_short(stick: Path) -> None:
    data = (stick / WEIGHTS).read_bytes()
    (stick / WEIGHTS).write_bytes(data[: len(data) // 2])


def _without_text(stick: Path) -> None:
    state = load_file(stick / WEIGHTS)
    save_file({n: t for n, t in state.items() if n.startswith("visual.")}, stick / WEIGHTS)


def _without_a_layer(stick: Path) -> None:
    state = load_file(stick / WEIGHTS)
    save_file({n: t for n, t in state.items() if "resblocks" not in n}, stick / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "options", "says"),
    [
        (None, ["--sha256", "0" * 64], "not what was expected"),
        (None, ["--sha256", "abc"], "'abc' is no sha256"),
        (None, ["--name", "../outside"], "cannot be the name"),
        (None, ["--name", "a/b"], "cannot be the name"),
        (None, ["--name", ""], None),
        (None, ["--name", ".hidden"], "cannot be the name"),
        (None, ["--name", "a\nb"], "cannot be the name"),
        (_cut_short, [], "damaged or cut short"),
        (_without_text, [], "has no text tower"),
        (_without_a_layer, [], "cannot be used"),
        (lambda stick: (stick / WEIGHTS).write_bytes(b""), [], "damaged or cut short"),
        (lambda stick: (stick / WEIGHTS).unlink(), [], "local-dir form"),
        (lambda stick: (stick / CONFIG_NAME).unlink(), [], "local-dir form"),
        (lambda stick: (stick / CONFIG_NAME).write_text("{"), [], "cannot be used"),
        (lambda stick: (stick / CONFIG_NAME).write_text("[]"), [], "cannot be used"),
    ],
)
def test_what_is_refused_leaves_nothing(
    home: Path, stick: Path, spoil: Spoil | None, options: list[str], says: str | None
) -> None:
    if spoil is not None:
        spoil(stick)
    refused = run(home, "import", stick, *options)
    if says is None:  # an empty name is none
        assert refused.exit_code == 0
        return
    assert refused.exit_code == 2, refused.output
    assert says in refused.stderr.replace("\n", " ")
    assert "Fix:" in refused.stderr
    assert_nothing_there(home)


def test_an_existing_name_is_refused_and_stays(home: Path, stick: Path) -> None:
    assert run(home, "import", stick).exit_code == 0
    weights = home / "backbones" / "CLIP-tiny" / WEIGHTS
    before = sha256_of(weights)
    tiny.write_backbone(stick, seed=1)
    refused = run(home, "import", stick)
    assert refused.exit_code == 2
    assert "is there already" in refused.stderr
    assert sha256_of(weights) == before
    assert run(home, "import", stick, "--name", "second").exit_code == 0


@pytest.mark.parametrize("name", ["nowhere", "text.txt", "weights.zip"])
def test_what_is_no_checkpoint(home: Path, tmp_path: Path, name: str) -> None:
    if name != "nowhere":
        (tmp_path / name).write_text("hello")
    assert run(home, "import", tmp_path / name).exit_code == 2
    assert_nothing_there(home)


def test_a_file_without_an_architecture(home: Path, stick: Path) -> None:
    refused = run(home, "import", stick / WEIGHTS)
    assert refused.exit_code == 2
    assert "--architecture" in refused.stderr
    unknown = run(home, "import", stick / WEIGHTS, "--architecture", "ViT-B-33")
    assert "no architecture 'ViT-B-33'" in unknown.stderr.replace("\n", " ")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["BOX_EVIL"],)


@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.pth"])
def test_nothing_is_unpickled(
    home: Path, tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("BOX_EVIL", str(tmp_path / "evil was here"))
    (tmp_path / name).write_bytes(pickle.dumps({"state_dict": _Evil()}))
    with pytest.raises(BackboneUnavailable, match="cannot be used"):
        import_backbone(tmp_path / name, home, architecture=architecture)
    assert not (tmp_path / "evil was here").exists()
    assert_nothing_there(home)


def test_a_disk_without_room_is_told_before_anything_is_copied(tmp_path: Path, stick: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        refused = CliRunner().invoke(
            app, ["backbones", "import", str(stick), "--folder", str(disk / "backbones")]
        )
        assert refused.exit_code == 2
        assert "free" in refused.stderr
        assert not list((disk / "backbones").iterdir())


def test_what_a_killed_import_left_is_removed(home: Path, stick: Path) -> None:
    left = home / "backbones" / ".incoming-123"
    left.mkdir(parents=True)
    (left / WEIGHTS).write_bytes(b"half")
    assert list_backbones(home / "backbones") == []
    assert run(home, "import", stick).exit_code == 0
    assert not left.exists()


def test_the_version() -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.stdout.startswith("shotline ")) == (0, True)
