"""From a JPEG's bytes to the pixels of an image encoder: whole, smaller, and through simplejpeg.

Run with `python -m benchmarks.decoder`; about a minute. One thread; what else runs is not counted.
"""

import io
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Annotated, Any

import numpy as np
import PIL.features
import PIL.Image
import simplejpeg
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import data_root, write_results
from models.imaging import View, decode
from models.pixels import to_pixels

_SIDES, _SAMPLINGS, _QUALITY = (260, 500, 1000, 2000, 2500, 4000), {"4:4:4": 0, "4:2:0": 2}, 90
_REDUCTIONS = (8, 4, 2, 1)
Ways = dict[str, Callable[[], np.ndarray]]


def main(size: Annotated[int, typer.Option(help="Pixels per side that are wanted.")] = 260) -> None:
    """Print medians of interleaved rounds and write `benchmarks/results/decoder.json`."""
    rows: list[dict[str, Any]] = []
    table = Table(
        "side", "sampling", "whole", "ours", "simplejpeg", "whole / ours",
        "simplejpeg / ours", "difference",
        title=f"JPEG to {size} x {size} pixels, medians in ms",
    )  # fmt: skip
    for side in _SIDES:
        for sampling, code in _SAMPLINGS.items():
            row = _row(_jpeg(side, code), size) | {"side": side, "sampling": sampling}
            ms = row["median_ms"]
            table.add_row(
                str(side), sampling, *(f"{ms[way]:.2f}" for way in ms),
                f"{ms['whole'] / ms['shotline']:.2f}", f"{ms['simplejpeg'] / ms['shotline']:.2f}",
                f"{row['mean_difference']:.2f}",
            )  # fmt: skip
            rows.append(row)
    Console().print(table)
    versions = {
        "simplejpeg": version("simplejpeg"),
        "libjpeg-turbo of pillow": PIL.features.version_feature("libjpeg_turbo"),
    }
    write_results("decoder", {"size": size, "quality": _QUALITY, "with": versions, "results": rows})


def _jpeg(side: int, subsampling: int) -> bytes:
    """Return a real photograph, brought to `side` x `side` pixels, with a sensor's noise."""
    path = sorted((data_root() / "clothing10").glob("**/*.jpg"))[0]
    image = decode(path.read_bytes()).resize((side, side), PIL.Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 4, (image.height, image.width, 1))
    pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, subsampling=subsampling)
    return buffer.getvalue()


def _row(data: bytes, size: int) -> dict[str, Any]:
    ways: Ways = {
        "whole": lambda: _resized(decode(data), size),
        "shotline": lambda: to_pixels(data, View(resize="stretch"), size),
        "simplejpeg": lambda: _through_simplejpeg(data, size),
    }
    whole, ours = ways["whole"]().astype(int), ways["shotline"]().astype(int)
    with PIL.Image.open(io.BytesIO(data)) as image:
        same = np.array_equal(np.asarray(image), simplejpeg.decode_jpeg(data))
    return {
        "bytes": len(data),
        "median_ms": _medians(ways, max(5, min(61, 6_000_000 // len(data)))),
        "mean_difference": float(np.abs(ours - whole).mean()),
        "simplejpeg_decodes_the_same": same,
    }


def _through_simplejpeg(data: bytes, size: int) -> np.ndarray:
    """Do what `to_pixels` would with simplejpeg: Pillow still reads header and orientation."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        image.getexif()
        width, height = image.size
    spare = {8: 2.5, 4: 2.2, 2: 1.9, 1: 0}
    by = next(by for by in _REDUCTIONS if min(width, height) >= by * spare[by] * size)
    array = simplejpeg.decode_jpeg(data, min_width=-(-width // by), min_height=-(-height // by))
    return _resized(PIL.Image.fromarray(array), size)


def _resized(image: PIL.Image.Image, size: int) -> np.ndarray:
    square = image.resize((size, size), PIL.Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _medians(ways: Ways, rounds: int) -> dict[str, float]:
    """Return milliseconds of processor time; the way that goes first changes with the rounds."""
    runs: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            start = time.thread_time()
            ways[name]()
            runs[name].append(1000 * (time.thread_time() - start))
    return {name: median(times) for name, times in runs.items()}


if __name__ == "__main__":
    typer.run(main)
