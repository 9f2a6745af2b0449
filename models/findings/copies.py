"""What is said of images that are copies of one another, exact or nearly."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from models.findings.finding import Finding, Severity
from models.findings.subject import Subject

CopyKind = Literal["exact_duplicate", "near_duplicate"]

_WORDS = {"exact_duplicate": "are the same file", "near_duplicate": "look like copies of one image"}


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
    if len(classes) > 1:
        severity = "serious"
        why = f", under the labels {', '.join(repr(name) for name in classes)}"
        fix = "Decide which label is right, and remove or relabel the others."
    elif len(np.unique(subject.train[chosen])) > 1:
        severity = "serious"
        why = f" of {classes[0]!r}, on both sides of the split: the accuracy measured is too high"
        fix = "Keep them on one side, in one group."
    elif groups > 1:
        severity = "warning"
        why = f" of {classes[0]!r}, as {groups} different parts"
        fix = "Keep one, or give all of them the group of the part that they show."
    elif kind == "exact_duplicate":
        severity, why, fix = "note", f" of {classes[0]!r}", "Keep one; the others add nothing."
    else:
        return None
    names = " and ".join(repr(subject.images[index].name) for index in indices[:2])
    more = "" if len(indices) == 2 else f" (the closest two of {len(indices)} images)"
    return Finding(
        kind=kind,
        severity=severity,
        images=subject.refs(chosen),
        count=len(indices),
        classes=classes,
        score=round(score, 4),
        problem=f"{names}{more} {_WORDS[kind]}{why}.",
        fix=fix,
    )
