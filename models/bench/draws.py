"""Which images a cell trains on and which it is tested on.

Everything follows from the seed, and the draws of one seed are nested: fewer shots, or a smaller
tau, take a part of the same images.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.bench.data import BenchSet
from models.errors import BadDataset

# So many of a class's parts, at least one, always stay to be tested on: one in five.
_RESERVE = 5
_MAX_VALIDATION = 4


@dataclass(frozen=True)
class Draw:
    """Indices of images, rising.

    Attributes:
        train: drawn first.
        validation: drawn next and set aside.
        test: all others, without those that show a part that was drawn.
    """

    train: list[int]
    validation: list[int]
    test: list[int]


def class_counts(n_classes: int, n_max: int, tau: float, seed: int) -> list[int]:
    """Return how many images of each class are trained on.

    `n_i = max(1, int(n_max * tau^(i/(K-1))))` for the ranks i = 0…K-1, which a permutation drawn
    from the seed hands out.
    """
    ranks = np.random.default_rng([seed, 1]).permutation(n_classes)
    # What should be a whole number must not fall below it by rounding.
    return [
        max(1, int(n_max * tau ** (int(rank) / max(1, n_classes - 1)) + 1e-9)) for rank in ranks
    ]


def draw(data: BenchSet, wanted: Sequence[int], shots: int, seed: int) -> Draw:
    """Draw `wanted[c]` images of each class for training, then `min(shots, 4)` for validation.

    Images of one group are never on both sides, and a class gives fewer where the rest would not
    leave a fifth of its groups, at least one, for the test. A split that came with the images is
    kept: training images are drawn from its training side, and no others are set aside.

    Raises:
        BadDataset: a class that has no image to train on, or none to test on.
    """
    order = _orders(data, seed)
    if data.split_given:
        return _draw_given(data, order, wanted)
    drawing = _Drawing(data)
    train = [drawing.take(order[label], count) for label, count in enumerate(wanted)]
    for label, count in enumerate(wanted):
        if count and not train[label]:
            raise _too_few(data, label)
    validation = [
        drawing.take(order[label], min(shots, _MAX_VALIDATION) if count else 0, side="validation")
        for label, count in enumerate(wanted)
    ]
    test = [index for index, group in enumerate(data.groups) if group not in drawing.side]
    return Draw(_sorted(train), _sorted(validation), test)


def _orders(data: BenchSet, seed: int) -> list[list[int]]:
    """Return the images of each class, in a drawn order."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(data.labels)
    return [
        rng.permutation(np.flatnonzero(labels == label)).tolist()
        for label in range(len(data.dataset.classes))
    ]


def _draw_given(data: BenchSet, order: list[list[int]], wanted: Sequence[int]) -> Draw:
    splits = [image.split for image in data.dataset.images]
    train = [
        [index for index in order[label] if splits[index] == "train"][:count]
        for label, count in enumerate(wanted)
    ]
    return Draw(_sorted(train), [], [i for i, split in enumerate(splits) if split == "holdout"])


class _Drawing:
    """Keeps account of the groups that were drawn, and of those that have to stay."""

    def __init__(self, data: BenchSet) -> None:
        self.side: dict[str, Literal["train", "validation"]] = {}
        self._groups = data.groups
        pairs = set(zip(data.groups, data.labels, strict=True))
        self._free = Counter(label for _, label in pairs)
        self._reserve = {label: max(1, n // _RESERVE) for label, n in self._free.items()}
        self._classes: dict[str, list[int]] = {}
        for group, label in sorted(pairs):
            self._classes.setdefault(group, []).append(label)

    def take(
        self, order: Sequence[int], count: int, side: Literal["train", "validation"] = "train"
    ) -> list[int]:
        """Return up to `count` images that may go to `side`, in order."""
        taken: list[int] = []
        for index in order:
            if len(taken) == count:
                break
            if self._claim(self._groups[index], side):
                taken.append(index)
        return taken

    def _claim(self, group: str, side: Literal["train", "validation"]) -> bool:
        if group in self.side:
            return side == "train" and self.side[group] == side
        shown = self._classes[group]
        if any(self._free[label] <= self._reserve[label] for label in shown):
            return False
        self.side[group] = side
        self._free.subtract(shown)
        return True


def _too_few(data: BenchSet, label: int) -> BadDataset:
    name = data.dataset.classes[label].name
    count = data.labels.count(label)
    parts = len({g for g, other in zip(data.groups, data.labels, strict=True) if other == label})
    return BadDataset(
        f"{data.name}: the class {name!r} has {count} image(s) of {parts} part(s); one to train on"
        " and another to test on are needed.",
        fix=f"Add photographs of {name!r}, or remove the class.",
        field=name,
    )


def _sorted(drawn: Sequence[Sequence[int]]) -> list[int]:
    return sorted(index for indices in drawn for index in indices)
