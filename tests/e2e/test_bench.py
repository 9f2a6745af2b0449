"""`shotline bench` as a person runs it, with a backbone that is loaded in a moment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from tests.integration import tiny

Run = Callable[..., Result]
NAMES = ("bolt", "gear", "nut", "washer")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_backbone(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return write(tmp_path / "parts")


def write(root: Path, *, first: int = 0, count: int = 6) -> Path:
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(first, first + count):
            (root / name / f"{number}.png").write_bytes(tiny.photograph(label, number))
    return root


@pytest.fixture
def options(backbone: str, store: Path) -> list[str]:
    return ["--backbone", backbone, "--device", "cpu", "--features", str(store), "--jobs", "1"]


@pytest.fixture
def run(options: list[str]) -> Run:
    def invoke(*args: object) -> Result:
        return CliRunner().invoke(app, ["bench", *options, *map(str, args)])

    return invoke


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Fix:" in result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr
    assert "Traceback" not in result.output


def test_from_folders_to_page(run: Run, parts: Path, tmp_path: Path) -> None:
    later = write(tmp_path / "later", first=100)
    out, plots = tmp_path / "out.json", tmp_path / "plots"
    args = ["--methods", "zero-shot,nearest-class-mean", "--shots", "1,2", "--tau", "1,0.5"]
    args += ["--seeds", "1,2", "--json", str(out), "--plots", str(plots)]
    done = run(parts, later, *args)
    assert done.exit_code == 0, done.output
    assert "few-shot, 2 shots, tau 0.5" in done.stdout
    assert "100.0" in done.stdout
    content = json.loads(out.read_text())
    assert len(content["results"]) == 2 * 2 * 2 * 2 * 2
    assert set(content["meta"]["datasets"]) == {"parts", "later"}
    assert (plots / "bench.html").read_text().count("<svg") >= 2
    assert (plots / "shots.svg").stat().st_size > 1000

    before = content["results"]
    again = run(parts, later, *args, "--seeds", "1,2,3")
    assert again.exit_code == 0, again.output
    after = json.loads(out.read_text())["results"]
    assert len(after) == 48
    assert [row for row in after if row["seed"] != 3] == before  # their seconds too: not run again


def test_base_to_novel_and_across(run: Run, parts: Path, tmp_path: Path) -> None:
    later, out = write(tmp_path / "later", first=100), tmp_path / "out.json"
    args = ["--methods", "zero-shot,linear-probe", "--shots", 2, "--seeds", 1, "--json", out]
    assert run(parts, *args, "--protocol", "base-to-novel").exit_code == 0
    assert run(parts, later, *args, "--protocol", "cross-dataset").exit_code == 0
    domain = run(parts, later, *args, "--protocol", "domain")
    assert domain.exit_code == 0, domain.output
    assert "targets" in domain.stdout
    rows = json.loads(out.read_text())["results"]
    assert [row["protocol"] for row in rows].count("domain") == 4
    novel = {row["method"]: row["h"] for row in rows if row["protocol"] == "base-to-novel"}
    assert novel["linear-probe"] is None
    assert novel["zero-shot"] is not None


def test_names_groups_and_images_by_set(run: Run, parts: Path, tmp_path: Path) -> None:
    prompts, groups = tmp_path / "names.yaml", tmp_path / "groups.tsv"
    prompts.write_text("bolt: a screw without a point\n")
    groups.write_text("bolt/0.png\tone\nbolt/1.png\tone\n")
    table = tmp_path / "listed.csv"
    rows = [f"{name}/{number}.png,{name}" for name in NAMES for number in range(6)]
    table.write_text("\n".join(["path,label", *rows]))
    args = ["--methods", "zero-shot", "--shots", 2, "--seeds", 1]
    named = ["--prompts", f"parts={prompts}", "--groups", f"parts={groups}"]
    done = run(parts, table, *args, *named, "--images", f"listed={parts}")
    assert done.exit_code == 0, done.output
    refused(run(parts, table, *args, "--groups", groups), "does not say which data set", "listed")
    refused(run(parts, *args, *(named[2:] * 2)), "twice")


def test_another_backbone_is_refused(run: Run, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    args = ["--methods", "zero-shot", "--shots", 2, "--seeds", 1, "--json", out]
    assert run(parts, *args).exit_code == 0
    before = out.read_bytes()
    other = tiny.write_backbone(tmp_path / "other", seed=1)
    result = CliRunner().invoke(app, ["bench", *map(str, [parts, *args]), "--backbone", other])
    refused(result, "holds results of the backbone", "Name another file")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--shots", "1,x"], ["--shots", "'x'"]),
        (["--shots", "0"], ["--shots", "'0'"]),
        (["--tau", "1,1.5"], ["--tau", "'1.5'"]),
        (["--tau", "nan"], ["--tau", "'nan'"]),
        (["--seeds", "-1"], ["--seeds", "'-1'"]),
        (["--seeds", ","], ["--seeds", "names nothing"]),
        (["--methods", "zero-shot,bogus"], ["'bogus'", "zero-shot"]),
        (["--protocol", "domain"], ["domain", "'parts'"]),
        (["--json", "nowhere/out.json"], ["nowhere"]),
        (["--backbone", "local-dir:nowhere"], ["nowhere"]),
    ],
)
def test_bad_options(run: Run, parts: Path, args: list[str], words: list[str]) -> None:
    refused(run(parts, "--methods", "zero-shot", *args), *words)


def test_bad_data(run: Run, parts: Path, tmp_path: Path) -> None:
    refused(run(parts, parts), "Two data sets are named 'parts'")
    refused(run(tmp_path / "none"), "does not exist")
    for path in (parts / "gear").iterdir():
        if path.name != "0.png":
            path.unlink()
    refused(run(parts, "--methods", "zero-shot"), "'gear'", "1 image(s)")
    (parts / "gear/0.png").write_bytes(b"no image")
    refused(run(parts, "--methods", "zero-shot"), "gear/0.png", "not an image")
    (tmp_path / "plots").write_text("")
    refused(run(parts, "--plots", tmp_path / "plots"), "is a file")


def test_ctrl_c_leaves_the_results_whole(parts: Path, options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    seeds = ",".join(map(str, range(3000)))
    command = [sys.executable, "-m", "app.cli.main", "bench", str(parts), *options]
    command += ["--methods", "zero-shot", "--shots", "1", "--seeds", seeds, "--json", str(out)]
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, env=os.environ, start_new_session=True, text=True
    )
    give_up_at = time.monotonic() + 120
    while not (out.exists() and json.loads(out.read_text())["results"]):
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert "what was done stands in" in stderr
    assert "Traceback" not in stderr
    assert 0 < len(json.loads(out.read_text())["results"]) < 3000
