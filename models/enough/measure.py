"""Measures the errors that fewer images of a class lead to, by cross-validation.

With the classifier of `auto` on hand-written texts, which stands in for a whole tuning: no prompts
are tuned, and the scatter within classes is estimated from all images, once per split. What is left
is a product of small matrices for each class and size.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.evaluation.splits import cross_validation_folds
from models.fusion import Frame, Texts, embeddings_of_means, plain_means
from models.recipe import Recipe
from models.training_set import TrainingSet

# Of the groups of a class that a split has for training.
FRACTIONS = (0.25, 0.4, 0.63, 1.0)
_FOLDS = 5
# About so many classifiers are made in all, and so many splits at least and at most.
_CLASSIFIERS, _LEAST_SPLITS, _MOST_SPLITS = 450, _FOLDS, 3 * _FOLDS


class Measured(NamedTuple):
    """What each image was taken for, with so many images of each class.

    Attributes:
        images: of a class in training, mean over the splits, `(n_classes, n_sizes)`.
        wrong: share of the splits that tested an image in which it was predicted wrong, with so
            many images of that class, `(n_classes, n_sizes, n)`; 0 where it was never tested.
        tested: whether an image was ever tested, `(n,)`.
    """

    images: Float[np.ndarray, "n_classes n_sizes"]
    wrong: Float[np.ndarray, "n_classes n_sizes n"]
    tested: Float[np.ndarray, " n"]


class _Sizes(NamedTuple):
    """The training images of a split, and their groups in a random order of their own."""

    x: Float[Tensor, "n width"]
    labels: Int[Tensor, " n"]
    groups: Int[np.ndarray, " n"]
    order: Int[np.ndarray, " n_groups"]

    def smaller(self, label: int, fraction: float) -> Int[np.ndarray, " m"]:
        """Return the places of a class's images that are left with that share of its groups."""
        own = np.flatnonzero(self.labels.numpy() == label)
        groups = self.order[np.isin(self.order, self.groups[own])]
        kept = groups[: max(1, round(fraction * len(groups)))]
        return own[np.isin(self.groups[own], kept)]


def measure(
    data: TrainingSet, written: Float[Tensor, "n_classes dim"], recipe: Recipe, seed: int
) -> Measured:
    """Sub-sample each class by itself, the others as they are, and predict what was left out.

    Args:
        data: the training images.
        written: text features of the hand-written prompts.
        recipe: its `prior_images` and `caution` count.
        seed: of the splits and the sub-samples.
    """
    n, n_classes = len(data.labels), data.n_classes
    names = data.groups or [str(index) for index in range(n)]
    groups = np.unique(np.asarray(names), return_inverse=True)[1]
    x, texts = _in_basis(data.features.double(), written.double())
    rng = np.random.default_rng(seed)
    wrong = np.zeros((n_classes, len(FRACTIONS), n))
    images, tested, splits = np.zeros((n_classes, len(FRACTIONS))), np.zeros(n), 0
    for train, test in _splits(data, groups, seed):
        order = rng.permutation(np.unique(groups[train]))
        sizes = _Sizes(x[train], data.labels[train], groups[train], order)
        dim = data.features.shape[1]
        for label, size, count, embeddings in _classifiers(sizes, texts, recipe, dim):
            predicted = (x[test].float() @ embeddings.T).argmax(dim=1)
            wrong[label, size, test] += (predicted != data.labels[test]).numpy()
            images[label, size] += count
        tested[test] += 1
        splits += 1
    return Measured(images / splits, wrong / np.maximum(tested, 1), np.minimum(tested, 1))


def _classifiers(
    sizes: _Sizes, texts: Texts, recipe: Recipe, dim: int
) -> Iterator[tuple[int, int, float, Float[Tensor, "n_classes width"]]]:
    """Yield class, size, images of the class, and the classifier made with no more of it."""
    n_classes = texts.written.shape[0]
    counts = torch.bincount(sizes.labels, minlength=n_classes).double()
    frame = Frame.of(sizes.x, sizes.labels, counts, recipe.prior_images, dim=dim)
    means = plain_means(sizes.x, sizes.labels, counts)
    whole = embeddings_of_means(means, counts, frame, texts, recipe.caution)
    for label in range(n_classes):
        for size, fraction in enumerate(FRACTIONS):
            left = sizes.smaller(label, fraction)
            if len(left) == counts[label]:  # also where there are none
                yield label, size, float(counts[label]), whole
                continue
            fewer, shorter = counts.clone(), means.clone()
            fewer[label], shorter[label] = len(left), sizes.x[left].mean(dim=0)
            made = embeddings_of_means(shorter, fewer, frame, texts, recipe.caution)
            yield label, size, len(left), made


def _in_basis(
    features: Float[Tensor, "n dim"], written: Float[Tensor, "n_classes dim"]
) -> tuple[Float[Tensor, "n width"], Texts]:
    """Return features and texts in a basis of what they span, where that is less than `dim`."""
    rows = torch.cat([features, written])
    if rows.shape[0] < rows.shape[1]:
        basis, _ = torch.linalg.qr(rows.T)
        features, written = features @ basis, written @ basis
    return features, Texts(written, written)


def _splits(
    data: TrainingSet, groups: Int[np.ndarray, " n"], seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (train, test) of several cross-validations, fewer with many classes."""
    per_split = data.n_classes * (len(FRACTIONS) - 1)
    wanted = min(max(_CLASSIFIERS // per_split, _LEAST_SPLITS), _MOST_SPLITS)
    labels, names = data.labels.tolist(), [str(group) for group in groups]
    while wanted > 0:
        for pair in cross_validation_folds(labels, names, _FOLDS, seed)[:wanted]:
            yield pair
            wanted -= 1
        seed += 1
