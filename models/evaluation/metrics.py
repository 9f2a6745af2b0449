"""What predictions are worth: accuracy with its uncertainty, per class and overall."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.evaluation.proportions import macro_accuracy, proportion
from models.evaluation.results import Basis, Evaluation

__all__ = ["evaluate", "expected_calibration_error", "macro_accuracy", "proportion"]


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


def expected_calibration_error(
    probabilities: Float[Tensor, "n n_classes"], labels: Int[Tensor, " n"], bins: int = 15
) -> float:
    """Return the mean distance of confidence from accuracy over bins of equal width."""
    confidence, predicted = probabilities.max(dim=1)
    right = (predicted == labels).to(confidence)
    index = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, index, right - confidence)
    return float(gap.abs().sum() / len(labels))
