"""The image encoder in INT8 beside single precision: how fast, how alike, and what it costs.

Run with `python -m benchmarks.int8`, without another load; about ten minutes on two cores. Of the
starter, tuned prompts and nearest class means are compared; a ViT-B/32 of random weights, which
shows the speed of that shape, has nearest class means alone.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table

from app.core.settings import BackboneSettings
from app.predictions.engines import machine
from app.predictions.engines.encoder import BackboneFacts
from app.predictions.engines.int8 import MOST_POINTS, int8_encoder
from app.predictions.engines.loading import CONVERTED, load_encoder
from app.predictions.engines.onnx_int8 import FIRST_LAYERS
from app.predictions.engines.speed import BATCHES, fastest, images_per_second
from app.predictions.quantizing import (
    Encoders,
    calibration_pixels,
    compared,
    macro,
    write_int8,
)
from benchmarks.common import data_root, reencoded, write_results
from benchmarks.vit import write_vit
from models.artifact import Artifact
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.dataset import Dataset, LabelledImage
from models.evaluation.splits import draw_shots
from models.features import MemoryFeatureStore
from models.imaging import View
from models.progress import no_progress
from models.recipe import Recipe
from models.tuning import Tuning

_SETS = ("xsdd", "clothing10")
_SHOTS, _SEED = 16, 1


class _Set(NamedTuple):
    """Images to tune on and images that are held out."""

    name: str
    dataset: Dataset
    train: list[LabelledImage]
    held_out: list[LabelledImage]


def main(
    images: Annotated[int, typer.Option(help="Held-out images of each class at most.")] = 60,
    threads: Annotated[int | None, typer.Option(help="As many as cores by default.")] = None,
) -> None:
    """Print the two backbones and write `benchmarks/results/int8.json`."""
    sets = [_drawn(name, images) for name in _SETS]
    with TemporaryDirectory() as folder:
        vit = write_vit(Path(folder) / "vit")
        results = {
            "starter": _measured(STARTER, sets, threads, Path(folder) / "starter-int8", tune=True),
            "ViT-B/32, random": _measured(
                vit, sets, threads, Path(folder) / "vit-int8", tune=False
            ),
        }
    for name, found in results.items():
        _print(name, found)
    write_results(
        "int8",
        {
            "threads": threads or machine.cores(),
            "first_layers_in_fp32": FIRST_LAYERS,
            "shots": _SHOTS,
            "most_points": MOST_POINTS,
            "results": results,
        },
    )


def _drawn(name: str, most: int) -> _Set:
    dataset = reencoded(data_root() / name)
    labels = [image.label for image in dataset.images]
    groups = [image.group for image in dataset.images]
    train, left = draw_shots(labels, groups, _SHOTS, _SEED)
    order = np.random.default_rng(_SEED).permutation(left).tolist()
    by_class = [
        [place for place in order if labels[place] == label][:most]
        for label in range(len(dataset.classes))
    ]
    held_out = [place for places in by_class for place in places]
    return _Set(name, dataset, dataset.subset(train, "train"), dataset.subset(held_out, "holdout"))


def _measured(
    source: str, sets: Sequence[_Set], threads: int | None, folder: Path, *, tune: bool
) -> dict[str, Any]:
    """Quantise the backbone on the sets' training images, and measure."""
    console = Console(stderr=True)
    settings = BackboneSettings(source=source, device="cpu", threads=threads)
    backbone = load_backbone(source, device="cpu")
    artifacts: list[Artifact | None] = [None for _ in sets]
    if tune:
        with console.status("Tuning …"):
            artifacts = [_tuned(one, source) for one in sets]
    with console.status("Quantising …"), TemporaryDirectory() as engines:
        fp32 = {
            f"fp32, {name}": load_encoder(
                settings.model_copy(update={"engine": name}), Path(engines)
            )
            for name in CONVERTED
        }
        folder.mkdir()
        pixels, _ = calibration_pixels([(View(), one.train) for one in sets], backbone.pixels)
        write_int8(settings, pixels, folder, no_progress)
        facts = BackboneFacts(backbone.source, backbone.digest, backbone.pixels)
        cores = threads or machine.cores()
        int8 = {
            f"INT8, {name}": int8_encoder(name, folder, facts, cores, name) for name in CONVERTED
        }
        speeds = images_per_second({**fp32, **int8}, rounds=9)
        best = Encoders(
            fp32[fastest({name: speeds[name] for name in fp32})],
            int8[fastest({name: speeds[name] for name in int8})],
        )
    with console.status("Comparing …"):
        costs = {
            one.name: _compare(one, best, artifact)
            for one, artifact in zip(sets, artifacts, strict=True)
        }
    return {"calibration_images": len(pixels), "images_per_second": speeds, "sets": costs}


def _tuned(one: _Set, source: str) -> Artifact:
    tuning = Tuning(
        one.dataset.classes,
        one.train,
        load_backbone(source),
        Recipe(),
        seed=_SEED,
        view=View(),
        store=MemoryFeatureStore(),
    )
    return tuning.run()


def _compare(one: _Set, encoders: Encoders, artifact: Artifact | None) -> dict[str, Any]:
    """Return cosines and macro accuracies; the classifiers are those of single precision."""
    trained = np.concatenate([pair[0] for pair in compared(one.train, View(), encoders)])
    means = _class_means(trained, np.array([image.label for image in one.train]))
    pairs = list(compared(one.held_out, View(), encoders))
    fp32, int8 = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    cosines = (fp32 * int8).sum(axis=1)
    labels = np.array([image.label for image in one.held_out])
    classifiers = {"nearest_class_mean": means}
    if artifact is not None:
        classifiers["tuned"] = artifact.class_embeddings
    return {
        "images": len(labels),
        "least_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "macro": {name: _macros(fp32, int8, rows, labels) for name, rows in classifiers.items()},
    }


def _class_means(
    features: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n_classes dim"]:
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    unit: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def _macros(
    fp32: np.ndarray, int8: np.ndarray, classifier: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    left, right = ((features @ classifier.T).argmax(axis=1) for features in (fp32, int8))
    before, after = macro(left, labels), macro(right, labels)
    return {
        "fp32": before,
        "int8": after,
        "cost": before - after,
        "changed": int((left != right).sum()),
    }


def _print(name: str, found: dict[str, Any]) -> None:
    speeds = Table(
        "encoder", *(f"images/s, {size} a batch" for size in BATCHES), title=f"{name}: speed"
    )
    for encoder, by_size in found["images_per_second"].items():
        speeds.add_row(encoder, *(f"{by_size[size]:.1f}" for size in BATCHES))
    costs = Table(
        "set", "classifier", "images", "least cosine", "mean", "fp32, %", "INT8, %", "cost",
        "other labels", title=f"{name}: held-out images",
    )  # fmt: skip
    for set_name, of_set in found["sets"].items():
        for classifier, row in of_set["macro"].items():
            costs.add_row(
                set_name, classifier, str(of_set["images"]), f"{of_set['least_cosine']:.4f}",
                f"{of_set['mean_cosine']:.4f}", f"{row['fp32']:.2f}", f"{row['int8']:.2f}",
                f"{row['cost']:+.2f}", str(row["changed"]),
            )  # fmt: skip
    Console().print(speeds, costs)


if __name__ == "__main__":
    typer.run(main)
