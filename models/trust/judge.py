"""A decision rule in memory: from the evidence of an image to what may be concluded from it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from models.classes import Role
from models.trust.conformal import Scores, class_scores, role_scores
from models.trust.evidence import Evidence, softmax
from models.trust.outliers import Outliers
from models.trust.photograph import PhotographStatistics
from models.trust.reasons import Reason
from models.trust.rule import DecisionRule

ROLES: Final[tuple[Role, ...]] = ("ok", "ng", "other")


@lru_cache(maxsize=1000)
def members_of(roles: tuple[Role, ...]) -> Bool[np.ndarray, "3 n_classes"]:
    """Return which classes are of each of `ROLES`."""
    return np.array([[own == role for own in roles] for role in ROLES])


class Findings(NamedTuple):
    """What is known of an image before a policy is applied.

    Attributes:
        probabilities: calibrated.
        p_values: of the classes; None where the version carries no rule.
        role_p_values: of `ROLES`; None likewise.
        groups: how many calibration groups each of `ROLES` has.
        unlike: why the image is not one to decide on.
    """

    probabilities: Float[np.ndarray, " n_classes"]
    p_values: Float[np.ndarray, " n_classes"] | None = None
    role_p_values: Float[np.ndarray, " 3"] | None = None
    groups: tuple[int, ...] = (0, 0, 0)
    unlike: Reason | None = None


class Judge(NamedTuple):
    """A rule as predictions need it, a kilobyte or two.

    Attributes:
        temperature: see `models.trust.rule`.
        classes: calibration scores of the classes.
        roles: calibration scores of the roles, in the order of `ROLES`.
        outliers: None where there were too few images to tell.
    """

    temperature: float
    classes: Scores
    roles: Scores
    outliers: Outliers | None

    @classmethod
    def of(cls, rule: DecisionRule, photographs: Float[np.ndarray, "n 4"]) -> "Judge":
        """Return the judge of an artifact's rule and its training photographs, scaled.

        They are copied: a view of the artifact's bytes would keep more in memory than it shows.
        """
        outliers = rule.outliers
        return cls(
            temperature=rule.temperature,
            classes=Scores.of(rule.scores),
            roles=Scores.of([rule.role_scores.get(role, []) for role in ROLES]),
            outliers=None if outliers is None else Outliers(outliers, photographs.copy()),
        )

    def find(
        self,
        roles: tuple[Role, ...],
        evidence: Sequence[Evidence],
        photographs: Sequence[PhotographStatistics | None],
        alpha: float,
    ) -> list[Findings]:
        """Return what the evidence of images says, in a few operations for all of them.

        Args:
            roles: of the classes.
            evidence: of each image by the model that the rule belongs to.
            photographs: the statistics of each; None where they are not to count.
            alpha: classes with too few images for it are compared with all scores.
        """
        folds = np.stack([_fold_logits(one) for one in evidence])
        logits = np.stack([one.logits for one in evidence])
        by_role = role_scores(folds, members_of(roles))
        groups = tuple(self.roles.counts.tolist())
        unlike = [
            None if self.outliers is None else self.outliers.unlike(one, photograph)
            for one, photograph in zip(evidence, photographs, strict=True)
        ]
        found = zip(
            softmax(logits / self.temperature),
            self.classes.p_values(class_scores(folds), alpha),
            self.roles.p_values(by_role),
            unlike,
            strict=True,
        )
        return [
            Findings(probabilities, p_values, role_p_values, groups, reason)
            for probabilities, p_values, role_p_values, reason in found
        ]


class Case(NamedTuple):
    """What an image is judged by.

    Attributes:
        judge: the rule of the model that it is asked of.
        roles: of the model's classes.
        alpha: see `Judge.find`.
        photograph: the image's statistics; None where they are not to count.
    """

    judge: Judge
    roles: tuple[Role, ...]
    alpha: float
    photograph: PhotographStatistics | None


def find_all(evidence: Sequence[Evidence], cases: Sequence[Case | None]) -> list[Findings]:
    """Return what is known of each image; those of one rule are judged together.

    Args:
        evidence: of each.
        cases: what each is judged by; None where there is no rule.
    """
    found: dict[int, Findings] = {}
    together: dict[tuple[int, float], list[tuple[int, Case]]] = {}
    for place, (one, case) in enumerate(zip(evidence, cases, strict=True)):
        if case is None:
            found[place] = Findings(one.probabilities)
        else:
            together.setdefault((id(case.judge), case.alpha), []).append((place, case))
    for group in together.values():
        first, places = group[0][1], [place for place, _ in group]
        photographs = [case.photograph for _, case in group]
        own = [evidence[place] for place in places]
        judged = first.judge.find(first.roles, own, photographs, first.alpha)
        found.update(zip(places, judged, strict=True))
    return [found[place] for place in range(len(evidence))]


def _fold_logits(evidence: Evidence) -> Float[np.ndarray, "folds n_classes"]:
    assert evidence.fold_logits is not None  # noqa: S101 - a model with a rule has folds
    return evidence.fold_logits
