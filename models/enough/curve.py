"""What more images of each class would probably bring, and which class to photograph next."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from models.enough.fit import Laws, fit
from models.enough.measure import Measured, measure
from models.enough.sentences import class_sentence, next_sentence, too_few_sentence
from models.learning_curve import ClassCurve, CurvePoint, Estimate, LearningCurve, PowerLaw
from models.recipe import Recipe
from models.training_set import TrainingSet

MORE = 10
# With fewer groups there are no sub-samples worth the name.
LEAST_GROUPS = 5
_REPLICATES = 200
_TAIL = 0.05
# A class's error leans on the mean of all classes as if it had so many images more of them.
_PSEUDO_IMAGES = 2.0
# What the draw of the images leaves to chance, in standard deviations of a share of n images. With
# it 91 % of the gains measured on the development sets lie in the intervals (docs/search.md).
_CHANCE = 0.6
STAND_IN = (
    "the posterior classifier on hand-written texts, without tuned prompts; measured by"
    " cross-validation on sub-samples of the training images"
)


def learning_curve(
    data: TrainingSet,
    written: Float[Tensor, "n_classes dim"],
    recipe: Recipe,
    names: Sequence[str],
    *,
    seed: int,
    more: int = MORE,
) -> LearningCurve:
    """Measure a learning curve on sub-samples of the images, and extrapolate it for each class.

    One class has too few images to show the shape of its curve: the shape is fitted to the mean of
    all classes' errors, and each class has its own height on it. The intervals are by bootstrap
    over the groups of each class, widened by what a draw of so many images leaves to chance.

    Args:
        data: the training images, of two classes or more.
        written: text features of the hand-written prompts.
        recipe: of the tuning.
        names: of the classes, for the sentences.
        seed: of splits, sub-samples and bootstrap.
        more: how many images more of each class are asked about.
    """
    counts, groups = data.counts().tolist(), _groups_of(data)
    parts = [len(set(groups[data.labels.numpy() == label])) for label in range(data.n_classes)]
    curves = [
        ClassCurve(
            name=name,
            images=count,
            groups=part,
            sentence=too_few_sentence(name, count, part, LEAST_GROUPS),
        )
        for name, count, part in zip(names, counts, parts, strict=True)
    ]
    told = [label for label, part in enumerate(parts) if part >= LEAST_GROUPS]
    if told:
        rng = np.random.default_rng(seed)
        measured = measure(data, written, recipe, seed)
        errors = _errors(measured, data.labels.numpy(), _weights(data, groups, measured, rng))
        whole = float(np.mean([counts[label] for label in told]))
        shape = _Shape.of(errors[told], measured.images[told], whole)
        for label in told:
            law = shape.of_class(errors[label], counts[label])
            bare = curves[label].model_copy(
                update={"points": _points(measured.images[label], errors[label, 0])}
            )
            curves[label] = _told(bare, law, more, data.n_classes, rng)
    chosen = _next(curves)
    return LearningCurve(
        more=more,
        stand_in=STAND_IN,
        classes=curves,
        next_class=chosen,
        sentence=next_sentence(curves[chosen], more, LEAST_GROUPS),
    )


class _Shape(NamedTuple):
    """How the mean of the classes' errors falls, in each replicate; row 0 is the sample as it is.

    Attributes:
        errors: the mean errors.
        images: mean images of a class, by size.
        whole: mean images of a class where none is left out.
        laws: fitted to these.
    """

    errors: Float[np.ndarray, "replicates sizes"]
    images: Float[np.ndarray, " sizes"]
    whole: float
    laws: Laws

    @classmethod
    def of(
        cls,
        errors: Float[np.ndarray, "classes replicates sizes"],
        images: Float[np.ndarray, "classes sizes"],
        whole: float,
    ) -> "_Shape":
        """Fit it to the errors of several classes."""
        mean, sizes = errors.mean(axis=0), images.mean(axis=0)
        return cls(mean, sizes, whole, fit(mean, sizes))

    def of_class(self, errors: Float[np.ndarray, "replicates sizes"], count: int) -> Laws:
        """Return the laws of a class that has so many images: this shape, at a height of its own.

        What the mean class is at `whole` images, this one is at `count`.
        """
        weight = self.images / self.images.sum()
        own, mean = errors @ weight, np.maximum(self.errors @ weight, 1e-9)
        height = (count * own / mean + _PSEUDO_IMAGES) / (count + _PSEUDO_IMAGES)
        stretch = (count / self.whole) ** self.laws.exponent
        return Laws(
            height * self.laws.floor, height * self.laws.scale * stretch, self.laws.exponent
        )


def _told(
    bare: ClassCurve, laws: Laws, more: int, n_classes: int, rng: np.random.Generator
) -> ClassCurve:
    """Return the curve of a class with what more images would bring."""
    now, then = laws.at(float(bare.images)), laws.at(float(bare.images + more))
    chance = _CHANCE * np.sqrt(now * (1 - now) / bare.images) * rng.normal(size=len(now))
    chance[0] = 0.0
    gain = now - then + chance
    curve = bare.model_copy(
        update={
            "fit": PowerLaw(
                floor=float(laws.floor[0]),
                scale=float(laws.scale[0]),
                exponent=float(laws.exponent[0]),
            ),
            "accuracy_now": _estimate(1 - now),
            "accuracy_then": _estimate(np.clip(1 - now + gain, 0.0, 1.0)),
            "gain": _estimate(gain),
            "macro_gain": _estimate(gain / n_classes),
        }
    )
    return curve.model_copy(update={"sentence": class_sentence(curve, more)})


def _points(
    images: Float[np.ndarray, " sizes"], errors: Float[np.ndarray, " sizes"]
) -> list[CurvePoint]:
    return [
        CurvePoint(images=round(float(count), 1), error=round(float(error), 4))
        for count, error in zip(images, errors, strict=True)
    ]


def _errors(
    measured: Measured, labels: Int[np.ndarray, " n"], weights: Float[np.ndarray, "replicates n"]
) -> Float[np.ndarray, "n_classes replicates sizes"]:
    """Return the weighted error of each class, in each replicate, with each size."""
    errors = []
    for label in range(len(measured.images)):
        own = labels == label
        total = np.maximum(weights[:, own].sum(axis=1, keepdims=True), 1e-12)
        errors.append(weights[:, own] @ measured.wrong[:, own].T / total)
    return np.stack(errors)


def _weights(
    data: TrainingSet,
    groups: Int[np.ndarray, " n"],
    measured: Measured,
    rng: np.random.Generator,
) -> Float[np.ndarray, "replicates n"]:
    """Return how often each image counts: once, and then in each bootstrap over the groups."""
    labels, n = data.labels.numpy(), len(groups)
    weights = np.ones((1 + _REPLICATES, n))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        members = np.unique(groups[own], return_inverse=True)[1]
        count = int(members.max()) + 1
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=_REPLICATES)
        weights[1:, own] = drawn[:, members]
    return weights * (measured.tested > 0)


def _estimate(values: Float[np.ndarray, " rows"]) -> Estimate:
    """Return row 0, the sample as it is, with the interval of all others."""
    low, high = np.quantile(values[1:], [_TAIL, 1 - _TAIL])
    value = float(values[0])
    return Estimate(
        value=round(value, 5),
        low=round(min(value, float(low)), 5),
        high=round(max(value, float(high)), 5),
    )


def _groups_of(data: TrainingSet) -> Int[np.ndarray, " n"]:
    names = data.groups or [str(index) for index in range(len(data.labels))]
    return np.unique(np.asarray(names), return_inverse=True)[1]


def _next(curves: Sequence[ClassCurve]) -> int:
    """Return the class to photograph next.

    One of which nothing can be said, where there is one, of those the smallest; else the one whose
    images would add most to the mean of all classes' accuracies, of equals the smallest.
    """
    indices = range(len(curves))
    unknown = [index for index in indices if curves[index].macro_gain is None]
    if unknown:
        return min(unknown, key=lambda index: (curves[index].groups, curves[index].images))

    def rank(index: int) -> tuple[float, int]:
        gain = curves[index].macro_gain
        return (-round(gain.value, 4) if gain else 0.0, curves[index].images)

    return min(indices, key=rank)
