"""`shotline tune --search` and `shotline enough` on a folder, with a tiny backbone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from models.artifact import read_artifact
from tests.integration import tiny

Run = Callable[..., Result]

QUICK = [part for name, value in tiny.RECIPE.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("search") / "photographs"
    for label, name in enumerate(("good", "傷")):
        (root / name).mkdir(parents=True)
        for number in range(6):
            (root / name / f"{number}.png").write_bytes(tiny.photograph(label, number))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    source = tiny.write_backbone(folder.parent / "backbone")
    common = ["--backbone", source, "--features", folder.parent / "features", "--device", "cpu"]

    def invoke(command: str, *args: object) -> Result:
        return CliRunner().invoke(app, [str(it) for it in (command, folder, *args, *common)])

    return invoke


def test_a_search_before_a_tuning(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    sure = "--alpha", "0.02"
    done = run("tune", "--out", model, "--search", "0.02", "--set", "n_ctx=4", *sure, *QUICK)
    assert done.exit_code == 0, done.output
    assert "Recipe" in done.stdout
    assert "Enough images?" in done.stdout
    header = read_artifact(model).header
    search = header.metrics.search
    assert search is not None
    assert search.choice is not None
    assert (search.minutes, search.fixed["n_ctx"], search.n_images) == (0.02, 4, 12)
    assert search.trials[0].state == "complete"
    taken = search.trials[search.choice.number].params
    assert taken.items() <= header.recipe.model_dump().items()
    assert header.recipe.steps == tiny.RECIPE["steps"]
    # Six images of each class are too few to be as sure as that.
    assert "It would decide 0 of 100 such images;" in done.stdout
    assert "see `shotline enough`." in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--search", "0"), "0 minutes"),
        (("--search", "-3"), "-3 minutes"),
        (("--search", "nan"), "nan minutes"),
        (("--search", "1", "--set", "n_ctx=99"), "99"),
        (("--search", "1", "--checkpoint", "c.safetensors"), "--checkpoint"),
    ],
)
def test_a_search_that_cannot_be(
    run: Run, tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    refused = run("tune", "--out", tmp_path / "model.safetensors", *args)
    assert refused.exit_code == 2
    assert said in " ".join(refused.stderr.split())
    assert "Fix:" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_enough(run: Run) -> None:
    shown = run("enough")
    assert shown.exit_code == 0, shown.output
    assert "傷" in shown.stdout
    assert "10 more, points" in shown.stdout
    told = json.loads(run("enough", "--json", "--more", 7).stdout)
    assert told["more"] == 7
    assert [entry["name"] for entry in told["classes"]] == ["good", "傷"]
    assert all(entry["gain"]["low"] <= entry["gain"]["high"] for entry in told["classes"])
    assert told["next_class"] in (0, 1)
