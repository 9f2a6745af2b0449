"""Splits of labelled images that keep a group on one side and every class on both."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from models.recipe import Recipe
from models.training_set import TrainingSet

# scikit-learn takes seeds of 32 bits; torch, NumPy and Shotline's own interfaces take more.
_SKLEARN_SEEDS = 2**32


def draw_shots(
    labels: Sequence[int], groups: Sequence[str], shots: int, seed: int
) -> tuple[list[int], list[int]]:
    """Draw up to `shots` images of each class, and leave all groups that they belong to.

    Args:
        labels: class indices, one per image.
        groups: images of one group are never on both sides.
        shots: images per class; classes with fewer give what they have.
        seed: of the draw.

    Returns:
        The indices drawn, and those of the images whose group was not drawn from.
    """
    rng = np.random.default_rng(seed)
    drawn: list[int] = []
    label_array = np.asarray(labels)
    for label in np.unique(label_array):
        drawn.extend(rng.permutation(np.flatnonzero(label_array == label))[:shots].tolist())
    used = {groups[index] for index in drawn}
    left = [index for index, group in enumerate(groups) if group not in used]
    return sorted(drawn), left


def cross_validation_folds(
    labels: Sequence[int], groups: Sequence[str], folds: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Return (train, test) indices of a stratified, group-aware k-fold; each image is tested once.

    No more folds are made than the largest class has groups.
    """
    per_class = [
        len({group for group, other in zip(groups, labels, strict=True) if other == label})
        for label in set(labels)
    ]
    splitter = StratifiedGroupKFold(
        min(folds, max(per_class)), shuffle=True, random_state=seed % _SKLEARN_SEEDS
    )
    with warnings.catch_warnings():
        # A class with fewer images than folds is missing from some test folds, which is harmless.
        warnings.filterwarnings("ignore", message="The least populated class in y has only")
        pairs = list(splitter.split(np.zeros(len(labels)), labels, groups))
    return [(train.tolist(), test.tolist()) for train, test in pairs if len(test)]


def recipe_folds(data: TrainingSet, recipe: Recipe, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return the (train, test) indices of a training set's folds, as many as the recipe has."""
    labels: list[int] = data.labels.tolist()
    groups = data.groups or [str(index) for index in range(len(labels))]
    return cross_validation_folds(labels, groups, recipe.n_folds(data.n_classes, len(labels)), seed)
