"""Shares of counted images, with their uncertainty. No torch here: the gateway runs without it."""

from collections.abc import Sequence

import numpy as np

from models.evaluation.results import Proportion

_CONFIDENCE = 0.95


def proportion(right: int, total: int) -> Proportion:
    """Return `right / total` with its Jeffreys interval."""
    from scipy.special import betaincinv  # noqa: PLC0415 - a fifth of a second of a gateway's start

    tail = (1 - _CONFIDENCE) / 2
    low, high = betaincinv(right + 0.5, total - right + 0.5, [tail, 1 - tail])
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
