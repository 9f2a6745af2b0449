"""The image encoder by every engine that is installed, turn by turn in one process.

Run with `python -m benchmarks.engines`, without another load; about two minutes on one core.
"""

import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.core.settings import BackboneSettings
from app.predictions.engines import machine
from app.predictions.engines.agreement import Probe, agreement
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.loading import CONVERTED, load_encoder
from app.predictions.engines.speed import batch_seconds
from benchmarks.common import write_results
from models.backbone_source import load_backbone

_ROUNDS = 15


def main(
    backbone: Annotated[str, typer.Option(help="What load_backbone takes.")] = "starter",
    threads: Annotated[int | None, typer.Option(help="As many as cores by default.")] = None,
) -> None:
    """Print medians of rounds side by side and write `benchmarks/results/engines.json`."""
    encoders: dict[str, ImageEncoder] = {}
    first: dict[str, float] = {}
    again: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("torch", *CONVERTED):
            settings = BackboneSettings(source=backbone, device="cpu", engine=name, threads=threads)
            encoders[name], first[name] = _timed(settings, Path(folder))
            encoders[name], again[name] = _timed(settings, Path(folder))
        runs = batch_seconds(encoders, _ROUNDS)
    probe = Probe.of(load_backbone(backbone, device="cpu"))
    results: dict[str, Any] = {}
    table = Table(
        "engine", "images a batch", "ms a batch", "images a second", "times torch",
        "least cosine", "first load, s", "load again, s",
        title=f"Image encoder of {backbone}, {threads or machine.cores()} threads, medians",
    )  # fmt: skip
    for name, encoder in encoders.items():
        cosine = agreement(encoder, probe)[0]
        results[name] = {"least_cosine": cosine, "first_s": first[name], "again_s": again[name]}
        for batch, seconds in runs[name].items():
            middle = median(seconds)
            times = median(runs["torch"][batch]) / middle
            table.add_row(
                name, str(batch), f"{1000 * middle:.1f}", f"{batch / middle:.1f}", f"{times:.2f}",
                f"{cosine:.7f}", f"{first[name]:.1f}", f"{again[name]:.1f}",
            )  # fmt: skip
            results[name][f"{batch} images"] = {
                "median_ms": 1000 * middle,
                "images_per_second": batch / middle,
                "times_torch": times,
                "rounds_ms": [1000 * value for value in seconds],
            }
    Console().print(table)
    write_results(
        "engines",
        {
            "backbone": backbone,
            "threads": threads or machine.cores(),
            "versions": {name: version(name) for name in ("openvino", "onnxruntime")},
            "results": results,
        },
    )


def _timed(settings: BackboneSettings, folder: Path) -> tuple[ImageEncoder, float]:
    start = time.perf_counter()
    return load_encoder(settings, folder), time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
