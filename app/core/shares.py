"""Shares and means with their uncertainty, without torch: for what the gateway counts itself."""

import math
from typing import NamedTuple

_Z = 1.959964  # of the middle 95 %


class Share(NamedTuple):
    """A share, or a difference, with its 95 % interval."""

    value: float
    low: float
    high: float


def share(count: int, total: int) -> Share | None:
    """Return `count / total` with Wilson's interval; None of nothing."""
    if total == 0:
        return None
    value, z2 = count / total, _Z**2
    middle = (value + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(value * (1 - value) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Share(value, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)))


class Mean(NamedTuple):
    """The mean of values, their variance, and how many there are."""

    value: float
    variance: float
    number: int


def gap(ours: Mean, theirs: Mean) -> Share:
    """Return the difference of two means with its normal interval."""
    value = ours.value - theirs.value
    half = _Z * math.sqrt(ours.variance / ours.number + theirs.variance / theirs.number)
    return Share(value, value - half, value + half)
