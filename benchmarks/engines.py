"""The image encoder computed by PyTorch and by OpenVINO, turn by turn in one process.

Run with `python -m benchmarks.engines`, without another load; about two minutes on one core.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.openvino_engine import OpenVinoEncoder, least_cosine
from app.predictions.engines.torch_engine import TorchEncoder
from benchmarks.common import write_results
from models.backbone_source import load_backbone

_ROUNDS, _BATCHES = 15, (1, 16)


def main(
    backbone: Annotated[str, typer.Option(help="What load_backbone takes.")] = "starter",
    threads: Annotated[int | None, typer.Option(help="PyTorch's own choice by default.")] = None,
) -> None:
    """Print medians of rounds side by side and write `benchmarks/results/engines.json`."""
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_backbone(backbone, device="cpu")
    plain = TorchEncoder(loaded)
    start = time.perf_counter()
    encoders: dict[str, ImageEncoder] = {"torch": plain, "openvino": OpenVinoEncoder(loaded)}
    conversion = time.perf_counter() - start
    results: dict[str, Any] = {}
    table = Table(
        "images a batch", "engine", "ms a batch", "images a second", "times torch",
        title=f"Image encoder of {backbone}, {torch.get_num_threads()} threads, medians",
    )  # fmt: skip
    for count in _BATCHES:
        pixels = _pictures(count, loaded.pixels.size)
        runs = _measure(encoders, pixels)
        middle = {name: median(times) for name, times in runs.items()}
        for name, ms in middle.items():
            table.add_row(
                str(count), name, f"{ms:.1f}", f"{1000 * count / ms:.1f}",
                f"{middle['torch'] / ms:.2f}",
            )  # fmt: skip
        results[f"{count} images"] = {
            "median_ms": middle,
            "images_per_second": {name: 1000 * count / ms for name, ms in middle.items()},
            "torch_over_openvino": middle["torch"] / middle["openvino"],
            "least_cosine": least_cosine(*(it.encode(pixels) for it in encoders.values())),
            "rounds_ms": runs,
        }
    Console().print(table)
    write_results(
        "engines",
        {
            "backbone": backbone,
            "threads": torch.get_num_threads(),
            "conversion_seconds": conversion,
            "openvino": version("openvino"),
            "results": results,
        },
    )


def _pictures(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def _measure(encoders: dict[str, ImageEncoder], pixels: Tensor) -> dict[str, list[float]]:
    """Return the milliseconds of each round; the engine that goes first changes with the rounds."""
    runs: dict[str, list[float]] = {name: [] for name in encoders}
    for encoder in encoders.values():
        encoder.encode(pixels)  # the first batch of a size sets up what later ones use
    for number in range(_ROUNDS):
        for name in list(encoders)[:: 1 if number % 2 else -1]:
            runs[name].append(_milliseconds(encoders[name].encode, pixels))
    return runs


def _milliseconds(encode: Callable[[Tensor], Tensor], pixels: Tensor) -> float:
    start = time.perf_counter()
    encode(pixels)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    typer.run(main)
