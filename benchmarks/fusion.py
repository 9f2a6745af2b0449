"""The two constants of the posterior classifier, on development sets alone.

Run with `python -m benchmarks.fusion`; some six minutes on one core, most of it encoding. Texts are
the untuned ones: what is chosen here is the classifier.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.common import write_results
from benchmarks.development_sets import SETS, development_set
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.baselines.zero_shot import zero_shot
from models.bench.data import BenchSet
from models.bench.draws import class_counts, draw
from models.bench.scores import score
from models.features import FeatureStore, FolderFeatureStore, MemoryFeatureStore, image_features
from models.fusion import Texts, posterior_embeddings
from models.imaging import View
from models.recipe import Recipe

PRIOR_IMAGES, CAUTION = (0.125, 0.25, 0.5, 1.0, 2.0), (0.0, 1.0, 3.0, 6.0, 12.0)
REGIMES = ((16, 0.06), (16, 1.0), (4, 1.0), (1, 1.0))  # images of the largest class, tau
SEEDS = range(1, 11)


class Encoded(NamedTuple):
    """A development set with its features, and the text features of its names."""

    data: BenchSet
    features: Tensor
    text: Tensor


def main(
    store: Annotated[Path | None, typer.Option(help="A feature store to use again.")] = None,
) -> None:
    """Print mean macro accuracies and write `benchmarks/results/fusion.json`."""
    backbone = load_backbone(STARTER)
    kept = FolderFeatureStore(store) if store else MemoryFeatureStore()
    sets = [_encode(name, backbone, kept) for name in track(SETS, "Encoding")]
    pairs = list(product(PRIOR_IMAGES, CAUTION))
    rows = {pair: list(_macros(sets, *pair)) for pair in track(pairs, "Trying constants")}
    best = max(rows, key=lambda pair: mean(rows[pair]))
    table = Table("prior_images", "caution", "mean macro, %", "below the best", "standard error")
    found = []
    for pair, macros in sorted(rows.items(), key=lambda item: -mean(item[1])):
        behind = [b - m for b, m in zip(rows[best], macros, strict=True)]
        error = stdev(behind) / len(behind) ** 0.5
        shown = [100 * value for value in (mean(macros), mean(behind), error)]
        table.add_row(f"{pair[0]:g}", f"{pair[1]:g}", *(f"{value:.2f}" for value in shown))
        keys = ("macro", "below_best", "standard_error")
        constants = {"prior_images": pair[0], "caution": pair[1]}
        found.append(constants | {k: round(v, 3) for k, v in zip(keys, shown, strict=True)})
    Console().print(table)
    write_results(
        "fusion",
        {"sets": list(SETS), "regimes": REGIMES, "seeds": len(SEEDS), "found": found},
    )


def _encode(name: str, backbone: Backbone, store: FeatureStore) -> Encoded:
    data = BenchSet(name, development_set(name))
    features = image_features(data.dataset.images, backbone, View(), store)
    return Encoded(data, features, zero_shot(backbone, data.prompt_names))


def _macros(sets: list[Encoded], prior_images: float, caution: float) -> Iterator[float]:
    """Return the macro accuracies over sets, regimes and seeds."""
    recipe = Recipe(prior_images=prior_images, caution=caution)
    for (data, features, text), (shots, tau), seed in product(sets, REGIMES, SEEDS):
        counts = class_counts(len(text), shots, tau, seed)
        drawn = draw(data, counts, shots, seed)
        labels = torch.tensor(data.labels)
        texts = Texts(text, text)
        embeddings = posterior_embeddings(texts, features[drawn.train], labels[drawn.train], recipe)
        logits = features[drawn.test] @ embeddings.T
        yield score(logits, labels[drawn.test], counts).macro


if __name__ == "__main__":
    typer.run(main)
