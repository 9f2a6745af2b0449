"""Two classifiers on the same images: the difference of their macro accuracies."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from models.evaluation.contest import Difference

RESAMPLES = 2000
_PORTION = 200
_TAIL = 2.5


def paired_difference(
    ours: Bool[np.ndarray, " n"],
    theirs: Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    groups: Sequence[str],
    seed: int,
) -> Difference:
    """Return our macro accuracy less theirs, with the bootstrap's middle 95 %.

    Groups are drawn again and not images, which are not independent within one; within the class of
    a group's first image, so that no class is missing. Both are looked at on the same draw.

    Args:
        ours: whether we have each image right.
        theirs: whether they do.
        labels: class indices.
        groups: of each image.
        seed: of the draws.
    """
    n_classes = int(labels.max()) + 1
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((3, len(names), n_classes))
    for place, each in enumerate((ours, theirs, np.ones(len(labels)))):
        np.add.at(counts[place], (index, labels), each)
    strata = labels[np.unique(index, return_index=True)[1]]
    rng = np.random.default_rng(seed)
    drawn = [
        _differences(_weights(strata, min(_PORTION, RESAMPLES - start), rng), counts)
        for start in range(0, RESAMPLES, _PORTION)
    ]
    low, high = np.percentile(np.concatenate(drawn), [_TAIL, 100 - _TAIL])
    value = float(_differences(np.ones((1, len(names))), counts)[0])
    return Difference(value=value, low=min(value, float(low)), high=max(value, float(high)))


def _weights(
    strata: Int[np.ndarray, " groups"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draws groups"]:
    """Say how often each group is in each draw."""
    weights = np.empty((draws, len(strata)))
    for label in np.unique(strata):
        places = np.flatnonzero(strata == label)
        share = np.full(len(places), 1 / len(places))
        weights[:, places] = rng.multinomial(len(places), share, size=draws)
    return weights


def _differences(
    weights: Float[np.ndarray, "draws groups"], counts: Float[np.ndarray, "3 groups n_classes"]
) -> Float[np.ndarray, " draws"]:
    """Return the difference of macro accuracies, over the classes that a draw has."""
    ours, theirs, totals = (weights @ each for each in counts)
    there = totals > 0
    gap = np.divide(ours - theirs, totals, out=np.zeros_like(totals), where=there)
    found: Float[np.ndarray, " draws"] = gap.sum(axis=1) / there.sum(axis=1)
    return found
