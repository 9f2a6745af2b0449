"""Images that are too dark, too bright, or have next to no contrast.

What all images of a class have in common is how the line photographs it, and no fault of one.
"""

from typing import Literal, NamedTuple

import numpy as np

from models.findings.finding import Finding
from models.findings.subject import Subject
from models.findings.traits import PixelTraits
from models.language import phrase

# Grey levels and shares of pixels, chosen on development sets, see docs/findings.md.
_DARK, _WHITE, _CONTRAST = 45.0, 0.35, 12.0
_FACTOR = 2.0  # darker, or of less contrast, than the usual image of the class


class Exposure(NamedTuple):
    """What is wrong with the exposure of one image, and how much; `flat` is without contrast."""

    fault: Literal["dark", "bright", "flat"]
    score: float


def exposure(subject: Subject) -> list[Finding]:
    """Return one finding for each image that is badly exposed beside its class.

    The score says how far it is beyond the limit: 1 for a frame of one grey level.
    """
    if not subject.images:
        return []
    pixels = [one.pixels for one in subject.traits]
    columns = [
        np.array([one.bright for one in pixels]),
        np.array([one.white for one in pixels]),
        np.array([one.bright - one.dark for one in pixels]),
    ]
    usual = [subject.norms(column)[:, 0] for column in columns]
    found = []
    for index, one in enumerate(pixels):
        bright, white, contrast = (float(column[index]) for column in usual)
        wrong = badly_exposed(one, bright=bright, white=white, contrast=contrast)
        if wrong is not None:
            found.append(_finding(subject, index, wrong))
    return found


def badly_exposed(
    pixels: PixelTraits, *, bright: float = 255.0, white: float = 0.0, contrast: float = 255.0
) -> Exposure | None:
    """Say what is wrong with one image, beside what is usual where that is known."""
    own = pixels.bright - pixels.dark
    if pixels.bright < min(_DARK, bright / _FACTOR):
        return Exposure("dark", 1 - pixels.bright / _DARK)
    if pixels.white > _WHITE + white:
        return Exposure("bright", pixels.white)
    if own < min(_CONTRAST, contrast / _FACTOR):
        return Exposure("flat", 1 - own / _CONTRAST)
    return None


def _finding(subject: Subject, index: int, wrong: Exposure) -> Finding:
    return Finding.told(
        [phrase(f"finding.exposure.{wrong.fault}", image=subject.named(index))],
        [phrase(f"fix.exposure.{wrong.fault}")],
        kind="exposure",
        severity="warning",
        images=subject.refs([index]),
        count=1,
        classes=[subject.classes[subject.labels[index]]],
        score=round(wrong.score, 3),
    )
