"""Fits an inverse power law to errors measured with few images, and looks further along it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Errors of such classifiers fall with 1/sqrt(n) at the slowest and 1/n^1.5 at the fastest seen.
EXPONENTS = (0.5, 0.75, 1.0, 1.5)
# From a few small sizes a floor cannot be told from a slow fall: no more of the error than this at
# the largest size is taken for one. Without the bound gains came out half as large as they were on
# the development sets.
_MOST_FLOOR = 0.25


class Laws(NamedTuple):
    """`error = floor + scale * n ** -exponent`, one for each row of errors, `(rows,)` each."""

    floor: Float[np.ndarray, " rows"]
    scale: Float[np.ndarray, " rows"]
    exponent: Float[np.ndarray, " rows"]

    def at(self, images: float) -> Float[np.ndarray, " rows"]:
        """Return the error expected with so many images."""
        return np.clip(self.floor + self.scale * images**-self.exponent, 0.0, 1.0)


def fit(errors: Float[np.ndarray, "rows sizes"], images: Float[np.ndarray, " sizes"]) -> Laws:
    """Return for each row the law with a bounded floor and `scale >= 0` that fits best.

    By least squares, each size weighted by its images: the larger ones are nearer to what is asked
    about. More images never count as harmful.

    Args:
        errors: measured, of several rows.
        images: that they were measured with, the same for all rows.
    """
    weight = images / images.sum()
    best = np.full(len(errors), np.inf)
    found = np.zeros((3, len(errors)))
    for exponent in EXPONENTS:
        x = images**-exponent
        floor, scale = _line(errors, x, weight)
        left = ((errors - floor[:, None] - scale[:, None] * x) ** 2 * weight).sum(axis=1)
        better = left < best - 1e-15
        best[better] = left[better]
        found[:, better] = np.stack([floor, scale, np.full(len(errors), exponent)])[:, better]
    return Laws(*found)


def _line(
    errors: Float[np.ndarray, "rows sizes"],
    x: Float[np.ndarray, " sizes"],
    weight: Float[np.ndarray, " sizes"],
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Return intercept and slope of the weighted least squares within their bounds."""
    centre, mean = (weight * x).sum(), errors @ weight
    spread = (weight * (x - centre) ** 2).sum()
    slope = (errors - mean[:, None]) @ (weight * (x - centre)) / max(spread, 1e-12)
    most = _MOST_FLOOR * errors[:, -1]
    floor = np.clip(mean - np.maximum(slope, 0.0) * centre, 0.0, most)
    rest = (errors - floor[:, None]) @ (weight * x) / (weight * x * x).sum()
    return floor, np.maximum(rest, 0.0)
