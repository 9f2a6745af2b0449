"""Classes with far fewer images than others, with too few, or with one image over and over."""

import numpy as np

from models.findings.finding import Finding
from models.findings.subject import Subject

_UNEVEN, _VERY_UNEVEN = 3.0, 10.0  # times as many images in the largest class as in the smallest
_NEEDED, _ENOUGH = 2, 5  # groups of a class: for a tuning, and for a figure that means something
_SAME = 2.0  # grey levels by which thumbnails of one image may differ, on average


def imbalance(subject: Subject) -> list[Finding]:
    """Return a finding where some class has far fewer training images; says what the recipe does.

    The score is the ratio of the largest to the smallest.
    """
    counts = np.bincount(subject.labels[subject.train], minlength=len(subject.classes))
    if len(counts) < 2 or counts.min() == 0:
        return []
    ratio = float(counts.max() / counts.min())
    if ratio < _UNEVEN:
        return []
    least, most = (subject.classes[int(index)] for index in (counts.argmin(), counts.argmax()))
    recipe = subject.recipe
    done = (
        f"The recipe makes up for it in training (logit_adjustment {recipe.logit_adjustment:g})"
        if recipe.logit_adjustment
        else "The recipe does nothing about it in training (logit_adjustment 0)"
    )
    careful = (
        f" and trusts the images of a small class less (caution {recipe.caution:g})."
        if recipe.fusion == "posterior"
        else "."
    )
    return [
        Finding(
            kind="imbalance",
            severity="warning" if ratio >= _VERY_UNEVEN else "note",
            classes=[least, most],
            score=round(ratio, 2),
            problem=f"{most!r} has {counts.max()} training images and {least!r} {counts.min()},"
            f" {ratio:.1f} times fewer.",
            fix=f"{done}{careful} More images of {least!r} help most.",
        )
    ]


def few_images(subject: Subject) -> list[Finding]:
    """Return a finding for each class with training images of too few groups.

    The score is how many groups are missing.
    """
    found = []
    for label, name in enumerate(subject.classes):
        own = (subject.labels == label) & subject.train
        groups = len(np.unique(subject.groups[own]))
        if groups >= _ENOUGH:
            continue
        refused = groups < _NEEDED
        found.append(
            Finding(
                kind="few_images",
                severity="serious" if refused else "warning",
                images=subject.refs(np.flatnonzero(own)),
                count=int(own.sum()),
                classes=[name],
                score=float(_ENOUGH - groups),
                problem=f"{name!r} has {int(own.sum())} training image(s) of {groups} part(s)"
                + (", too few to tune on." if refused else "; what is measured of it says little."),
                fix=f"Photograph at least {_ENOUGH - groups} more parts of {name!r}.",
            )
        )
    return found


def identical_classes(subject: Subject) -> list[Finding]:
    """Return a finding for each class whose images are all the same one."""
    found = []
    for label, name in enumerate(subject.classes):
        own = np.flatnonzero(subject.labels == label)
        if len(own) < 2:
            continue
        thumbnails = np.stack([subject.traits[index].thumbnail for index in own.tolist()]).astype(
            float
        )
        if np.abs(thumbnails - thumbnails[0]).mean(axis=(1, 2)).max() > _SAME:
            continue
        found.append(
            Finding(
                kind="identical_class",
                severity="serious",
                images=subject.refs(own),
                count=len(own),
                classes=[name],
                score=1.0,
                problem=f"All {len(own)} images of {name!r} show the same picture.",
                fix=f"Photograph different parts of {name!r}: one picture teaches what one image"
                " does, however often it is sent.",
            )
        )
    return found
