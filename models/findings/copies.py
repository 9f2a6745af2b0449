"""What is said of images that are copies of one another, exact or nearly."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from models.findings.finding import Finding, Severity
from models.findings.subject import Subject
from models.language import phrase

CopyKind = Literal["exact_duplicate", "near_duplicate"]


def copies_found(
    subject: Subject, kind: CopyKind, indices: Sequence[int], score: float
) -> Finding | None:
    """Return what is wrong with images that are copies; the first two are shown side by side.

    None where nothing is wrong with it: near copies in one class, group and split are what a group
    is for.

    Args:
        subject: the images.
        kind: exact or near.
        indices: of the copies, two or more.
        score: how alike the first two are, at most 1.
    """
    chosen = np.asarray(indices)
    classes = [subject.classes[label] for label in np.unique(subject.labels[chosen])]
    groups = len(np.unique(subject.groups[chosen]))
    severity: Severity
    what: dict[str, Any] = {"label": classes[0]}
    if len(classes) > 1:
        severity, why, what = "serious", "labels", {"labels": classes}
    elif len(np.unique(subject.train[chosen])) > 1:
        severity, why = "serious", "split"
    elif groups > 1:
        severity, why, what = "warning", "parts", what | {"groups": groups}
    elif kind == "exact_duplicate":
        severity, why = "note", "same"
    else:
        return None
    first, second = (subject.images[index].name for index in indices[:2])
    pair = phrase("finding.pair", first=first, second=second)
    if len(indices) > 2:
        pair = phrase("finding.pair.of", first=first, second=second, count=len(indices))
    return Finding.told(
        [phrase(f"finding.{kind}.{why}", images=pair, **what)],
        [phrase(f"fix.copies.{why}")],
        kind=kind,
        severity=severity,
        images=subject.refs(chosen),
        count=len(indices),
        classes=classes,
        score=round(score, 4),
    )
