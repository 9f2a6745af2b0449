"""Images unlike all others: far from their nearest neighbours in feature space."""

import numpy as np
from jaxtyping import Float

from models.findings.finding import Finding
from models.findings.subject import Subject
from models.language import phrase

# Chosen on development sets, see docs/findings.md.
_NEIGHBOURS = 10
_SPREADS = 5.0
_LEAST = 1e-3  # of a spread: the cosines of near copies differ by accident
_AT_ONCE = 512
_FEWEST = 10


def outliers(subject: Subject) -> list[Finding]:
    """Return one finding for each image whose neighbours are unusually far for its class.

    The score is how many spreads the distance lies above the class's median.
    """
    distances = neighbour_distances(subject)
    if distances is None:
        return []
    medians, spreads = subject.norms(distances).T
    scores = (distances - medians) / np.maximum(spreads, _LEAST)
    return [
        Finding.told(
            [phrase("finding.outlier.said", image=subject.named(index))],
            [phrase("fix.outlier")],
            kind="outlier",
            severity="warning",
            images=subject.refs([index]),
            count=1,
            classes=[subject.classes[subject.labels[index]]],
            score=round(float(scores[index]), 2),
        )
        for index in np.flatnonzero(scores > _SPREADS).tolist()
    ]


def neighbour_distances(subject: Subject) -> Float[np.ndarray, " n"] | None:
    """Return the mean cosine distance of each image to its nearest of other groups.

    None without features, and where there are too few groups to say what is usual.
    """
    features = subject.features
    if features is None or len(np.unique(subject.groups)) < _FEWEST:
        return None
    result = np.empty(len(features))
    kept = min(_NEIGHBOURS, len(features) - int(np.bincount(subject.groups).max()))
    for start in range(0, len(features), _AT_ONCE):
        rows = features[start : start + _AT_ONCE]
        cosine = rows @ features.T
        cosine[subject.groups[start : start + len(rows), None] == subject.groups[None]] = -2.0
        nearest = np.partition(cosine, -kept, axis=1)[:, -kept:]
        result[start : start + len(rows)] = 1 - nearest.mean(axis=1)
    return result
