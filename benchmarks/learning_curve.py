"""Learning curves against what more images bring: `python -m benchmarks.learning_curve`.

A few images per class are drawn, the curve says what more of them would bring each class; then they
are given to the same classifier, and the gain is measured on all images that are left.
Cells that `benchmarks/results/learning_curve.json` has already are not run again.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.common import RESULTS, write_results
from benchmarks.development_sets import SETS
from benchmarks.sets import FOLDERS, Encoded, encoded
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.enough.curve import learning_curve
from models.enough.measure import basis_of
from models.evaluation.splits import draw_shots
from models.features import FolderFeatureStore, MemoryFeatureStore
from models.fusion import Frame, Texts, embeddings_of_means, fused_embeddings, plain_means
from models.learning_curve import ClassCurve
from models.recipe import Recipe
from models.training_set import TrainingSet
from models.tuner import Tuner

NAME = "learning_curve"
SEEDS = range(1, 5)
DRAWS = 3  # of the images that are added: one draw of them says little
TUNED_SEEDS = (1,)
# So that a run that is cut short has some of each kind.
ORDER = ("drawn_defects", "xsdd", "digits", "clothing10", "textures", "faces")
RECIPE = Recipe(threads=1)


class Regime(NamedTuple):
    """How many images of each class there are, and how many more are added.

    Attributes:
        shots: of each class; of every second one `few`, drawn by the seed.
        more: are added.
        few: see `shots`.
    """

    shots: int
    more: int
    few: int

    @property
    def name(self) -> str:
        """What the results know it by."""
        shots = f"{self.shots}" if self.few == self.shots else f"{self.few} or {self.shots}"
        return f"{shots} + {self.more}"


REGIMES = (Regime(8, 8, 8), Regime(16, 10, 16), Regime(16, 10, 5))


def main(
    store: Annotated[Path | None, typer.Option(help="A feature store to use again.")] = None,
    seconds: Annotated[float, typer.Option(help="Begin no new cell after so long.")] = 200.0,
) -> None:
    """Measure what is missing, print a summary and write the results."""
    path = RESULTS / f"{NAME}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    cells: dict[str, Any] = known.get("cells", {})
    follows: dict[str, Any] = known.get("follows", {})
    backbone, started = load_backbone(STARTER), time.monotonic()
    kept = FolderFeatureStore(store) if store else MemoryFeatureStore()
    for name in ORDER:
        if time.monotonic() - started > seconds:
            break
        encoded_set = encoded(name, backbone, kept)
        for regime in REGIMES:
            for seed in SEEDS:
                key = f"{name}, {regime.name}, seed {seed}"
                if key not in cells and time.monotonic() - started < seconds:
                    cells[key] = _run(encoded_set, regime, seed)
        for shots in (8, 16):
            for seed in TUNED_SEEDS:
                key = f"{name} {shots} seed {seed}"
                if key not in follows and time.monotonic() - started < seconds:
                    follows[key] = _follow(encoded_set, shots, seed, backbone)
    summary = _summary(cells, follows)
    print(json.dumps(summary, indent=2))
    write_results(NAME, {"summary": summary, "cells": cells, "follows": follows})


def _run(found: Encoded, regime: Regime, seed: int) -> dict[str, Any]:
    """Return for each class what was predicted and what was measured, in shares."""
    drawn, rest = _draw(found.data, regime, seed)
    base = found.data.subset(drawn)
    names = [spec.name for spec in found.dataset.classes]
    started = time.monotonic()
    curve = learning_curve(base, found.written, RECIPE, names, seed=seed, more=regime.more)
    took = time.monotonic() - started
    rng = np.random.default_rng(seed)
    every, alone = zip(
        *(_measured(found, regime.more, drawn, rest, rng) for _ in range(DRAWS)), strict=True
    )
    gains, single = np.mean(every, axis=0), np.mean(alone, axis=0)
    rows = [
        _predicted(entry) | {"measured": float(gains[label]), "alone": float(single[label])}
        for label, entry in enumerate(curve.classes)
    ]
    return {"next": curve.next_class, "seconds": round(took, 2), "classes": rows}


def _draw(data: TrainingSet, regime: Regime, seed: int) -> tuple[list[int], list[int]]:
    """Return the images that there are, and those that are left, for adding and for testing."""
    labels, groups = data.labels.tolist(), list(data.groups or [])
    drawn, rest = draw_shots(labels, groups, regime.shots, seed)
    if regime.few < regime.shots:
        order = np.random.default_rng(seed).permutation(data.n_classes)
        short = set(order[::2].tolist())
        kept: list[int] = []
        for label in range(data.n_classes):
            own = [index for index in drawn if labels[index] == label]
            kept += own[: regime.few] if label in short else own
        drawn = sorted(kept)
    return drawn, rest


def _predicted(entry: ClassCurve) -> dict[str, Any]:
    if entry.gain is None:
        return {"images": entry.images}
    return {"images": entry.images, "gain": [entry.gain.value, entry.gain.low, entry.gain.high]}


def _measured(
    found: Encoded, more: int, drawn: list[int], rest: list[int], rng: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Return what more images of every class bring each, and what those of one bring the mean.

    On all images that are left, the same ones for all.
    """
    labels, n_classes = found.data.labels.tolist(), found.data.n_classes
    added = [
        rng.permutation([index for index in rest if labels[index] == label])[:more].tolist()
        for label in range(n_classes)
    ]
    every = [index for own in added for index in own]
    test = sorted(set(rest) - set(every))
    before = _right(found, drawn, test)
    after = _right(found, [*drawn, *every], test)
    alone = [float((_right(found, [*drawn, *own], test) - before).mean()) for own in added]
    return (after - before).tolist(), alone


def _right(found: Encoded, train: Sequence[int], test: Sequence[int]) -> Tensor:
    """Return the accuracy of each class."""
    data, written = found.data, found.written
    part = data.subset(train)
    basis = basis_of(torch.cat([part.features, written]).double())
    x, said = part.features.double() @ basis, written.double() @ basis
    counts = part.counts().double()
    dim = data.features.shape[1]
    frame = Frame.of(x, part.labels, counts, RECIPE.prior_images, dim=dim)
    means = plain_means(x, part.labels, counts)
    made = embeddings_of_means(means, counts, frame, Texts(said, said), RECIPE.caution)
    return _accuracies(data, test, (made.double() @ basis.T).float())


def _accuracies(data: TrainingSet, test: Sequence[int], embeddings: Tensor) -> Tensor:
    labels = data.labels[list(test)]
    right = (data.features[list(test)] @ embeddings.T).argmax(dim=1) == labels
    totals = torch.bincount(labels, minlength=data.n_classes)
    return torch.bincount(labels[right], minlength=data.n_classes) / totals


def _follow(found: Encoded, shots: int, seed: int, backbone: Backbone) -> dict[str, Any]:
    """Return the accuracy of each class by the stand-in and by a whole tuning, the same images."""
    data, labels = found.data, found.data.labels.tolist()
    drawn, rest = draw_shots(labels, list(data.groups or []), shots, seed)
    part = data.subset(drawn)
    tuner = Tuner(backbone, part, RECIPE, torch.Generator().manual_seed(seed))
    texts = Texts(tuner.run(), found.written)
    tuned = _accuracies(data, rest, fused_embeddings(texts, part, RECIPE, backbone.logit_scale))
    stand_in = _right(found, drawn, rest)
    return {
        "stand_in": [round(float(value), 4) for value in stand_in],
        "tuned": [round(float(value), 4) for value in tuned],
    }


def _summary(cells: dict[str, Any], follows: dict[str, Any]) -> dict[str, Any]:
    """Return a row for each regime, on the development sets and on the others."""
    summary: dict[str, Any] = {}
    for kind, names in (("development sets", tuple(SETS)), ("photographs", FOLDERS)):
        for regime in REGIMES:
            own = [
                cell
                for key, cell in cells.items()
                if key.split(", ")[0] in names and key.split(", ")[1] == regime.name
            ]
            if own:
                summary[f"{kind}, {regime.name}"] = _of_cells(own)
    summary["stand_in"] = _of_follows(list(follows.values())) if follows else None
    return summary


def _of_cells(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for cell in cells for row in cell["classes"] if "gain" in row]
    return {
        "cells": len(cells),
        "classes": len(rows),
        "predicted_points": _points(row["gain"][0] for row in rows),
        "measured_points": _points(row["measured"] for row in rows),
        "distance_points": _points(abs(row["gain"][0] - row["measured"]) for row in rows),
        "distance_of_means_points": _points(abs(_mean_distance(cell)) for cell in cells),
        "inside_90": _share(row["gain"][1] <= row["measured"] <= row["gain"][2] for row in rows),
        "next_alone_points": _points(cell["classes"][cell["next"]]["alone"] for cell in cells),
        "any_alone_points": _points(row["alone"] for cell in cells for row in cell["classes"]),
        "best_alone_points": _points(
            max(row["alone"] for row in cell["classes"]) for cell in cells
        ),
        "seconds": round(max(cell["seconds"] for cell in cells), 2),
    }


def _mean_distance(cell: dict[str, Any]) -> float:
    """Return predicted less measured gain of the mean of the classes."""
    rows = [row for row in cell["classes"] if "gain" in row]
    return mean(row["gain"][0] for row in rows) - mean(row["measured"] for row in rows)


def _of_follows(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say how near the stand-in is to a whole tuning, class by class."""
    stand_in = np.array([value for row in found for value in row["stand_in"]])
    tuned = np.array([value for row in found for value in row["tuned"]])
    return {
        "classes": len(tuned),
        "tuned_points": round(100 * float(tuned.mean()), 2),
        "stand_in_points": round(100 * float(stand_in.mean()), 2),
        "mean_distance_points": round(100 * float(np.abs(tuned - stand_in).mean()), 2),
        "correlation": round(float(np.corrcoef(tuned, stand_in)[0, 1]), 3),
    }


def _points(values: Iterable[float]) -> float:
    return round(100 * mean(values), 2)


def _share(values: Iterable[bool]) -> float:
    return round(mean(float(value) for value in values), 3)


if __name__ == "__main__":
    typer.run(main)
