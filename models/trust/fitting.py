"""Makes the decision rule of a tuning from its fold models, and measures what it is worth."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from models.classes import ClassSpec, Role
from models.decision import Decision, conclude
from models.evaluation.proportions import proportion
from models.evaluation.results import Basis
from models.trust.calibration import calibrated, calibration, fit_temperature
from models.trust.conformal import class_scores, one_per_group, role_scores, too_few
from models.trust.curve import MOST_IN_CURVE, Looked, curve, verdicts
from models.trust.evidence import Evidence, log_sum
from models.trust.judge import ROLES, Judge, members_of
from models.trust.metrics import AlphaPoint, TrustMetrics
from models.trust.outliers import (
    FEWEST,
    Outliers,
    energy_scale,
    outlier_rule,
    scaled,
    scales_of,
)
from models.trust.photograph import PhotographStatistics
from models.trust.policy import DecisionPolicy
from models.trust.reasons import UNLIKE
from models.trust.rule import DecisionRule

_MOST_MEASURED = 2000
_STORED = np.float16  # of scaled statistics: far finer than what tells photographs apart


@dataclass(frozen=True)
class OutOfFold:
    """What the fold models say of the images that they have not seen.

    Attributes:
        labels: the images' classes.
        groups: images of one part share theirs.
        digests: of the images' bytes.
        folds: of each image, the fold that it was left out of.
        logits: by that fold's model, as rounded as the artifact keeps it.
        nearest: the largest cosine to a class mean of that fold's training images.
        statistics: of the photographs.
    """

    labels: Int[np.ndarray, " n"]
    groups: Sequence[str]
    digests: Sequence[str]
    folds: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n n_classes"]
    nearest: Float[np.ndarray, " n"]
    statistics: Float[np.ndarray, "n 4"]

    @property
    def n_folds(self) -> int:
        """How many folds there are."""
        return int(self.folds.max()) + 1


class Fitted(NamedTuple):
    """A rule, the statistics of the training photographs that belong to it, and its judge."""

    rule: DecisionRule
    photographs: Float[np.ndarray, "n 4"]
    judge: Judge


def fit_rule(classes: Sequence[ClassSpec], seen: OutOfFold) -> Fitted:
    """Return the rule of a tuning."""
    chosen = np.array(one_per_group(seen.labels.tolist(), seen.groups, seen.digests))
    scales = scales_of(seen.statistics, seen.labels)
    photographs = scaled(seen.statistics, scales).astype(_STORED)
    own = class_scores(seen.logits)[np.arange(len(seen.labels)), seen.labels]
    roles = [ROLES.index(classes[label].role) for label in seen.labels]
    members = members_of(tuple(spec.role for spec in classes))
    by_role = role_scores(seen.logits, members)[np.arange(len(roles)), roles]
    alone = np.array(
        one_per_group(roles, seen.groups, seen.digests)
    )  # a part with two defects is one part
    in_roles = _table(by_role, np.array(roles), seen.folds, alone, len(ROLES), seen.n_folds)
    present = {spec.role for spec in classes}
    outliers = None
    if len(chosen) >= FEWEST:
        energies = -log_sum(seen.logits)
        energy_scales = [energy_scale(energies[seen.folds == f]) for f in range(seen.n_folds)]
        middles, spreads = (np.array(part)[seen.folds] for part in zip(*energy_scales, strict=True))
        outliers = outlier_rule(
            distances=1 - seen.nearest[chosen],
            energies=((energies - middles) / spreads)[chosen],
            photographs=_away(photographs, seen.folds)[chosen],
            energy_scales=energy_scales,
            photograph_scales=scales,
        )
    rule = DecisionRule(
        temperature=fit_temperature(seen.logits, seen.labels),
        folds=seen.n_folds,
        scores=_table(own, seen.labels, seen.folds, chosen, len(classes), seen.n_folds),
        role_scores={
            role: folds for role, folds in zip(ROLES, in_roles, strict=True) if role in present
        },
        outliers=outliers,
    )
    return Fitted(rule, photographs, Judge.of(rule, photographs))


def measure_out_of_fold(
    classes: Sequence[ClassSpec], seen: OutOfFold, fitted: Fitted, policy: DecisionPolicy
) -> TrustMetrics:
    """Measure a rule on the images that it was fit on, each left out with its group.

    On a few thousand of them where there are more.
    """
    after = np.empty_like(seen.logits)
    for fold in range(seen.n_folds):
        inside = seen.folds == fold
        rest = ~inside if (~inside).any() else inside
        temperature = fit_temperature(seen.logits[rest], seen.labels[rest])
        after[inside] = calibrated(seen.logits[inside], temperature)
    leaving = _Leaving.of(classes, seen, fitted)
    n = len(seen.labels)
    some = _spread(n, _MOST_MEASURED)
    looked = (leaving.look(index, after[index], policy) for index in some.tolist())
    before, labels = calibrated(seen.logits[some], 1.0), seen.labels[some]
    return _measured("out-of-fold", classes, labels, looked, before, after[some], fitted, policy)


def measure_holdout(
    classes: Sequence[ClassSpec],
    labels: Int[np.ndarray, " n"],
    evidence: Sequence[Evidence],
    statistics: Sequence[PhotographStatistics],
    fitted: Fitted,
    policy: DecisionPolicy,
) -> TrustMetrics:
    """Measure a rule on images that neither trained nor calibrated."""
    roles, judge = tuple(spec.role for spec in classes), fitted.judge
    found = judge.find(roles, evidence, statistics, policy.alpha)
    looked = (Looked(judge, *one) for one in zip(evidence, found, strict=True))
    logits = np.stack([found.logits for found in evidence])
    before, after = calibrated(logits, 1.0), calibrated(logits, fitted.rule.temperature)
    return _measured("holdout", classes, labels, looked, before, after, fitted, policy)


class _Leaving(NamedTuple):
    """Looks at training images as if each were new: without the scores of its own group.

    Attributes:
        groups: of each image, as a number.
        of_classes: the group of each of the judge's class scores.
        of_roles: the same of its role scores.
        outliers: of each fold, with the photographs of the others and that fold's energies.
    """

    classes: Sequence[ClassSpec]
    seen: OutOfFold
    judge: Judge
    groups: Int[np.ndarray, " n"]
    of_classes: Int[np.ndarray, " n_scores"]
    of_roles: Int[np.ndarray, " n_role_scores"]
    outliers: Sequence[Outliers | None]

    @classmethod
    def of(cls, classes: Sequence[ClassSpec], seen: OutOfFold, fitted: Fitted) -> "_Leaving":
        labels = seen.labels.tolist()
        roles = [ROLES.index(classes[label].role) for label in labels]
        groups = np.unique(np.array(seen.groups), return_inverse=True)[1]
        of_classes, of_roles = (
            groups[_in_order(one_per_group(kinds, seen.groups, seen.digests), kinds, seen.folds)]
            for kinds in (labels, roles)
        )
        outliers = [_of_fold(fitted.judge.outliers, seen, fold) for fold in range(seen.n_folds)]
        return cls(classes, seen, fitted.judge, groups, of_classes, of_roles, outliers)

    def look(
        self, index: int, probabilities: Float[np.ndarray, " k"], policy: DecisionPolicy
    ) -> Looked:
        """Look at the image at `index`, with probabilities calibrated without its fold."""
        seen, own = self.seen, self.groups[index]
        without = self.judge._replace(
            classes=self.judge.classes.chosen(self.of_classes != own),
            roles=self.judge.roles.chosen(self.of_roles != own),
            outliers=self.outliers[seen.folds[index]],
        )
        evidence = Evidence(
            seen.logits[index],
            np.tile(seen.logits[index], (seen.n_folds, 1)),
            float(seen.nearest[index]),
        )
        photograph = PhotographStatistics(*map(float, seen.statistics[index]))
        roles = tuple(spec.role for spec in self.classes)
        (found,) = without.find(roles, [evidence], [photograph], policy.alpha)
        return Looked(without, evidence, found._replace(probabilities=probabilities))


def _of_fold(outliers: Outliers | None, seen: OutOfFold, fold: int) -> Outliers | None:
    """Return the limits as an image of that fold meets them."""
    if outliers is None:
        return None
    rule, others = outliers.rule, seen.folds != fold
    alone = replace(
        rule,
        energy_middles=(rule.energy_middles[fold],) * seen.n_folds,
        energy_spreads=(rule.energy_spreads[fold],) * seen.n_folds,
    )
    return Outliers(alone, outliers.photographs[others])


def _table(
    values: np.ndarray,
    classes: np.ndarray,
    folds: np.ndarray,
    chosen: np.ndarray,
    n_classes: int,
    n_folds: int,
) -> list[list[list[float]]]:
    """Return the chosen values as `[class][fold]`, in the order of the images."""
    table: list[list[list[float]]] = [[[] for _ in range(n_folds)] for _ in range(n_classes)]
    for index in chosen.tolist():
        table[int(classes[index])][int(folds[index])].append(float(np.float32(values[index])))
    return table


def _in_order(chosen: Sequence[int], classes: Sequence[int], folds: np.ndarray) -> list[int]:
    """Return images in the order in which `Scores.of` reads what `_table` wrote."""
    return sorted(chosen, key=lambda index: (classes[index], int(folds[index]), index))


def _away(photographs: Float[np.ndarray, "n 4"], folds: Int[np.ndarray, " n"]) -> np.ndarray:
    """Return each photograph's distance to the nearest one of the other folds."""
    values, distances = photographs.astype(np.float64), np.zeros(len(photographs))
    for fold in set(folds.tolist()):
        inside = folds == fold
        if not inside.all():
            distances[inside] = cKDTree(values[~inside]).query(values[inside])[0]
    return distances


def _spread(n: int, most: int) -> Int[np.ndarray, " m"]:
    """Return the indices of so many of `n` images at most, evenly spread over them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def _measured(
    basis: Basis,
    classes: Sequence[ClassSpec],
    labels: Int[np.ndarray, " n"],
    looked: Iterable[Looked],
    before: Float[np.ndarray, "n k"],
    after: Float[np.ndarray, "n k"],
    fitted: Fitted,
    policy: DecisionPolicy,
) -> TrustMetrics:
    names = [spec.name for spec in classes]
    decisions, points = _decided(classes, labels, looked, policy)
    covered = np.array(
        [names[label] in made.prediction_set for label, made in zip(labels, decisions, strict=True)]
    )
    right = [
        made.decision == classes[label].role
        for label, made in zip(labels, decisions, strict=True)
        if made.decision != "undecidable"
    ]
    sizes = Counter(len(made.prediction_set) for made in decisions)
    reasons = Counter(made.reason for made in decisions)
    n, rule = len(labels), fitted.rule
    counts = fitted.judge.classes.counts
    return TrustMetrics(
        basis=basis,
        n_images=n,
        temperature=rule.temperature,
        before=calibration(before, labels),
        after=calibration(after, labels),
        alpha=policy.alpha,
        coverage=proportion(int(covered.sum()), n),
        per_class_coverage=[
            proportion(int(covered[own].sum()), int(own.sum())) if own.any() else None
            for own in (labels == index for index in range(len(classes)))
        ],
        pooled=[
            name for name, few in zip(names, too_few(counts, policy.alpha), strict=True) if few
        ],
        mean_set_size=sum(size * count for size, count in sizes.items()) / n,
        set_sizes=[sizes[size] for size in range(max(sizes) + 1)],
        decided=proportion(len(right), n),
        decided_accuracy=proportion(sum(right), len(right)) if right else None,
        unlike=proportion(sum(reasons[reason] for reason in UNLIKE), n),
        reasons=dict(sorted(reasons.items())),
        calibration_groups={role: rule.groups(role) for role in rule.role_scores},
        curve=points,
    )


def _decided(
    classes: Sequence[ClassSpec],
    labels: Int[np.ndarray, " n"],
    looked: Iterable[Looked],
    policy: DecisionPolicy,
) -> tuple[list[Decision], list[AlphaPoint]]:
    """Decide on each image; and on some of them, evenly spread, with other alphas."""
    drawn = _spread(len(labels), MOST_IN_CURVE)
    some, decisions, others = set(drawn.tolist()), [], []
    for index, one in enumerate(looked):
        decisions.append(conclude(classes, one.found, policy, top_k=1))
        if index in some:
            others.append(verdicts(classes, one, policy))
    return decisions, curve(classes, labels[drawn].tolist(), others)


def calibration_groups(
    classes: Sequence[ClassSpec], labels: Sequence[int], groups: Sequence[str]
) -> dict[Role, int]:
    """Return how many groups of images each role has that the classes have."""
    seen = {(classes[label].role, group) for label, group in zip(labels, groups, strict=True)}
    return {role: sum(r == role for r, _ in seen) for role in {spec.role for spec in classes}}
