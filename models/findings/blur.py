"""Images less sharp than the others of their class."""

import math

import numpy as np
from jaxtyping import Float

from models.findings.finding import Finding
from models.findings.subject import Subject
from models.language import phrase

# Chosen on development sets, see docs/findings.md.
_SPREADS = 3.0
_LEAST = math.log(4)  # a quarter of the usual variance of the Laplacian
_FEWEST = 5


def is_blurred(value: float, usual: Float[np.ndarray, " n"]) -> bool:
    """Say whether a sharpness is far below those that are usual."""
    median = float(np.median(usual))
    spread = 1.4826 * float(np.median(np.abs(usual - median)))
    return median - value > max(_SPREADS * spread, _LEAST)


def blur(subject: Subject) -> list[Finding]:
    """Return one finding for each image that is blurred beside its class.

    The score is the log of how many times the variance of the Laplacian is below the median's.
    """
    if len(subject.images) < _FEWEST:
        return []
    values = np.array([one.pixels.sharpness for one in subject.traits])
    medians, spreads = subject.norms(values).T
    drops = medians - values
    blurred = drops > np.maximum(_SPREADS * spreads, _LEAST)
    return [
        Finding.told(
            [phrase("finding.blur.said", image=subject.named(index))],
            [phrase("fix.blur")],
            kind="blur",
            severity="warning",
            images=subject.refs([index]),
            count=1,
            classes=[subject.classes[subject.labels[index]]],
            score=round(float(drops[index]), 2),
        )
        for index in np.flatnonzero(blurred).tolist()
    ]
