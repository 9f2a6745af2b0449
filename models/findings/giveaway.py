"""Classes that the files give away, whatever they show.

A classifier that knows nothing but one property of the files is tested on images that it did not
learn from. Where it recognises a class, the photographs of that class were made or saved in another
way: a model may learn that instead of the part, and its accuracy means little.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.tree import DecisionTreeClassifier

from models.evaluation.splits import cross_validation_folds
from models.findings.finding import Finding, Severity
from models.findings.subject import Subject
from models.findings.traits import Traits
from models.language import phrase

_FOLDS, _LEAVES = 5, 16
_PERMUTATIONS = 499
# Share recognised minus share of the others taken for it: chance is 0. Chosen on development sets,
# see docs/findings.md. What photographs show may itself set the border or the number of bytes.
_NOTED, _SERIOUS, _SHOWN = 0.15, 0.5, 0.9
_FROM_CONTENT = {"bytes", "border"}
_FEWEST = 5  # groups of each class, one for a fold

_Columns = Float[np.ndarray, "n columns"]


class Giveaway(NamedTuple):
    """A class and the property that gives it away.

    Attributes:
        label: of the class.
        field: the property, as its text is called: `giveaway.{field}`.
        recognised: share of the class's images that are recognised by it.
        mistaken: share of the other images that are taken for it.
        chance: share of permuted labels by which some class is recognised as well.
    """

    label: int
    field: str
    recognised: float
    mistaken: float
    chance: float

    @property
    def strength(self) -> float:
        """0 for chance, 1 where the property says all."""
        return self.recognised - self.mistaken


def giveaways(subject: Subject) -> list[Finding]:
    """Return one finding for each class that is given away, by what gives it away most.

    The score is `Giveaway.strength`.
    """
    found: dict[int, list[Giveaway]] = {}
    for one in measure_giveaways(subject):
        if one.strength >= (_SHOWN if one.field in _FROM_CONTENT else _NOTED):
            found.setdefault(one.label, []).append(one)
    return [
        _finding(subject, sorted(same, key=lambda one: -one.strength)) for same in found.values()
    ]


def measure_giveaways(subject: Subject) -> list[Giveaway]:
    """Return for each property the classes that it recognises better than chance.

    One image of each group is looked at, so that images count as independent. Empty for fewer than
    two classes with enough groups.
    """
    chosen = _one_of_each_group(subject)
    labels = subject.labels[chosen]
    found: list[Giveaway] = []
    if len(np.unique(labels)) < 2:
        return found
    folds = cross_validation_folds(labels.tolist(), [str(i) for i in chosen], _FOLDS, seed=0)
    fields = _fields([subject.traits[index] for index in chosen])
    for name, columns in fields.items():
        if (columns == columns[0]).all():
            continue
        predicted = _predict(columns, labels, folds)
        found += _better_than_chance(name, predicted, labels, len(fields))
    return found


def _one_of_each_group(subject: Subject) -> Int[np.ndarray, " m"]:
    """Return one image of each group in a class, of the classes that have enough of them."""
    keys = subject.groups * len(subject.classes) + subject.labels
    first = np.sort(np.unique(keys, return_index=True)[1])
    counts = np.bincount(subject.labels[first], minlength=len(subject.classes))
    return first[counts[subject.labels[first]] >= _FEWEST]


def _fields(traits: Sequence[Traits]) -> Mapping[str, _Columns]:
    files, pixels = [one.file for one in traits], [one.pixels for one in traits]
    bytes_per_pixel = [file.size_bytes / (file.width * file.height) for file in files]
    return {
        "format": _one_hot([file.format for file in files]),
        "mode": _one_hot([file.mode for file in files]),
        "exif": np.array([[float(file.exif)] for file in files]),
        "size": np.log([[file.width, file.height, file.width / file.height] for file in files]),
        "compression": np.array([[file.quantisation] for file in files]),
        "bytes": np.log([[value] for value in bytes_per_pixel]),
        "border": np.array([[one.border_mean, one.border_std] for one in pixels]),
    }


def _one_hot(values: Sequence[str]) -> _Columns:
    return (np.array(values)[:, None] == np.unique(values)[None]).astype(float)


def _predict(
    columns: _Columns, labels: Int[np.ndarray, " m"], folds: list[tuple[list[int], list[int]]]
) -> Int[np.ndarray, " m"]:
    predicted = np.empty_like(labels)
    for train, test in folds:
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_LEAVES, min_samples_leaf=2, class_weight="balanced", random_state=0
        )
        predicted[test] = tree.fit(columns[train], labels[train]).predict(columns[test])
    return predicted


def _better_than_chance(
    field: str, predicted: Int[np.ndarray, " m"], labels: Int[np.ndarray, " m"], fields: int
) -> list[Giveaway]:
    recognised, mistaken = _rates(predicted, labels)
    strength = recognised - mistaken
    rng = np.random.default_rng(0)
    by_chance = np.array(
        [
            np.subtract(*_rates(predicted, rng.permutation(labels))).max()
            for _ in range(_PERMUTATIONS)
        ]
    )
    found = []
    for label in np.unique(labels).tolist():
        chance = (1 + int((by_chance >= strength[label]).sum())) / (1 + _PERMUTATIONS)
        # The strongest of a property; of two classes each gives the other away.
        told = strength[label] >= _SERIOUS or strength[label] == strength.max()
        if chance <= 0.05 / fields and told:
            share = float(recognised[label]), float(mistaken[label])
            found.append(Giveaway(label, field, *share, chance))
    return found


def _rates(
    predicted: Int[np.ndarray, " m"], labels: Int[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " n_classes"], Float[np.ndarray, " n_classes"]]:
    """Return for each class the share recognised, and the share of the others taken for it."""
    classes = int(max(predicted.max(), labels.max())) + 1
    own = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    wrong = np.bincount(predicted, minlength=classes) - hits
    return hits / np.maximum(own, 1), wrong / np.maximum(len(labels) - own, 1)


def _finding(subject: Subject, found: Sequence[Giveaway]) -> Finding:
    best = found[0]
    name = subject.classes[best.label]
    severity: Severity = "warning"
    if best.field in _FROM_CONTENT:
        severity = "note"
    elif best.strength >= _SERIOUS:
        severity = "serious"
    fields = [phrase(f"giveaway.{one.field}") for one in found]
    shares = {"recognised": best.recognised, "mistaken": best.mistaken}
    says = [phrase("finding.giveaway.said", field=fields[0], label=name, **shares)]
    if fields[1:]:
        says.append(phrase("finding.giveaway.also", fields=fields[1:]))
    return Finding.told(
        says,
        [phrase("fix.giveaway")],
        kind="giveaway",
        severity=severity,
        images=subject.refs(np.flatnonzero(subject.labels == best.label)[:2]),
        count=int((subject.labels == best.label).sum()),
        classes=[name],
        score=round(best.strength, 3),
    )
