"""Images of a size or shape unlike the rest, or smaller than what the encoder sees."""

import numpy as np
from jaxtyping import Bool

from models.findings.finding import Finding, Severity
from models.findings.subject import Subject
from models.language import Phrase, phrase

_PIXELS = np.log(4.0)  # a quarter or four times the usual number of pixels
_ASPECT = np.log(1.5)
_ODD = 0.2  # where more images than this share differ, the set has no usual size
_FEWEST = 5


def size(subject: Subject) -> list[Finding]:
    """Return at most one finding for each way in which sizes are wrong."""
    if not subject.images:
        return []
    sizes = np.array([(one.file.width, one.file.height) for one in subject.traits], dtype=float)
    log_pixels, log_aspect = np.log(sizes).sum(axis=1), np.log(sizes[:, 0] / sizes[:, 1])
    usual = np.median(sizes, axis=0)
    found = []
    for values, limit, what in (
        (log_pixels, _PIXELS, "pixels"),
        (log_aspect, _ASPECT, "aspect"),
    ):
        odd = np.abs(values - np.median(values)) > limit
        if len(values) >= _FEWEST and 0 < odd.mean() <= _ODD:
            width, height = usual.tolist()
            says = phrase(f"finding.size.{what}", images=_images(odd), width=width, height=height)
            distance = float(np.abs(values - np.median(values))[odd].max())
            found.append(_finding(subject, odd, "warning", distance, says, "fix.size.unlike"))
    return found + _too_small(subject, sizes.min(axis=1) if len(sizes) else np.zeros(0))


def _too_small(subject: Subject, shorter: np.ndarray) -> list[Finding]:
    view = subject.view_size
    if view is None or not (small := shorter < view).any():
        return []
    least = float(shorter.min())
    # Half of what is seen is made up by enlarging: fine defects cannot be there.
    severity: Severity = "warning" if least < view / 2 else "note"
    says = phrase("finding.size.small", images=_images(small), view=view)
    return [_finding(subject, small, severity, view / least, says, "fix.size.small")]


def _images(chosen: Bool[np.ndarray, " n"]) -> Phrase:
    count, total = int(chosen.sum()), len(chosen)
    return phrase(f"finding.size.of.{'one' if count == 1 else 'other'}", count=count, total=total)


def _finding(
    subject: Subject,
    chosen: Bool[np.ndarray, " n"],
    severity: Severity,
    score: float,
    says: Phrase,
    fix: str,
) -> Finding:
    indices = np.flatnonzero(chosen)
    labels = np.unique(subject.labels[indices])
    return Finding.told(
        [says],
        [phrase(fix)],
        kind="size",
        severity=severity,
        images=subject.refs(indices),
        count=len(indices),
        classes=[subject.classes[label] for label in labels],
        score=round(score, 3),
    )
