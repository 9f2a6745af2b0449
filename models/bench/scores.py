"""How good logits are on labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.evaluation.metrics import expected_calibration_error

# A class with at most so many training images belongs to the tail.
TAIL_IMAGES = 3


@dataclass(frozen=True)
class Scores:
    """See `CellResult`; `tail_macro` is `None` where no class is in the tail."""

    top1: float
    macro: float
    tail_macro: float | None
    worst_class: float
    ece: float


def score(
    logits: Float[Tensor, "n n_classes"], labels: Int[Tensor, " n"], train_counts: Sequence[int]
) -> Scores:
    """Compare logits with labels.

    Args:
        logits: of at least one image; classes without an image count in no mean.
        labels: class indices.
        train_counts: training images of each class; empty where none of these classes was learnt.
    """
    n_classes = logits.shape[1]
    right = logits.argmax(dim=1) == labels
    totals = torch.bincount(labels, minlength=n_classes)
    hits = torch.bincount(labels[right], minlength=n_classes)
    accuracy = {
        label: int(hits[label]) / int(totals[label]) for label in range(n_classes) if totals[label]
    }
    tail = [a for c, a in accuracy.items() if train_counts and train_counts[c] <= TAIL_IMAGES]
    return Scores(
        top1=int(right.sum()) / len(labels),
        macro=_mean(list(accuracy.values())),
        tail_macro=_mean(tail) if tail else None,
        worst_class=min(accuracy.values()),
        ece=expected_calibration_error(torch.softmax(logits.float(), dim=1), labels),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
