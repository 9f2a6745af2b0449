"""`shotline tune` on 7 classes of 16 photographs, as a person runs it: whole command, empty store.

Run with `python -m benchmarks.tune_time`; about two minutes on two cores.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import data_root, reencoded, write_results
from models.evaluation.splits import draw_shots

_RUNS, _SHOTS, _SEED = 3, 16, 1


def main() -> None:
    """Print the seconds of each run and write `benchmarks/results/tune_time.json`."""
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        _write_photographs(photographs)
        runs = [_tune(photographs, Path(folder) / f"run{number}") for number in range(_RUNS)]
    middle = {name: median(run[name] for run in runs) for name in runs[0]}
    table = Table("part", *[f"run {number + 1}" for number in range(_RUNS)], "median, s")
    for name, value in middle.items():
        values = [*[run[name] for run in runs], value]
        table.add_row(name, *[f"{seconds:.1f}" for seconds in values])
    table.title = "xsdd, 7 classes of 16 photographs, empty feature store"
    Console().print(table)
    write_results("tune_time", {"shots": _SHOTS, "median": middle, "runs": runs})


def _write_photographs(folder: Path) -> None:
    dataset = reencoded(data_root() / "xsdd")
    labels = [image.label for image in dataset.images]
    drawn, _ = draw_shots(labels, [image.group for image in dataset.images], _SHOTS, _SEED)
    for index in drawn:
        image = dataset.images[index]
        path = folder / dataset.classes[image.label].name / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.read())


def _tune(photographs: Path, home: Path) -> dict[str, float]:
    command = [
        sys.executable, "-m", "app.cli.main", "tune", str(photographs), "--json",
        "--out", str(home.with_suffix(".safetensors")), "--features", str(home),
    ]  # fmt: skip
    start = time.monotonic()
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    whole = time.monotonic() - start
    seconds: dict[str, Any] = json.loads(answer.stdout)["metrics"]["seconds"]
    return {**seconds, "start and end": whole - sum(seconds.values()), "whole command": whole}


if __name__ == "__main__":
    typer.run(main)
