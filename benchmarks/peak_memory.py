"""Peak memory of tuning 10, 100 and 1,000 classes, in chunks of classes and all at once.

Run with `python -m benchmarks.peak_memory`; about two minutes on two cores.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize

from benchmarks.common import write_results
from models import text_encoder
from models.backbone_source import load_backbone
from models.recipe import Recipe
from models.text_encoder import CHUNK
from models.training_set import TrainingSet
from models.tuner import Tuner

_CLASSES, _SHOTS, _STEPS = (10, 100, 1000), 2, 4
_LIMIT = 6 * 2**30  # bytes; a run that needs more is reported as one that does not fit


def main(
    child: Annotated[str | None, typer.Option(hidden=True)] = None,
    classes: Annotated[int, typer.Option(hidden=True)] = 10,
) -> None:
    """Print peaks side by side and write `benchmarks/results/peak_memory.json`."""
    if child is not None:
        with patch.object(text_encoder, "CHUNK", sys.maxsize if child == "whole" else CHUNK):
            print(json.dumps(_measure(classes)))
        return
    table = Table(
        "classes", "text tower runs on", "loaded, MB", "peak, MB", "tuning adds, MB", "s a step",
        title=f"Tuning the starter, one thread, {_STEPS} steps",
    )  # fmt: skip
    results: dict[str, Any] = {}
    for count in _CLASSES:
        for mode, label in (("chunks", f"chunks of {CHUNK}"), ("whole", "all at once")):
            run = _run(mode, count)
            results[f"{count} classes, {label}"] = run
            table.add_row(str(count), label, *_cells(run))
    Console().print(table)
    write_results("peak_memory", {"threads": 1, "limit_bytes": _LIMIT, "results": results})


def _cells(run: dict[str, float] | None) -> list[str]:
    if run is None:
        return ["does not fit"]
    megabytes = [run["loaded_mb"], run["peak_mb"], run["peak_mb"] - run["loaded_mb"]]
    return [*[f"{value:,.0f}" for value in megabytes], f"{run['step_s']:.2f}"]


def _run(mode: str, classes: int) -> dict[str, float] | None:
    """Measure in a process of its own, which has no other peak behind it."""
    command = [
        *(sys.executable, "-m", "benchmarks.peak_memory"),
        *("--child", mode, "--classes", str(classes)),
    ]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if "MemoryError" in answer.stderr or "can't allocate memory" in answer.stderr:
        return None
    answer.check_returncode()
    run: dict[str, float] = json.loads(answer.stdout)
    return run


def _measure(classes: int) -> dict[str, float]:
    resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT, _LIMIT))
    torch.set_num_threads(1)
    backbone = load_backbone(device="cpu")
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(_SHOTS)
    features = normalize(torch.randn(len(labels), backbone.embed_dim, generator=drawn), dim=-1)
    data = TrainingSet(IMAGENET_CLASSNAMES[:classes], features, labels)
    recipe = Recipe(steps=_STEPS, warmup_steps=0, threads=1)
    loaded = _peak()
    start = time.perf_counter()
    Tuner(backbone, data, recipe, drawn).run()
    seconds = time.perf_counter() - start
    return {"loaded_mb": loaded, "peak_mb": _peak(), "step_s": seconds / _STEPS}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)
