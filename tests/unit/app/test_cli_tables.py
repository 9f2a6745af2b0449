"""The tables of the command line: what they say, at the width of a terminal."""

import io
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from app.cli.tables import collapse_table, evaluation_table, seconds_table
from tests.report_samples import sample_report, with_confusion


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_importing_them_imports_no_torch() -> None:
    code = "import sys, app.cli.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_accuracy_per_class_and_overall_with_intervals() -> None:
    data = with_confusion(sample_report(("good", "scratch")), [[9, 1], [0, 20]])
    before = with_confusion(data, [[5, 5], [10, 10]]).tuned
    text = shown(evaluation_table(data.header.classes, data.tuned, before))
    rows = {row.split("│")[1].strip(): row.split() for row in text.splitlines() if "│" in row}
    assert rows["good"][3] == "10"
    assert "90.0 (61.9\N{EN DASH}98.9)" in text
    assert rows["good"][-2] == "+40.0"
    assert "Mean of classes" in rows
    assert rows["All images"][-2] == "+46.7"
    assert "30 held-out images" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_names_are_no_markup_and_no_emoji_codes() -> None:
    data = sample_report(("[bold]a[/]", ":smile: 合格🔥"), basis="out-of-fold")
    text = shown(evaluation_table(data.header.classes, data.tuned, data.tuned))
    assert "[bold]a[/]" in text
    assert ":smile: 合格🔥" in text
    assert "out-of-fold" in text


def test_collapse_with_image_side_once() -> None:
    metrics = sample_report(("a", "b", "c")).header.metrics
    text = shown(collapse_table(metrics.collapse_before, metrics.collapse_after, 3))
    assert "-0.500" in text
    assert text.count(f"{metrics.collapse_after.nc1:.3f}") == 1
    assert "LC works on raw cosines" in text


def test_collapse_of_two_classes_leaves_out_what_is_fixed() -> None:
    metrics = sample_report(("a", "b")).header.metrics
    broken = metrics.collapse_after.model_copy(update={"mi": float("nan")})
    text = shown(collapse_table(metrics.collapse_before, broken, 2))
    assert "NC2, text" not in text
    assert "-1.000" in text
    assert "\N{EM DASH}" in text


def test_seconds_and_their_sum() -> None:
    text = shown(seconds_table({"features": 1.25, "warm_up": 2.5}))
    assert "warm up" in text
    assert "3.8" in text
