"""What predictions are worth: accuracy with its uncertainty, per class and overall."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import beta
from torch import Tensor

from models.evaluation.results import Basis, Evaluation, Proportion

_CONFIDENCE = 0.95


def evaluate(
    probabilities: Float[Tensor, "n n_classes"], labels: Int[Tensor, " n"], basis: Basis
) -> Evaluation:
    """Compare predicted probabilities with labels; every class must have at least one image."""
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(dim=1)
    cells = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    confusion = cells.view(n_classes, n_classes)
    right = confusion.diagonal().tolist()
    totals = confusion.sum(dim=1).tolist()
    return Evaluation(
        basis=basis,
        n_images=len(labels),
        top1=proportion(sum(right), sum(totals)),
        macro=macro_accuracy(right, totals),
        per_class=[proportion(r, n) for r, n in zip(right, totals, strict=True)],
        confusion=confusion.tolist(),
        ece=expected_calibration_error(probabilities, labels),
    )


def proportion(right: int, total: int) -> Proportion:
    """Return `right / total` with its Jeffreys interval."""
    tail = (1 - _CONFIDENCE) / 2
    low, high = beta.ppf([tail, 1 - tail], right + 0.5, total - right + 0.5)
    return Proportion(
        value=right / total,
        low=0.0 if right == 0 else float(low),
        high=1.0 if right == total else float(high),
    )


def macro_accuracy(right: Sequence[int], totals: Sequence[int]) -> Proportion:
    """Return the mean of the classes' accuracies.

    Its interval joins the classes' own by their squared distances from the estimate (MOVER: Zou and
    Donner 2008), so that it lies around the value however few images there are.
    """
    classes = [proportion(r, n) for r, n in zip(right, totals, strict=True)]
    value = float(np.mean([share.value for share in classes]))
    below = np.linalg.norm([share.value - share.low for share in classes]) / len(classes)
    above = np.linalg.norm([share.high - share.value for share in classes]) / len(classes)
    return Proportion(
        value=value, low=max(0.0, value - float(below)), high=min(1.0, value + float(above))
    )


def expected_calibration_error(
    probabilities: Float[Tensor, "n n_classes"], labels: Int[Tensor, " n"], bins: int = 15
) -> float:
    """Return the mean distance of confidence from accuracy over bins of equal width."""
    confidence, predicted = probabilities.max(dim=1)
    right = (predicted == labels).to(confidence)
    index = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, index, right - confidence)
    return float(gap.abs().sum() / len(labels))
