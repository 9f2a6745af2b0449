"""Classes with far fewer images than others, with too few, or with one image over and over."""

import numpy as np

from models.findings.finding import Finding
from models.findings.subject import Subject
from models.language import Phrase, phrase
from models.recipe import Recipe

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
    counted = {"largest": int(counts.max()), "smallest": int(counts.min())}
    return [
        Finding.told(
            [phrase("finding.imbalance.said", most=most, least=least, ratio=ratio, **counted)],
            [*_done_about_it(subject.recipe), phrase("fix.imbalance.more", label=least)],
            kind="imbalance",
            severity="warning" if ratio >= _VERY_UNEVEN else "note",
            classes=[least, most],
            score=round(ratio, 2),
        )
    ]


def _done_about_it(recipe: Recipe) -> list[Phrase]:
    said = [phrase("fix.imbalance.ignored")]
    if recipe.logit_adjustment:
        said = [phrase("fix.imbalance.adjusted", strength=recipe.logit_adjustment)]
    if recipe.fusion == "posterior":
        said.append(phrase("fix.imbalance.careful", caution=recipe.caution))
    return said


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
        key = "finding.few_images.refused" if refused else "finding.few_images.thin"
        found.append(
            Finding.told(
                [phrase(key, label=name, count=int(own.sum()), groups=groups)],
                [phrase("fix.few_images", label=name, missing=_ENOUGH - groups)],
                kind="few_images",
                severity="serious" if refused else "warning",
                images=subject.refs(np.flatnonzero(own)),
                count=int(own.sum()),
                classes=[name],
                score=float(_ENOUGH - groups),
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
            Finding.told(
                [phrase("finding.identical_class.said", label=name, count=len(own))],
                [phrase("fix.identical_class", label=name)],
                kind="identical_class",
                severity="serious",
                images=subject.refs(own),
                count=len(own),
                classes=[name],
                score=1.0,
            )
        )
    return found
