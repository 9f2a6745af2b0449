"""Strip-steel surface defects, 16 shots: tuned prompts beside baselines on the images left over.

Run with `python -m benchmarks.xsdd`; about three minutes on two cores, most of it encoding once.
"""

from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.common import data_root, reencoded, write_results
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.baselines.linear_probe import LinearProbe
from models.baselines.nearest_class_mean import NearestClassMean
from models.dataset import Dataset
from models.evaluation.metrics import evaluate
from models.evaluation.splits import draw_shots
from models.features import FolderFeatureStore, MemoryFeatureStore, image_features
from models.imaging import View
from models.methods.method import Method, probabilities
from models.recipe import Recipe
from models.training_set import Images, TrainingSet
from models.tuning import Tuning

BASELINES: dict[str, Method] = {
    "nearest_class_mean": NearestClassMean(),
    "linear_probe": LinearProbe(),
}
METHODS = {
    "zero_shot": "zero-shot",
    "nearest_class_mean": "nearest class mean",
    "linear_probe": "linear probe",
    "tuned": "tuned prompts",
}


def main(
    shots: Annotated[int, typer.Option(help="Training images per class.")] = 16,
    seeds: Annotated[str, typer.Option(help="Seeds of the draw and of the tuning.")] = "1,2,3",
    backbone: Annotated[str, typer.Option(help="As in `shotline tune`.")] = STARTER,
    store: Annotated[Path | None, typer.Option(help="A feature store to use again.")] = None,
) -> None:
    """Print macro accuracies and write `benchmarks/results/xsdd.json`."""
    dataset = reencoded(data_root() / "xsdd")
    loaded = load_backbone(backbone)
    features = FolderFeatureStore(store) if store else MemoryFeatureStore()
    with Console(stderr=True).status(f"Encoding {len(dataset.images)} images …"):
        x = image_features(dataset.images, loaded, View(), features)
    rows: list[dict[str, Any]] = []
    for seed in track([int(part) for part in seeds.split(",")], "Tuning"):
        train, test = _draw(dataset, shots, seed)
        tuning = Tuning(
            dataset.classes,
            dataset.subset(train, "train") + dataset.subset(test, "holdout"),
            loaded,
            Recipe(),
            seed=seed,
            view=View(),
            store=features,
        )
        metrics = tuning.run().header.metrics
        rows.append(
            {
                "seed": seed,
                "n_train": len(train),
                "n_test": len(test),
                "zero_shot": metrics.zero_shot.macro.value,
                **_baselines(loaded, x, dataset, train, test),
                "tuned": metrics.tuned.macro.value,
                "seconds": metrics.seconds,
            }
        )
    summary = {name: mean(row[name] for row in rows) for name in METHODS}
    _print(rows, summary)
    path = write_results(
        "xsdd",
        {
            "dataset": "xsdd, every image re-encoded as JPEG 95",
            "backbone": {"source": backbone, "digest": loaded.digest},
            "recipe": Recipe().model_dump(),
            "shots": shots,
            "macro": rows,
            "mean_macro": summary,
        },
    )
    Console().print(f"Written to {path.relative_to(Path.cwd())}")


def _draw(dataset: Dataset, shots: int, seed: int) -> tuple[list[int], list[int]]:
    labels = [image.label for image in dataset.images]
    return draw_shots(labels, [image.group for image in dataset.images], shots, seed)


def _baselines(
    backbone: Backbone, x: torch.Tensor, dataset: Dataset, train: list[int], test: list[int]
) -> dict[str, float]:
    y = torch.tensor([image.label for image in dataset.images])
    data = TrainingSet([spec.prompt_name for spec in dataset.classes], x[train], y[train])
    classifiers = {name: method.fit(backbone, data, seed=0) for name, method in BASELINES.items()}
    return {
        name: evaluate(probabilities(classifier, Images(x[test])), y[test], "holdout").macro.value
        for name, classifier in classifiers.items()
    }


def _print(rows: list[dict[str, Any]], summary: dict[str, float]) -> None:
    table = Table("Method", *[f"seed {row['seed']}" for row in rows], "mean", "std")
    for name, title in METHODS.items():
        values = [row[name] for row in rows]
        spread = stdev(values) if len(values) > 1 else 0.0
        cells = [f"{value:.3f}" for value in [*values, summary[name], spread]]
        table.add_row(title, *cells)
    table.title = "xsdd, macro accuracy on the images left over"
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
