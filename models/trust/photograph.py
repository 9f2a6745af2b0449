"""What a photograph looks like before anything looks at its content: light, contrast, sharpness."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import UInt8

_SATURATED = 250  # grey levels from which on a pixel shows nothing any more


class PhotographStatistics(NamedTuple):
    """Four figures of the pixels that an image encoder sees.

    Attributes:
        luminance: the mean, 0 to 255.
        contrast: the standard deviation of the luminance, in grey levels.
        sharpness: the root mean square of the luminance's Laplacian, in grey levels.
        saturated: the share of pixels that are as good as white.
    """

    luminance: float
    contrast: float
    sharpness: float
    saturated: float


# Changes whenever the same pixels would give other figures.
STATISTICS_VERSION: Final = "photograph/1"


def photograph_statistics(pixels: UInt8[np.ndarray, "3 height width"]) -> PhotographStatistics:
    """Return the statistics of an image as `models.pixels.to_pixels` gives it."""
    # In place: a fresh array for each step would cost more than the step.
    luma, green, blue = pixels.astype(np.int16)
    luma += green
    luma += green
    luma += blue
    luma >>= 2
    mean = float(luma.sum(dtype=np.int32) / luma.size)  # exact below eight million pixels
    # One row after the other, which numpy adds faster; what wraps around at the sides is left out.
    (height, width), flat = luma.shape, luma.ravel()
    edges = flat[width:-width] * np.int16(-4)
    edges += flat[: -2 * width]
    edges += flat[2 * width :]
    edges[1:] += flat[width : -width - 1]
    edges[:-1] += flat[width + 1 : -width]
    edges = edges.reshape(height - 2, width)[:, 1:-1]
    return PhotographStatistics(
        luminance=mean,
        contrast=_spread(luma, mean),
        sharpness=_spread(edges, 0.0),
        saturated=float(np.count_nonzero(luma >= _SATURATED) / luma.size),
    )


def _spread(values: np.ndarray, centre: float) -> float:
    flat = values.astype(np.float32).ravel()
    return float(np.sqrt(max(0.0, float(flat @ flat) / flat.size - centre**2)))
