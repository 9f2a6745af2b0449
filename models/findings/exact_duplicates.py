"""The same bytes more than once."""

from collections import defaultdict

from models.findings.copies import copies_found
from models.findings.finding import Finding
from models.findings.subject import Subject


def exact_duplicates(subject: Subject) -> list[Finding]:
    """Return one finding for each file that occurs again, by its sha256."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(subject.images):
        same[image.sha256].append(index)
    found = [
        copies_found(subject, "exact_duplicate", indices, 1.0)
        for indices in same.values()
        if len(indices) > 1
    ]
    return [one for one in found if one is not None]
