"""What more images of each class would probably bring, and which class to photograph next."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
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
    """Measure learning curves on sub-samples of the images, and extrapolate them.

    The intervals are by bootstrap over the groups of each class: what is known is known from these
    images alone.

    Args:
        data: the training images, of two classes or more.
        written: text features of the hand-written prompts.
        recipe: of the tuning.
        names: of the classes, for the sentences.
        seed: of splits, sub-samples and bootstrap.
        more: how many images more are asked about.
    """
    counts, groups = data.counts().tolist(), _groups_of(data)
    told = [len(set(groups[data.labels.numpy() == label])) for label in range(data.n_classes)]
    curves: list[ClassCurve] = []
    measured = weights = None
    if max(told) >= LEAST_GROUPS:
        measured = measure(data, written, recipe, seed)
        weights = _weights(data, groups, measured, np.random.default_rng(seed))
    for label, name in enumerate(names):
        bare = ClassCurve(
            name=name, images=counts[label], groups=told[label],
            sentence=too_few_sentence(name, counts[label], told[label], LEAST_GROUPS),
        )  # fmt: skip
        if told[label] >= LEAST_GROUPS and measured is not None and weights is not None:
            bare = _class_curve(bare, label, data.labels, measured, weights, more)
        curves.append(bare)
    chosen = _next(curves)
    return LearningCurve(
        more=more,
        stand_in=STAND_IN,
        classes=curves,
        next_class=chosen,
        sentence=next_sentence(curves[chosen], more, LEAST_GROUPS),
    )


def _class_curve(
    bare: ClassCurve,
    label: int,
    labels: Tensor,
    measured: Measured,
    weights: Float[np.ndarray, "replicates n"],
    more: int,
) -> ClassCurve:
    """Return the curve of one class; row 0 of the weights is the sample as it is."""
    images, now = measured.images[label], float(bare.images)
    per_class = _errors(measured.wrong[label], labels.numpy(), weights)
    own, macro = fit(per_class[label], images), fit(per_class.mean(axis=0), images)
    curve = bare.model_copy(
        update={
            "points": [
                CurvePoint(images=round(float(n), 1), error=round(float(error), 4))
                for n, error in zip(images, per_class[label, 0], strict=True)
            ],
            "fit": PowerLaw(
                floor=float(own.floor[0]), scale=float(own.scale[0]), exponent=own.exponent[0]
            ),
            "accuracy_now": _estimate(1 - own.at(now)),
            "accuracy_then": _estimate(1 - own.at(now + more)),
            "gain": _estimate(_gain(own, now, more)),
            "macro_gain": _estimate(_gain(macro, now, more)),
        }
    )
    return curve.model_copy(update={"sentence": class_sentence(curve, more)})


def _gain(laws: Laws, now: float, more: int) -> Float[np.ndarray, " rows"]:
    return laws.at(now) - laws.at(now + more)


def _errors(
    wrong: Float[np.ndarray, "sizes n"],
    labels: np.ndarray,
    weights: Float[np.ndarray, "replicates n"],
) -> Float[np.ndarray, "n_classes replicates sizes"]:
    """Return the weighted error of each class, in each replicate, with each size."""
    errors = []
    for label in np.unique(labels):
        own = labels == label
        total = np.maximum(weights[:, own].sum(axis=1, keepdims=True), 1e-12)
        errors.append(weights[:, own] @ wrong[:, own].T / total)
    return np.stack(errors)


def _weights(
    data: TrainingSet,
    groups: np.ndarray,
    measured: Measured,
    rng: np.random.Generator,
) -> Float[np.ndarray, "replicates n"]:
    """Return how often each image counts: once, and then in each bootstrap over the groups."""
    labels, n = data.labels.numpy(), len(groups)
    weights = np.ones((1 + _REPLICATES, n))
    for label in np.unique(labels):
        own = np.flatnonzero((labels == label) & (measured.tested > 0))
        if not len(own):
            continue
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


def _groups_of(data: TrainingSet) -> np.ndarray:
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
