"""The core's commands as a person runs them: real photographs on the disk, the real starter."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner, Result

from app.cli.main import app
from models.backbone_files import CONFIG_NAME, STARTER_FOLDER
from models.checkpoint import Checkpoint, RunCheckpoint, RunIdentity

Run = Callable[..., Result]

FAST = ["--set", "steps=4", "--set", "warmup_steps=1", "--set", "folds=2"]
COLOURS = {"good": (190, 70, 70), "scratch": (70, 70, 190)}


def write_image(path: Path, seed: int, colour: tuple[int, int, int]) -> Path:
    noise = np.random.default_rng(seed).integers(-40, 40, (48, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def write_classes(root: Path, *names: str, n: int = 4) -> Path:
    for index, name in enumerate(names):
        colour = COLOURS.get(name, (60 * index + 40,) * 3)
        for number in range(n):
            write_image(root / name / f"{number}.png", 100 * index + number, colour)
    return root


def first_column(table: str) -> str:
    """Return what a table of one row shows first: without spaces, as it may be folded at them."""
    return "".join(line.split("│")[1] for line in table.splitlines()[3:-1]).replace(" ", "")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*args: object) -> Result:
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return invoke


@pytest.fixture
def tune(run: Run, tmp_path: Path) -> Run:
    def invoke(folder: Path, *args: object) -> Result:
        store = ["--features", tmp_path / "features"]
        return run("tune", folder, "--out", tmp_path / "model.safetensors", *store, *FAST, *args)

    return invoke


@pytest.fixture
def write_backbone(tmp_path: Path) -> Callable[[], Path]:
    """Return a function that writes the starter with another logit scale, in open_clip's form."""

    def write() -> Path:
        folder = tmp_path / "backbone"
        folder.mkdir()
        shutil.copy(STARTER_FOLDER / CONFIG_NAME, folder)
        weights = safetensors.torch.load_file(STARTER_FOLDER / "open_clip_model.safetensors")
        weights["logit_scale"] = weights["logit_scale"] + 1
        safetensors.torch.save_file(weights, folder / "open_clip_model.safetensors")
        return folder

    return write


def refused(result: Result, *parts: str) -> None:
    """The error names each of `parts`, there is a fix, and the exit code is 2."""
    assert result.exit_code == 2, result.output
    assert "Error:" in result.stderr
    assert "Fix:" in result.stderr
    text = " ".join(result.stderr.split())
    for part in parts:
        assert part in text


def leftovers(folder: Path) -> list[str]:
    """Name the files that a refused tuning left behind, photographs apart."""
    return [
        path.name
        for path in folder.iterdir()
        if path.name not in {"photographs", "features"} and not path.name.endswith(".tsv")
    ]


def test_help_is_quick_because_torch_is_not_imported() -> None:
    code = "import sys, app.cli.main; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tunes_then_inspects_then_decides(tune: Run, run: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=13)
    tuned = tune(folder, "--shots", 8, "--seed", 3, "--set", "steps=20")
    assert tuned.exit_code == 0, tuned.output
    assert "10 held-out images" in tuned.stdout
    model = tmp_path / "model.safetensors"

    inspected = json.loads(run("inspect", model, "--json").stdout)
    assert [spec["name"] for spec in inspected["classes"]] == ["good", "scratch"]
    assert [spec["role"] for spec in inspected["classes"]] == ["ok", "ng"]
    assert inspected["n_train"] == [8, 8]
    assert inspected["metrics"]["tuned"]["n_images"] == 10
    shown = run("inspect", model).stdout
    assert inspected["digest"][:19] in shown
    warned = [line for line in tuned.stdout.splitlines() if line.startswith("Warning")]
    assert warned == [line for line in shown.splitlines() if line.startswith("Warning")]

    new = write_image(tmp_path / "new.png", 999, COLOURS["scratch"])
    (answer,) = json.loads(run("predict", model, new, "--json").stdout)
    assert answer["decision"] == "ng"
    assert answer["label"] == "scratch"
    assert "scratch" in run("predict", model, tmp_path / "new.png").stdout


def test_the_same_seed_gives_the_same_digest(tune: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch")
    digests = [
        json.loads(tune(folder, "--json", "--force", "--seed", seed).stdout)["digest"]
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_emoji_and_japanese_names_are_read_and_shown(tune: Run, run: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "良品", "傷 🔧")
    result = tune(
        folder, "--ok", "良品", "--prompt", "良品=a good part", "--prompt", "傷 🔧=a scratch"
    )
    assert result.exit_code == 0, result.output
    inspected = json.loads(run("inspect", tmp_path / "model.safetensors", "--json").stdout)
    assert {spec["name"]: spec["role"] for spec in inspected["classes"]} == {
        "傷 🔧": "ng",
        "良品": "ok",
    }
    image = folder / "良品" / "0.png"
    shown = run("predict", tmp_path / "model.safetensors", image).stdout
    assert "良品" in shown or "傷 🔧" in shown


def test_names_and_paths_are_shown_as_they_are(tune: Run, run: Run, tmp_path: Path) -> None:
    names = ("[bold]good", ":fire: scratch")
    folder = write_classes(tmp_path / "[photographs]", *names)
    model = tmp_path / "[new] :fire: [red].safetensors"
    tuned = tune(folder, "--out", model, "--report", tmp_path / "[red].html")
    assert tuned.exit_code == 0, tuned.output
    assert f"Model   {model}\n" in tuned.stdout
    assert f"Report  {tmp_path / '[red].html'}\n" in tuned.stdout

    inspected = run("inspect", model).stdout
    lot = tmp_path / "lot [new]" / "a[/b] :fire:.png"
    decided = run("predict", model, write_image(lot, 1, COLOURS["good"])).stdout
    for name in names:
        assert name in inspected
    assert any(name in decided for name in names)
    assert first_column(decided) == str(lot).replace(" ", "")
    lot.write_bytes(b"")
    refused(run("predict", model, lot), str(lot))


def test_a_name_that_is_no_utf_8(tune: Run, run: Run, tmp_path: Path) -> None:
    tune(write_classes(tmp_path / "photographs", "good", "scratch"))
    model = tmp_path / "model.safetensors"
    image = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Stra\xdfe.png"))
    image.write_bytes((tmp_path / "photographs" / "good" / "0.png").read_bytes())

    shown = run("predict", model, image)
    assert shown.exit_code == 0, shown.output
    assert first_column(shown.stdout).endswith("Stra\N{REPLACEMENT CHARACTER}e.png")
    (answer,) = json.loads(run("predict", model, image, "--json").stdout)
    assert os.fsencode(answer["image"]) == os.fsencode(image)


def test_a_folder_of_new_photographs(tune: Run, run: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch")
    tune(folder)
    (folder / "good" / "Thumbs.db").write_bytes(b"")

    decided = json.loads(run("predict", tmp_path / "model.safetensors", folder, "--json").stdout)
    assert [row["image"] for row in decided] == [
        str(folder / name / f"{number}.png") for name in ("good", "scratch") for number in range(4)
    ]


def test_decisions_as_csv(tune: Run, run: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=8)
    tune(folder)
    new = tmp_path / "new"
    write_image(new / "1, left.png", 999, COLOURS["scratch"])
    (new / "2.png").write_bytes(b"not a photograph")
    model, table = tmp_path / "model.safetensors", tmp_path / "decisions.csv"
    refused(run("predict", model, new, "--csv", table), "2.png", "not an image")
    good, bad = csv.DictReader(table.read_text().splitlines())
    assert good["image"] == str(new / "1, left.png")
    assert (good["decision"], good["label"], good["problem"]) == ("ng", "scratch", "")
    assert good["reason"] == "certain"
    assert 0 < float(good["probability"]) <= 1
    assert bad["image"] == str(new / "2.png")
    assert (bad["decision"], bad["label"], bad["probability"]) == ("", "", "")
    assert "not an image" in bad["problem"]
    again = run("predict", model, new / "1, left.png", "--csv", table)
    refused(again, "decisions.csv exists", "--force")
    assert again.stdout == ""
    assert run("predict", model, new / "1, left.png", "--csv", table, "--force").exit_code == 0
    assert len(table.read_text().splitlines()) == 2


def test_a_model_file_or_a_gateway(run: Run, tmp_path: Path) -> None:
    image = write_image(tmp_path / "new" / "1.png", 1, COLOURS["good"])
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"x")
    there = ("--project", "p", "--url", "http://127.0.0.1:9")
    refused(run("predict", image), f"Only {image} is named", "predict MODEL IMAGE")
    refused(run("predict", image.parent, image), f"{image.parent} is a folder", "--project")
    refused(run("predict", image, "--url", "http://127.0.0.1:9"), "no project", "--project")
    refused(run("predict", model, image, *there), f"{model} is a model file")
    for option in (("--backbone", "starter"), ("--device", "cpu"), ("--online",)):
        refused(run("predict", image, *there, *option), f"{option[0]} is for a model file")
    refused(run("predict", image, *there), "No gateway answers at http://127.0.0.1:9")


def test_one_shot_beside_a_holdout(tune: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=6)
    tuned = tune(folder, "--shots", 1, "--json", "--seed", 2**63 - 1)
    assert tuned.exit_code == 0, tuned.output
    measured = json.loads(tuned.stdout)["metrics"]["tuned"]
    assert (measured["basis"], measured["n_images"]) == ("holdout", 10)


def test_a_report_is_one_page_whose_command_gives_the_same_digest(
    tune: Run, run: Run, tmp_path: Path
) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=8)
    (tmp_path / "groups.tsv").write_text("good/0.png\tpart 1\ngood/1.png\tpart 1\n")
    options = ["--shots", 2, "--groups", tmp_path / "groups.tsv", "--roi", f"0,0,{2 / 3},1"]
    first = tune(folder, *options, "--json", "--report", tmp_path / "report.html")
    assert first.exit_code == 0, first.output
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "scratch" in page

    again_path = tmp_path / "again.html"
    drawn = run(
        *("report", tmp_path / "model.safetensors", "--images", folder, "--language", "ja"),
        *("--title", "軸受キャップ", "--out", again_path),
    )
    assert drawn.exit_code == 0, drawn.output
    japanese = again_path.read_text()
    assert '<html lang="ja">' in japanese
    assert "軸受キャップ" in japanese
    document = json.loads(run("report", tmp_path / "model.safetensors", "--json").stdout)
    known = json.loads(first.stdout)["metrics"]
    assert document["linear_probe"] == known["linear_probe"]
    assert [one["sha256"] for one in document["mistakes"]] == [
        one["sha256"] for one in known["wrong"]
    ]
    # The starter's tower is convolutional: every mistake has its photograph and its map.
    for html in (page, japanese):
        assert html.count("<img ") == 2 * len(known["wrong"])

    shown = re.search("<code>shotline (tune .*?)</code>", page)
    assert shown
    again = shlex.split(unescape(shown[1]))
    again[again.index("FOLDER")], again[again.index("FILE")] = str(folder), str(tmp_path / "again")
    second = run(*again, "--json", "--features", tmp_path / "features")
    assert json.loads(second.stdout)["digest"] == json.loads(first.stdout)["digest"]


def test_a_report_is_of_one_model_from_one_place(run: Run, tmp_path: Path) -> None:
    refused(run("report"), "Neither a model file nor a project")
    refused(run("report", tmp_path / "a", "--project", "caps"), "Both the model file", "caps")
    refused(run("report", "--project", "caps", "--images", tmp_path), "--images", "gateway")
    refused(run("report", tmp_path / "none"), "none", "cannot be read")


def test_a_killed_tuning_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint; the second start ends as one that was never killed."""
    folder = write_classes(tmp_path / "photographs", "good", "scratch")
    program = [sys.executable, "-m", "app.cli.main", "tune", str(folder), "--json"]
    program += ["--features", str(tmp_path / "features"), "--set", "steps=400", "--set", "folds=2"]
    checkpoint = tmp_path / "checkpoint"

    def arguments(name: str) -> list[str]:
        return [*program, "--out", str(tmp_path / name)]

    whole = subprocess.run(arguments("whole"), check=True, capture_output=True)
    with subprocess.Popen(
        [*arguments("resumed"), "--checkpoint", str(checkpoint)], stdout=subprocess.DEVNULL
    ) as child:
        while not checkpoint.exists():
            assert child.poll() is None, "it ended before its first checkpoint"
        child.kill()
    assert not (tmp_path / "resumed").exists()
    resumed = subprocess.run(
        [*arguments("resumed"), "--checkpoint", str(checkpoint)], check=True, capture_output=True
    )
    assert json.loads(resumed.stdout)["digest"] == json.loads(whole.stdout)["digest"]
    assert not checkpoint.exists()


class TestBadInput:
    """An error that names the value at fault and the fix, exit code 2, nothing half-written."""

    @pytest.fixture(autouse=True)
    def _nothing_half_written(self, tmp_path: Path) -> object:
        yield
        assert leftovers(tmp_path) == []

    def test_no_folder(self, tune: Run, tmp_path: Path) -> None:
        refused(tune(tmp_path / "photographs"), "photographs is not a folder")

    def test_an_empty_folder(self, tune: Run, tmp_path: Path) -> None:
        (tmp_path / "photographs").mkdir()
        refused(tune(tmp_path / "photographs"), "photographs has no sub-folders")

    def test_one_class(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good")
        refused(tune(folder), "at least 2 classes; found 1 ('good')")

    def test_a_class_without_images(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        (folder / "stain").mkdir()
        refused(tune(folder), "'stain' has no images")

    def test_a_class_with_one_image(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good")
        write_classes(folder, "scratch", n=1)
        refused(tune(folder), "'scratch' has 1 training image(s)")

    def test_names_that_are_the_same_after_normalisation(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "Deep_Scratch", "deep scratch")
        refused(tune(folder), "'Deep_Scratch' and 'deep scratch'")

    def test_the_same_image_under_two_labels(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        (folder / "scratch" / "copy.png").write_bytes((folder / "good" / "0.png").read_bytes())
        refused(tune(folder), "'good' (good/0.png) and 'scratch' (scratch/copy.png)")

    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("notes.txt", b"three parts are dirty", "not an image"),
            ("empty.jpg", b"", "0 bytes"),
        ],
    )
    def test_a_file_that_is_no_image(
        self, tune: Run, tmp_path: Path, name: str, content: bytes, problem: str
    ) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        (folder / "good" / name).write_bytes(content)
        refused(tune(folder), name, problem)

    def test_a_truncated_jpeg(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        whole = write_image(folder / "good" / "cut.jpg", 7, COLOURS["good"])
        whole.write_bytes(whole.read_bytes()[:-200])
        refused(tune(folder), "cut.jpg", "truncated")

    def test_a_png_bomb(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        PIL.Image.new("1", (10_000, 10_000)).save(folder / "good" / "bomb.png")
        refused(tune(folder), "bomb.png", "100 megapixels", "at most 50")

    def test_a_recipe_that_does_not_exist(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        refused(tune(folder, "--set", "stepps=3"), "stepps")
        refused(tune(folder, "--set", "lr=-1"), "lr is -1")

    def test_an_unknown_backbone(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        refused(tune(folder, "--backbone", "ViT-B-33/openai"), "ViT-B-33")
        refused(tune(folder, "--backbone", "ViT-B-32/openai"), "ViT-B-32/openai", "offline")

    def test_a_disk_that_fills_during_the_write(
        self, tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")

        flush = os.fsync

        def full(descriptor: int) -> None:
            if ".model.safetensors." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        refused(tune(folder), "disk is full", "model.safetensors")
        assert any((tmp_path / "features").rglob("*.f32"))

    def test_a_folder_inside_a_class(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        write_classes(folder / "good", "monday")
        refused(tune(folder), "good holds the folder 'monday'")

    def test_a_group_for_no_image(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        (tmp_path / "groups.tsv").write_text("photographs/good/0.png\tpart 1\n")
        refused(tune(folder, "--groups", tmp_path / "groups.tsv"), "'photographs/good/0.png'")

    def test_two_options_for_one_file(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        same = tmp_path / "photographs" / ".." / "model.safetensors"
        for option in ("--report", "--checkpoint"):
            refused(tune(folder, option, same, "--force"), f"--out and {option} both name")

    def test_places_that_cannot_be_written_to(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        refused(tune(folder, "--out", tmp_path / "no" / "m"), f"{tmp_path / 'no'} of the output m")
        refused(tune(folder, "--out", folder, "--force"), f"{folder} is a folder")
        refused(tune(folder, "--checkpoint", folder), f"{folder} is a folder")
        # Nobody may make a file there, not even root.
        refused(tune(folder, "--out", "/proc/model"), "/proc/model cannot be written")

    def test_a_feature_store_that_is_a_file(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        (tmp_path / "features").write_bytes(b"no folder")
        refused(tune(folder), str(tmp_path / "features"), "Not a directory")

    def test_a_seed_that_nothing_can_keep(self, tune: Run, tmp_path: Path) -> None:
        folder = write_classes(tmp_path / "photographs", "good", "scratch")
        result = tune(folder, "--seed", 2**63)
        assert result.exit_code == 2
        assert "--seed" in result.stderr


class TestBadArtifact:
    """What `predict` and `inspect` say of files that they cannot trust."""

    @pytest.fixture
    def model(self, tune: Run, tmp_path: Path) -> Path:
        tune(write_classes(tmp_path / "photographs", "good", "scratch"))
        return tmp_path / "model.safetensors"

    def test_damaged(self, model: Path, run: Run) -> None:
        data = bytearray(model.read_bytes())
        data[-5] ^= 1
        model.write_bytes(data)
        refused(run("inspect", model), "damaged")
        refused(run("predict", model, model), "damaged")

    def test_missing(self, run: Run, tmp_path: Path) -> None:
        refused(run("inspect", tmp_path / "none"), "none", "cannot be read")

    def test_a_bad_image_among_good_ones(self, model: Path, run: Run, tmp_path: Path) -> None:
        good = tmp_path / "photographs" / "good" / "0.png"
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(b"not a photograph")
        result = run("predict", model, good, bad, "--json")
        assert len(json.loads(result.stdout)) == 1
        refused(result, "bad.jpg", "not an image")

    def test_a_checkpoint_of_another_recipe(self, model: Path, tune: Run, tmp_path: Path) -> None:
        ctx, momentum, generator = torch.zeros(3, 1)
        identity = RunIdentity(*["sha256:other"] * 5)
        run = RunCheckpoint(identity, 1, 1, ctx.clone(), momentum.clone(), generator.byte(), [])
        checkpoint = tmp_path / "checkpoint"
        checkpoint.write_bytes(Checkpoint((run,)).to_bytes())
        result = tune(tmp_path / "photographs", "--force", "--checkpoint", checkpoint)
        refused(result, "it differs in recipe")
        assert checkpoint.exists()

    def test_a_file_that_is_no_checkpoint_is_left_alone(
        self, model: Path, tune: Run, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.safetensors"
        model.rename(other)
        data = other.read_bytes()
        result = tune(tmp_path / "photographs", "--checkpoint", other)
        refused(result, f"{other} is no checkpoint", "Name another file")
        assert other.read_bytes() == data

    def test_an_artifact_of_another_backbone(
        self, model: Path, run: Run, tmp_path: Path, write_backbone: Callable[[], Path]
    ) -> None:
        image = tmp_path / "photographs" / "good" / "0.png"
        result = run("predict", model, image, "--backbone", f"local-dir:{write_backbone()}")
        refused(result, "tuned for the backbone 'starter'", "--backbone")
        assert result.stdout == ""

    def test_a_folder_without_photographs(self, model: Path, run: Run, tmp_path: Path) -> None:
        (tmp_path / "new" / ".thumbnails").mkdir(parents=True)
        (tmp_path / "new" / ".thumbnails" / "0.png").write_bytes(b"")
        (tmp_path / "new" / "Thumbs.db").write_bytes(b"")
        refused(run("predict", model, tmp_path / "new"), f"{tmp_path / 'new'} holds no photographs")
