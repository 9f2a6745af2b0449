"""Class-conditional prediction sets by cross-validation (CV+).

The score of image `x` for class `y` is `s(x, y) = -log p(y | x)`: the larger, the less `y` fits
(Sadinle, Lei, Wasserman 2019: with it sets are as small as they can be). Each training image is
scored by the model of the fold that did not see it. A new image could be of class `y` unless nearly
all calibration images of that class fit better:

    p_y(x) = (1 + #{i of class y: s_i >= s_k(i)(x, y)}) / (n_y + 1),   in the set iff p_y(x) > alpha

with `k(i)` the fold of image `i`: both sides of a comparison come from one model that saw neither
(Vovk 2015; Barber et al. 2021, section 3).

The guarantee, in finite samples, for an image that is exchangeable with the calibration images of
its class: the set holds the true class with a probability of at least `1 - 2·alpha`, less a term
that vanishes as images become many (CV+, at most `sqrt(2/n)`); with a single fold held out, that is
split conformal prediction, at least `1 - alpha`. What is observed is close to `1 - alpha`. It is an
average over draws of the calibration images and over images of the class, not a promise for each
image, and it ends where the line's images are not like the labelled ones any more.

Images of one part are not exchangeable with each other: a group of images is scored once. A class
with fewer than `1/alpha - 1` groups cannot reject anything by itself, and is compared with the
scores of all classes; the guarantee then holds over all classes together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from models.trust.evidence import log_sum


class Scores(NamedTuple):
    """Calibration scores, one for each group of images of a class (or of a role).

    Attributes:
        values: the scores, class after class.
        places: of each, `fold * n_classes + class`: whose model gave it, and for what. In as few
            bytes as they go into: thousands of models have theirs in memory.
        n_classes: how many classes there are.
    """

    values: Float[np.ndarray, " n"]
    places: UInt[np.ndarray, " n"]
    n_classes: int

    @classmethod
    def of(cls, table: Sequence[Sequence[Sequence[float]]]) -> "Scores":
        """Return the scores of `table[class][fold]`."""
        rows = [
            (value, fold * len(table) + index)
            for index, folds in enumerate(table)
            for fold, values in enumerate(folds)
            for value in values
        ]
        values, places = zip(*rows, strict=True) if rows else ((), ())
        smallest = np.min_scalar_type(max(places, default=0))
        return cls(np.array(values, dtype=np.float32), np.array(places, dtype=smallest), len(table))

    @property
    def counts(self) -> Int[np.ndarray, " n_classes"]:
        """How many scores each class has."""
        return np.bincount(self.places % self.n_classes, minlength=self.n_classes)

    def chosen(self, these: Bool[np.ndarray, " n"]) -> "Scores":
        """Return some of them."""
        return Scores(self.values[these], self.places[these], self.n_classes)

    def p_values(
        self, seen: Float[np.ndarray, "*n folds n_classes"], alpha: float = 1.0
    ) -> Float[np.ndarray, "*n n_classes"]:
        """Return the p-value of each class for an image, or for several.

        Args:
            seen: the image's score for each class by each fold's model.
            alpha: classes that could reach no p-value as low are compared with all scores.
        """
        seen, counts = seen.astype(np.float32), self.counts
        above = self.values >= seen.reshape(*seen.shape[:-2], -1)[..., self.places]
        found = (1 + _per_class(above, counts)) / (counts + 1)
        few = too_few(counts, alpha)
        if few.any():
            found[..., few] = (1 + self._above(seen[..., few])) / (len(self.values) + 1)
        return found

    def _above(self, seen: Float[np.ndarray, "*n folds m"]) -> Float[np.ndarray, "*n m"]:
        """Count the scores of all classes that are at least as high as those `seen`."""
        total = np.zeros((*seen.shape[:-2], seen.shape[-1]))
        for fold in range(seen.shape[-2]):
            values = np.sort(self.values[self.places // self.n_classes == fold])
            total += len(values) - np.searchsorted(values, seen[..., fold, :], side="left")
        return total


def _per_class(
    values: Bool[np.ndarray, "*n n_scores"], counts: np.ndarray
) -> Int[np.ndarray, "*n n_classes"]:
    """Count those that are true of each class; scores stand class after class."""
    passed = np.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=np.int64)
    np.cumsum(values, axis=-1, out=passed[..., 1:])
    ends = np.cumsum(counts)
    counted: np.ndarray = passed[..., ends] - passed[..., ends - counts]
    return counted


def too_few(counts: np.ndarray, alpha: float) -> Bool[np.ndarray, " n"]:
    """Say of which classes the smallest p-value, `1 / (n + 1)`, is above `alpha`."""
    return np.asarray(1 / (counts + 1) > alpha)


def class_scores(logits: Float[np.ndarray, "*n n_classes"]) -> Float[np.ndarray, "*n n_classes"]:
    """Return `-log p(y | x)` of each class, by the model's own probabilities.

    Without the temperature, which was fit to the calibration images' labels: scores of images with
    and without a label must be made alike.
    """
    return log_sum(logits)[..., None] - logits


def role_scores(
    logits: Float[np.ndarray, "*n n_classes"], members: Bool[np.ndarray, "n_roles n_classes"]
) -> Float[np.ndarray, "*n n_roles"]:
    """Return `-log` of each role's probability: that of all of its classes together.

    Infinite for a role without classes.
    """
    there = members.any(axis=-1)
    of_role = np.where(members[there], logits[..., None, :], -np.inf)
    found = np.full((*logits.shape[:-1], len(members)), np.inf, dtype=logits.dtype)
    found[..., there] = log_sum(logits)[..., None] - log_sum(of_role)
    return found


def one_per_group(
    labels: Sequence[int], groups: Sequence[str], digests: Sequence[str]
) -> list[int]:
    """Return the indices of one image of each group within each class, in order.

    The one with the smallest digest of its bytes: a choice that does not depend on what the image
    shows, nor on the order in which images came.
    """
    best: dict[tuple[int, str], int] = {}
    for index, key in enumerate(zip(labels, groups, strict=True)):
        if key not in best or digests[index] < digests[best[key]]:
            best[key] = index
    return sorted(best.values())
