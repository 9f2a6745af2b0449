"""Probabilities that mean what they say: one temperature, and how far off they are. No torch."""

from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar

from models.trust.evidence import log_sum, softmax
from models.trust.metrics import Calibration, ReliabilityBin

# Beyond these a temperature says that the logits are of no use, or that there are too few images.
_LOWEST, _HIGHEST = 1 / 16, 16.0
_ECE_BINS: Final = 15
_PLOT_BINS: Final = 10


def fit_temperature(
    logits: Float[np.ndarray, "n n_classes"],
    labels: Int[np.ndarray, " n"],
    *,
    balanced: bool = True,
) -> float:
    """Return the temperature under which the images' own classes are most probable.

    Args:
        logits: of images that the models which gave them have not seen.
        labels: their classes.
        balanced: every class has the same weight, whatever its number of images.
    """
    counts = np.bincount(labels, minlength=logits.shape[1])
    weights = 1.0 / counts[labels] if balanced else np.ones(len(labels))
    rows = np.arange(len(labels))

    def unlikely(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float((weights * (log_sum(scaled) - scaled[rows, labels])).sum() / weights.sum())

    found = minimize_scalar(unlikely, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def calibration(
    probabilities: Float[np.ndarray, "n n_classes"], labels: Int[np.ndarray, " n"]
) -> Calibration:
    """Compare the probability of the most probable class with how often it is right."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return Calibration(ece=_error(confidence, right), bins=_bins(confidence, right))


def calibrated(
    logits: Float[np.ndarray, "n n_classes"], temperature: float
) -> Float[np.ndarray, "n n_classes"]:
    """Return probabilities."""
    return softmax(logits / temperature)


def _error(confidence: np.ndarray, right: np.ndarray) -> float:
    place = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=_ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[ReliabilityBin]:
    place = np.minimum((confidence * _PLOT_BINS).astype(int), _PLOT_BINS - 1)
    bins = []
    for index in range(_PLOT_BINS):
        own = place == index
        count = int(own.sum())
        bins.append(
            ReliabilityBin(
                low=index / _PLOT_BINS,
                high=(index + 1) / _PLOT_BINS,
                count=count,
                confidence=float(confidence[own].mean()) if count else 0.0,
                accuracy=float(right[own].mean()) if count else 0.0,
            )
        )
    return bins
