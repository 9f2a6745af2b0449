"""Rows of embeddings at a byte a number."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int8

_LARGEST = 127


class Quantised(NamedTuple):
    """Rows as int8, each with a scale of its own: `rows * scales[:, None]` is what they stand for.

    Whatever is calibrated on such rows is calibrated with their rounding.
    """

    rows: Int8[np.ndarray, "n dim"]
    scales: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "n dim"]) -> "Quantised":
        """Round each row to 255 steps between its extremes; a row of zeros stays one."""
        scales = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32) / np.float32(_LARGEST)
        steps = rows / np.where(scales > 0, scales, 1)[:, None]
        return cls(np.rint(steps).astype(np.int8), scales)

    def products(self, features: Float[np.ndarray, "b dim"]) -> Float[np.ndarray, "b n"]:
        """Return `features @ rows.T` with the rows that these stand for."""
        return products(features, self.rows, self.scales)


def products(
    features: Float[np.ndarray, "b dim"],
    rows: Int8[np.ndarray, "n dim"],
    scales: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "b n"]:
    """Return the products of features with quantised rows."""
    return (features @ rows.astype(np.float32).T) * scales
