"""Encoding images when malloc gives memory back, and when it keeps it: side by side.

Run with `python -m benchmarks.memory`; about two minutes on two cores.
"""

import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_results
from models.backbone_source import load_backbone

_RUNS, _ROUNDS, _THREADS = 5, 6, 2


def main(
    child: Annotated[str | None, typer.Option(hidden=True)] = None,
    images: Annotated[int, typer.Option(hidden=True)] = 1,
) -> None:
    """Print medians of runs side by side and write `benchmarks/results/memory.json`."""
    if child is not None:
        print(json.dumps(_measure(images, keep=child == "keep")))
        return
    results: dict[str, Any] = {}
    table = Table(
        "images a batch", "freed memory is", "ms an image", "pages an image", "size, MB",
        title="Image encoder of the starter, two threads, medians",
    )  # fmt: skip
    for count in (1, 16):
        runs: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
        for _ in range(_RUNS):
            runs["given back"].append(_run("give-back", count))
            runs["kept"].append(_run("keep", count))
        for name, found in runs.items():
            middle = {key: median(run[key] for run in found) for key in found[0]}
            results[f"{name}, {count} images"] = {"median": middle, "runs": found}
            table.add_row(
                str(count), name, f"{middle['ms']:.0f}", f"{middle['pages']:.0f}",
                f"{middle['megabytes']:.0f}",
            )  # fmt: skip
    Console().print(table)
    write_results("memory", {"threads": _THREADS, "results": results})


def _run(mode: str, images: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", mode, "--images", str(images)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    run: dict[str, float] = json.loads(answer.stdout)
    return run


def _measure(images: int, *, keep: bool) -> dict[str, float]:
    torch.set_num_threads(_THREADS)
    # Loading a backbone keeps it; what happens otherwise is to be seen too.
    with nullcontext() if keep else patch("models.backbone_source.keep_freed_memory"):
        backbone = load_backbone(device="cpu")
    size = backbone.pixels.size
    pixels = torch.zeros(images, 3, size, size, dtype=torch.uint8)
    for _ in range(2):
        backbone.encode_batch(pixels)
    before, times = resource.getrusage(resource.RUSAGE_SELF), []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        backbone.encode_batch(pixels)
        times.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": 1000 * median(times) / images,
        "pages": (after.ru_minflt - before.ru_minflt) / (_ROUNDS * images),
        "megabytes": after.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    typer.run(main)
