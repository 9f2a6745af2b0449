"""All checks, one after the other."""

from collections.abc import Callable, Mapping
from typing import Final

from models.findings.balance import few_images, identical_classes, imbalance
from models.findings.blur import blur
from models.findings.exact_duplicates import exact_duplicates
from models.findings.exposure import exposure
from models.findings.finding import Finding, Kind, ranked
from models.findings.giveaway import giveaways
from models.findings.label_errors import label_errors
from models.findings.near_duplicates import near_duplicates
from models.findings.outliers import outliers
from models.findings.size import size
from models.findings.subject import Subject
from models.progress import Progress, no_progress

CHECKS: Final[Mapping[Kind, Callable[[Subject], list[Finding]]]] = {
    "few_images": few_images,
    "identical_class": identical_classes,
    "exact_duplicate": exact_duplicates,
    "near_duplicate": near_duplicates,
    "label_error": label_errors,
    "giveaway": giveaways,
    "imbalance": imbalance,
    "outlier": outliers,
    "blur": blur,
    "exposure": exposure,
    "size": size,
}


def examine(subject: Subject, *, progress: Progress = no_progress) -> list[Finding]:
    """Return what is wrong with the images, the serious first.

    Args:
        subject: see `models.findings.subject.look_at`.
        progress: called with how many of how many checks are done; may raise to stop.
    """
    found = list(subject.unreadable)
    for done, check in enumerate(CHECKS.values()):
        progress(done, len(CHECKS))
        found += check(subject)
    progress(len(CHECKS), len(CHECKS))
    return ranked(found)
