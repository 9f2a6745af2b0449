"""What the benchmarks share: development images, results, and what a run was made with."""

import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from models.bench.results import CellResult, harmonic_mean, read_results
from models.dataset import Dataset, LabelledImage, read_folder
from models.files import write_atomic
from models.imaging import decode

RESULTS = Path(__file__).parent / "results"


def data_root() -> Path:
    """Return the folder of development images that `SHOTLINE_DATA` names."""
    default = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("SHOTLINE_DATA", default))


def reencoded(folder: Path) -> Dataset:
    """Read a folder of classes with every image re-encoded alike, as JPEG of quality 95.

    Where one class alone has PNGs, the traces of the format would give that class away.
    """
    return reencoded_images(read_folder(folder))


def reencoded_images(dataset: Dataset) -> Dataset:
    """Return the images re-encoded alike, as JPEG of quality 95."""
    images = [
        LabelledImage(f"{i.sha256}-jpeg95", i.label, i.group, i.split, _Reencoder(i), i.name)
        for i in dataset.images
    ]
    return Dataset(dataset.classes, images)


class _Reencoder:
    def __init__(self, image: LabelledImage) -> None:
        self._image = image

    def __call__(self) -> bytes:
        return reencode(self._image.read())


def reencode(data: bytes) -> bytes:
    """Return an image as JPEG of quality 95."""
    buffer = io.BytesIO()
    decode(data).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def bench_rows(run: str) -> list[CellResult]:
    """Return what `python -m benchmarks.science` wrote of a run."""
    return read_results(RESULTS / f"bench_{run}.json").results


def base_novel_h(rows: Sequence[CellResult], method: str) -> tuple[float, float, float]:
    """Return a method's base and novel accuracy, mean over seeds, and H of the two, in percent."""
    own = [row for row in rows if row.method == method]
    base = 100 * mean(row.base for row in own if row.base is not None)
    novel = 100 * mean(row.novel for row in own if row.novel is not None)
    return base, novel, harmonic_mean(base, novel) or 0.0


def meta() -> dict[str, Any]:
    """Return what a result was made with."""
    packages = ("shotline", "torch", "open_clip_torch", "scikit-learn", "pillow")
    return {
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in packages},
    }


def _module() -> str:
    program = Path(sys.argv[0])
    return f"benchmarks.{program.parent.name if program.stem == '__main__' else program.stem}"


def write_results(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `benchmarks/results/NAME.json` with `meta` in front; elsewhere where a folder says."""
    path = folder / f"{name}.json"
    write_atomic(path, (json.dumps({"meta": meta()} | content, indent=2) + "\n").encode())
    return path
