"""Images unlike all that a model was tuned on: they are of no class, however sure the softmax is.

Three measures, each with a limit of its own from the training images' out-of-fold values:

- the distance `1 - cosine` to the nearest class mean in image space;
- the free energy of the logits (Liu et al. 2020), by the folds' models;
- of the photograph, the distance to the nearest training photograph in light, contrast, sharpness
  and saturation: a class that is always dark does not let a bright one pass for dark.

An image is refused where any of them is above its limit, which happens to about `LEVEL` of the good
images for each.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from models.trust.evidence import Evidence, log_sum
from models.trust.photograph import PhotographStatistics
from models.trust.reasons import Reason
from models.trust.rule import Limit, OutlierRule, Scales

LEVEL: Final = 0.02
# Fewer images than that say nothing of what is usual.
FEWEST: Final = 6
# Smaller differences are none: grey levels, halvings of contrast and sharpness, a share.
_LEAST_SCALES = np.array([4.0, 0.1, 0.1, 0.02])
_LEAST_DISTANCE, _LEAST_ENERGY, _LEAST_PHOTOGRAPH = 0.02, 1.0, 1.0
_LEAST_SPREAD = 0.05  # of energies
_TO_DEVIATION = 1.4826  # from a median absolute deviation, of a normal distribution


class Outliers(NamedTuple):
    """An `OutlierRule` in memory, with the training photographs' statistics at two bytes each.

    Attributes:
        rule: the limits.
        photographs: scaled, `(n, 4)`.
    """

    rule: OutlierRule
    photographs: Float[np.ndarray, "n 4"]

    def unlike(self, evidence: Evidence, photograph: PhotographStatistics | None) -> Reason | None:
        """Return why the image is not one to decide on; None where it may be.

        A photograph that is wrong is named first: someone can put that right.
        """
        if photograph is not None and (reason := self._photograph(photograph)):
            return reason
        if evidence.fold_logits is None or evidence.nearest is None:
            return None
        rule = self.rule
        far = excess(1 - evidence.nearest, rule.distance) > 1
        energy = mean_energy(evidence.fold_logits, rule)
        return "unlike_training_images" if far or excess(energy, rule.energy) > 1 else None

    def strangeness(self, evidence: Evidence, photograph: PhotographStatistics) -> float:
        """Return the largest of the three measures, each in multiples of its limit."""
        rule = self.rule
        assert evidence.fold_logits is not None and evidence.nearest is not None  # noqa: PT018, S101
        return max(
            excess(1 - evidence.nearest, rule.distance),
            excess(mean_energy(evidence.fold_logits, rule), rule.energy),
            excess(self._away(photograph)[0], rule.photograph),
        )

    def photograph_distance(self, statistics: PhotographStatistics) -> float:
        """Return the distance to the nearest training photograph, in scaled statistics."""
        return self._away(statistics)[0]

    def _photograph(self, statistics: PhotographStatistics) -> Reason | None:
        distance, away = self._away(statistics)
        limit = self.rule.photograph.limit
        if excess(distance, self.rule.photograph) <= 1:
            return None
        light, contrast, sharpness, saturated = away
        if light < -limit:
            return "photograph_dark"
        if light > limit or saturated > limit:
            return "photograph_bright"
        if min(contrast, sharpness) < -limit / 2:
            return "photograph_blurred"
        return "photograph_unusual"

    def _away(self, statistics: PhotographStatistics) -> tuple[float, np.ndarray]:
        """Return the distance to the nearest training photograph, and the way from there."""
        ways = np.array(_scaled(statistics, self.rule.photograph_scales)) - self.photographs.astype(
            np.float64
        )
        squares = (ways**2).sum(axis=1)
        nearest = int(squares.argmin())
        return math.sqrt(squares[nearest]), ways[nearest]


def excess(value: float, limit: Limit) -> float:
    """Return a value in multiples of its limit, both counted from the middle."""
    return (value - limit.middle) / max(limit.limit - limit.middle, 1e-9)


def mean_energy(fold_logits: Float[np.ndarray, "folds k"], rule: OutlierRule) -> float:
    """Return the free energy of an image in spreads around each fold's middle, mean over them."""
    folds = zip(
        log_sum(fold_logits).tolist(), rule.energy_middles, rule.energy_spreads, strict=True
    )
    energies = [(-value - middle) / spread for value, middle, spread in folds]
    return sum(energies) / len(energies)


def energy_scale(energies: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return middle and spread of a fold's energies: the temperature of each fold is another."""
    middle = float(np.median(energies))
    spread = _TO_DEVIATION * float(np.median(np.abs(energies - middle)))
    return middle, max(spread, _LEAST_SPREAD)


def outlier_rule(
    distances: Float[np.ndarray, " n"],
    energies: Float[np.ndarray, " n"],
    photographs: Float[np.ndarray, " n"],
    energy_scales: list[tuple[float, float]],
    photograph_scales: Scales,
) -> OutlierRule:
    """Return the limits that the out-of-fold values of the training images set."""
    return OutlierRule(
        level=LEVEL,
        distance=limit_of(distances, _LEAST_DISTANCE),
        energy=limit_of(energies, _LEAST_ENERGY),
        energy_middles=tuple(middle for middle, _ in energy_scales),
        energy_spreads=tuple(spread for _, spread in energy_scales),
        photograph=limit_of(photographs, _LEAST_PHOTOGRAPH),
        photograph_scales=photograph_scales,
    )


def scaled(statistics: Float[np.ndarray, "n 4"], scales: Scales) -> Float[np.ndarray, "n 4"]:
    """Return statistics as they are compared: contrast and sharpness by their ratios."""
    return _comparable(statistics) / np.array(scales)


def _scaled(statistics: PhotographStatistics, scales: Scales) -> list[float]:
    """Return those of one photograph, in less time; see `scaled`."""
    light, contrast, sharpness, saturated = statistics
    values = (light, math.log2(contrast + 1), math.log2(sharpness + 1), saturated)
    return [value / scale for value, scale in zip(values, scales, strict=True)]


def scales_of(statistics: Float[np.ndarray, "n 4"], labels: np.ndarray) -> Scales:
    """Return the spread of each statistic within the classes."""
    values = _comparable(statistics)
    away = np.concatenate(
        [values[labels == label] - values[labels == label].mean(axis=0) for label in set(labels)]
    )
    freedom = max(1, len(labels) - len(set(labels)))
    spread = np.sqrt((away**2).sum(axis=0) / freedom)
    light, contrast, sharpness, saturated = np.maximum(spread, _LEAST_SCALES).tolist()
    return light, contrast, sharpness, saturated


def limit_of(values: Float[np.ndarray, " n"], least: float) -> Limit:
    """Return the limit that about `LEVEL` of further values of this kind exceed.

    At least `least` above the middle: where all images are as good as the same, others need not be.

    The value that this share of the sample reaches, as split conformal prediction has it. Where the
    sample is too small for that, its largest, moved out as if the tail above the middle were
    exponential: the quantile at `LEVEL` then lies `log(1 / 2·LEVEL) / log(n / 2)` times as far out
    as the largest of `n`.
    """
    ordered = np.sort(values)
    n, middle = len(ordered), float(np.median(ordered))
    if (rank := int(LEVEL * (n + 1))) >= 1:
        return Limit(middle=middle, limit=max(float(ordered[-rank]), middle + least))
    further = max(1.0, math.log(1 / (2 * LEVEL)) / math.log(n / 2))
    return Limit(middle=middle, limit=middle + max(least, further * (float(ordered[-1]) - middle)))


def _comparable(statistics: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    values = np.array(statistics, dtype=np.float64)
    values[:, 1:3] = np.log2(values[:, 1:3] + 1)
    return values
