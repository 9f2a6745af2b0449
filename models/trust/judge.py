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
        """Return the judge of an artifact's rule and its training photographs, scaled."""
        outliers = rule.outliers
        return cls(
            temperature=rule.temperature,
            classes=Scores.of(rule.scores),
            roles=Scores.of([rule.role_scores.get(role, []) for role in ROLES]),
            outliers=None if outliers is None else Outliers(outliers, photographs),
        )

    def find(
        self,
        roles: Sequence[Role],
        evidence: Evidence,
        photograph: PhotographStatistics | None,
        alpha: float,
    ) -> Findings:
        """Return what the evidence of an image says.

        Args:
            roles: of the classes.
            evidence: by the model that the rule belongs to.
            photograph: its statistics; None where they are not to count.
            alpha: classes with too few images for it are compared with all scores.
        """
        logits = evidence.fold_logits
        assert logits is not None  # noqa: S101 - a model with a rule has folds
        return Findings(
            probabilities=softmax(evidence.logits / self.temperature),
            p_values=self.classes.p_values(class_scores(logits), alpha),
            role_p_values=self.roles.p_values(role_scores(logits, members_of(tuple(roles)))),
            groups=tuple(self.roles.counts(len(ROLES)).tolist()),
            unlike=None if self.outliers is None else self.outliers.unlike(evidence, photograph),
        )
