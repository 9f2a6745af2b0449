"""Measures the errors that fewer images of a class lead to, by cross-validation.

With the classifier of `auto` on hand-written texts, which stands in for a whole tuning: no prompts
are tuned, and what is left is linear algebra on as many dimensions as there are images.
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
# Cross-validations: several where they are quick, which is up to so many dimensions.
_REPEATS, _QUICK = 3, 256


class Measured(NamedTuple):
    """What each image was taken for by classifiers of fewer images.

    Attributes:
        images: of a class in training, mean over the splits, `(n_classes, n_sizes)`.
        wrong: share of the splits that tested an image in which it was predicted wrong, by size,
            `(n_sizes, n)`; 0 where it was never tested.
        tested: whether an image was ever tested, `(n,)`.
    """

    images: Float[np.ndarray, "n_classes n_sizes"]
    wrong: Float[np.ndarray, "n_sizes n"]
    tested: Float[np.ndarray, " n"]


def measure(
    data: TrainingSet, written: Float[Tensor, "n_classes dim"], recipe: Recipe, seed: int
) -> Measured:
    """Take a share of each class's groups, and predict what was left out; for several shares.

    Args:
        data: the training images.
        written: text features of the hand-written prompts.
        recipe: its `prior_images` and `caution` count.
        seed: of the splits and the sub-samples.
    """
    n, n_classes = len(data.labels), data.n_classes
    names = data.groups or [str(index) for index in range(n)]
    groups = np.unique(np.asarray(names), return_inverse=True)[1]
    basis = basis_of(torch.cat([data.features, written]).double())
    x, said = data.features.double() @ basis, written.double() @ basis
    texts, dim = Texts(said, said), data.features.shape[1]
    rng = np.random.default_rng(seed)
    wrong, images = np.zeros((len(FRACTIONS), n)), np.zeros((n_classes, len(FRACTIONS)))
    tested, splits = np.zeros(n), 0
    for train, test in _splits(data, groups, basis.shape[1], seed):
        order = rng.permutation(groups.max() + 1)
        for size, fraction in enumerate(FRACTIONS):
            kept = _share(np.asarray(train), data.labels.numpy(), groups, order, fraction)
            counts = torch.bincount(data.labels[kept], minlength=n_classes).double()
            frame = Frame.of(x[kept], data.labels[kept], counts, recipe.prior_images, dim=dim)
            means = plain_means(x[kept], data.labels[kept], counts)
            made = embeddings_of_means(means, counts, frame, texts, recipe.caution)
            predicted = (x[test].float() @ made.T).argmax(dim=1)
            wrong[size, test] += (predicted != data.labels[test]).numpy()
            images[:, size] += counts.numpy()
        tested[test] += 1
        splits += 1
    return Measured(images / splits, wrong / np.maximum(tested, 1), np.minimum(tested, 1))


def _share(
    train: Int[np.ndarray, " n_train"],
    labels: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    order: Int[np.ndarray, " n_groups"],
    fraction: float,
) -> Int[np.ndarray, " kept"]:
    """Return the images of that share of each class's groups, the first ones in `order`."""
    place = np.argsort(order)
    kept = []
    for label in np.unique(labels[train]):
        own = train[labels[train] == label]
        ranked = np.sort(np.unique(place[groups[own]]))
        last = ranked[max(1, round(fraction * len(ranked))) - 1]
        kept.append(own[place[groups[own]] <= last])
    return np.concatenate(kept)


def basis_of(rows: Float[Tensor, "n dim"]) -> Float[Tensor, "dim width"]:
    """Return an orthonormal basis of what the rows span, which may be less than `dim`."""
    if rows.shape[0] >= rows.shape[1]:
        return torch.eye(rows.shape[1], dtype=rows.dtype)
    return torch.linalg.qr(rows.T)[0]


def _splits(
    data: TrainingSet, groups: Int[np.ndarray, " n"], width: int, seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (train, test) of several cross-validations, of one where there are many dimensions."""
    labels, names = data.labels.tolist(), [str(group) for group in groups]
    for repeat in range(_REPEATS if width <= _QUICK else 1):
        yield from cross_validation_folds(labels, names, _FOLDS, seed + repeat)
