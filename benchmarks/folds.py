"""How many folds prediction sets need: coverage, sets and decided images by their number.

Run with `python -m benchmarks.folds`; some five minutes. Development sets alone, made harder by
noise in the features until the classes are told as badly as those of hard lines. Everything is as
in a tuning but the prompts, which are the written ones: to tune them for so many folds takes hours.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.common import write_results
from benchmarks.trust_data import CachedSet, cached
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.baselines.zero_shot import zero_shot
from models.evaluation.splits import cross_validation_folds, draw_shots
from models.fusion import Texts, fused_embeddings
from models.recipe import Recipe
from models.training_set import TrainingSet
from models.trust.conformal import Scores, class_scores

SETS = ("digits", "drawn_defects")
NAME, SHOTS, DRAWS, ALPHA = "folds", 16, 40, 0.1
CLASSES, NOISE = (2, 3, 5), (1.5, 3.0)
FOLDS = (2, 3, 4, 5, 8, 12)
_AXES = 60  # of the images: what lies beside them is noise to the classifier, and takes most time


class Draw(NamedTuple):
    """Some classes of a set, their images with noise, and 16 of each to learn from."""

    names: Sequence[str]
    features: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, " n"]
    groups: Sequence[str]
    train: Sequence[int]
    test: Sequence[int]
    written: Float[torch.Tensor, "n_classes dim"]


def main(draws: Annotated[int, typer.Option(min=2, help="Of each setting.")] = DRAWS) -> None:
    """Measure and write `benchmarks/results/folds.json`."""
    load = functools.cache(lambda: load_backbone(STARTER))
    backbone = load()
    found: list[dict[str, Any]] = []
    settings = [(s, n, noise) for s in SETS for n in CLASSES for noise in NOISE]
    for name, n_classes, noise in track(settings, "Measuring"):
        data = cached(name, load)
        runs = [_run(_draw(data, backbone, n_classes, noise, seed)) for seed in range(draws)]
        found += _rows(name, n_classes, noise, runs)
    write_results(NAME, {"shots": SHOTS, "draws": draws, "alpha": ALPHA, "settings": found})
    _print(found)


def _draw(data: CachedSet, backbone: Backbone, n_classes: int, noise: float, seed: int) -> Draw:
    rng = np.random.default_rng(seed)
    dataset = data.dataset
    keep = sorted(rng.permutation(len(dataset.classes))[:n_classes].tolist())
    rows = [i for i, image in enumerate(dataset.images) if image.label in keep]
    images = [dataset.images[row] for row in rows]
    labels, groups = [keep.index(image.label) for image in images], [i.group for i in images]
    clean = data.seen.features[rows]
    noisy = clean + rng.standard_normal(clean.shape) * noise / np.sqrt(clean.shape[1])
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    names = [dataset.classes[label].prompt_name for label in keep]
    written = zero_shot(backbone, names)
    axes = _axes(noisy, written.numpy())
    train, test = draw_shots(labels, groups, SHOTS, seed)
    return Draw(
        names,
        (noisy @ axes).astype(np.float32),
        np.array(labels),
        groups,
        train,
        test,
        torch.from_numpy((written.numpy() @ axes).astype(np.float32)),
    )


def _axes(features: Float[np.ndarray, "n dim"], texts: Float[np.ndarray, "k dim"]) -> np.ndarray:
    """Return an orthonormal basis of the texts, the images' mean and their main directions."""
    middle = features.mean(axis=0)
    directions = np.linalg.svd(features - middle, full_matrices=False)[2][:_AXES]
    basis: np.ndarray = np.linalg.qr(np.concatenate([directions, texts, middle[None]]).T)[0]
    return basis


def _run(draw: Draw) -> dict[int, tuple[float, float, float]]:
    """Return coverage, size of sets and share of single ones, by the number of folds."""
    own = draw.labels[list(draw.test)]
    found = {}
    for folds in FOLDS:
        inside = _sets(draw, folds)
        sizes = inside.sum(axis=1)
        held = inside[np.arange(len(own)), own]
        found[folds] = (float(held.mean()), float(sizes.mean()), float((sizes == 1).mean()))
    return found


def _sets(draw: Draw, n_folds: int) -> np.ndarray:
    """Return which classes the prediction set of each test image has."""
    train = np.array(draw.train)
    features, labels = draw.features[train], draw.labels[train]
    groups = [draw.groups[index] for index in draw.train]
    pairs = cross_validation_folds(labels.tolist(), groups, n_folds, seed=0)
    table: list[list[list[float]]] = [[[] for _ in pairs] for _ in draw.names]
    seen = []
    for fold, (rest, left_out) in enumerate(pairs):
        model = _classifier(draw, train[rest])
        scores = class_scores(features[left_out] @ model.T)
        for index, row in zip(left_out, scores, strict=True):
            table[labels[index]][fold].append(float(row[labels[index]]))
        seen.append(class_scores(draw.features[list(draw.test)] @ model.T))
    p_values = Scores.of(table).p_values(np.stack(seen, axis=1), ALPHA)
    inside: np.ndarray = p_values > ALPHA
    return inside


def _classifier(draw: Draw, rows: np.ndarray) -> np.ndarray:
    """Return class embeddings whose products with features are logits."""
    features, labels = torch.from_numpy(draw.features[rows]), torch.from_numpy(draw.labels[rows])
    data = TrainingSet(list(draw.names), features, labels, [draw.groups[row] for row in rows])
    texts = Texts(draw.written, draw.written)
    return fused_embeddings(texts, data, Recipe(), logit_scale=1.0).numpy()


def _rows(
    name: str, n_classes: int, noise: float, runs: Sequence[dict[int, tuple[float, float, float]]]
) -> Iterator[dict[str, Any]]:
    for folds in FOLDS:
        values = np.array([run[folds] for run in runs])
        coverage, size, single = values.mean(axis=0).tolist()
        yield {
            "set": name,
            "classes": n_classes,
            "noise": noise,
            "folds": folds,
            "coverage": coverage,
            "coverage_standard_error": float(values[:, 0].std(ddof=1) / np.sqrt(len(values))),
            "set_size": size,
            "single": single,
        }


def _print(found: Sequence[dict[str, Any]]) -> None:
    table = Table("Folds", "coverage", "classes in a set", "sets of one class")
    for folds in FOLDS:
        rows = [row for row in found if row["folds"] == folds]
        means = [np.mean([row[key] for row in rows]) for key in ("coverage", "set_size", "single")]
        table.add_row(str(folds), *(f"{value:.3f}" for value in means))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
