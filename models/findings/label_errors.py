"""Labels that are probably wrong: what a classifier that never saw the image says of it.

Northcutt, Jiang, Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021:
an image is suspected where its probability of another class is as high as that class's own images
have on average. Ranked by the normalised margin, as in cleanlab (ADR 082).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

from models.evaluation.splits import cross_validation_folds
from models.findings.finding import Finding
from models.findings.subject import Subject
from models.language import phrase

_C = 10.0  # as `models.baselines.linear_probe`
_FOLDS = 5
_TWICE = 2000  # images up to which the folds are drawn twice: it takes minutes for ten thousand
_SHARE = 0.1  # of the images that are reported at most: more suspects mean a hard task


class Ranking(NamedTuple):
    """The images that could be judged, the most suspect first.

    Attributes:
        indices: of the images.
        margin: probability of the class it seems to be minus that of its own, from -1 to 1.
        seems: the most probable other class.
        suspect: which of them are probably wrong.
    """

    indices: Int[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]
    seems: Int[np.ndarray, " n"]
    suspect: Int[np.ndarray, " n"]


def label_errors(subject: Subject) -> list[Finding]:
    """Return one finding for each label that is probably wrong, at most a tenth of the images.

    The score is the margin. Beside the suspect stands the nearest image of the class that it seems
    to be.
    """
    ranking = rank_labels(subject)
    if ranking is None:
        return []
    most = max(1, int(_SHARE * len(ranking.indices)))
    chosen = np.flatnonzero(ranking.suspect)[:most].tolist()
    return [_finding(subject, ranking, place) for place in chosen]


def rank_labels(subject: Subject) -> Ranking | None:
    """Rank all images by how little their label fits.

    None without features, or where fewer than two classes have images of two groups: the label of
    a class that is known from one part alone cannot be checked.
    """
    judged = _judged(subject)
    if subject.features is None or len(np.unique(subject.labels[judged])) < 2:
        return None
    labels = subject.labels[judged]
    probabilities = _out_of_fold(subject, judged)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    margin = others.max(axis=1) - own
    order = np.argsort(-margin, kind="stable")
    suspect = _confident_errors(probabilities, labels)
    return Ranking(judged[order], margin[order], others.argmax(axis=1)[order], suspect[order])


def _judged(subject: Subject) -> Int[np.ndarray, " m"]:
    """Return the images of classes that have two groups or more."""
    rich = [
        label
        for label in range(len(subject.classes))
        if len(np.unique(subject.groups[subject.labels == label])) >= 2
    ]
    return np.flatnonzero(np.isin(subject.labels, rich))


def _out_of_fold(
    subject: Subject, judged: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m n_classes"]:
    """Return probabilities by probes that saw no image of the group, averaged over the repeats."""
    features, labels = np.asarray(subject.features, np.float64)[judged], subject.labels[judged]
    groups = [str(group) for group in subject.groups[judged]]
    total = np.zeros((len(judged), len(subject.classes)))
    repeats = 2 if len(judged) <= _TWICE else 1
    for repeat in range(repeats):
        for train, test in cross_validation_folds(labels.tolist(), groups, _FOLDS, repeat):
            present = np.unique(labels[train])
            if len(present) == 1:
                total[np.ix_(np.array(test), present)] += 1
                continue
            probe = LogisticRegression(C=_C, max_iter=2000).fit(features[train], labels[train])
            total[np.ix_(test, probe.classes_)] += probe.predict_proba(features[test])
    return total / repeats


def _confident_errors(
    probabilities: Float[np.ndarray, "m n_classes"], labels: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """Say which are counted off the diagonal of the confident joint."""
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels):
        thresholds[label] = probabilities[labels == label, label].mean()
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    likeliest = confident.argmax(axis=1)
    return ((confident.max(axis=1) >= 0) & (likeliest != labels)).astype(np.int64)


def _finding(subject: Subject, ranking: Ranking, place: int) -> Finding:
    index, seems = int(ranking.indices[place]), int(ranking.seems[place])
    label, other = (subject.classes[which] for which in (subject.labels[index], seems))
    assert subject.features is not None  # noqa: S101 - nothing is ranked without
    cosine = subject.features @ subject.features[index]
    cosine[(subject.labels != seems) | (subject.groups == subject.groups[index])] = -2.0
    pair = [index, int(cosine.argmax())]
    name = subject.images[index].name
    return Finding.told(
        [phrase("finding.label_error.said", name=name, label=label, other=other)],
        [phrase("fix.label_error")],
        kind="label_error",
        severity="warning",
        images=subject.refs(pair[: 1 + bool(cosine.max() > -2.0)]),
        count=1,
        classes=[label, other],
        score=round(float(ranking.margin[place]), 4),
    )
